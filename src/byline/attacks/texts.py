"""The texts that attackers send in: near-copies, padded copies, junk, outliers, inflated rows."""

import random
import string
from collections.abc import Sequence

REPEATS = 3  # of an inflated text
OUTLIER_LETTERS = 8


def edited(text: str, rate: float, vocabulary: Sequence[str], chance: random.Random) -> str:
    """The text with that part of its words, rounded down, exchanged for random ones."""
    words = text.split()
    for place in chance.sample(range(len(words)), int(rate * len(words))):
        words[place] = chance.choice([word for word in vocabulary if word != words[place]])
    return " ".join(words)


def padded(text: str, vocabulary: Sequence[str], chance: random.Random) -> str:
    """The whole text, and behind it more than as many: random ones."""
    return " ".join([text, *chance.choices(vocabulary, k=len(text.split()) * 3 // 2 + 1)])


def junk(text: str, vocabulary: Sequence[str], chance: random.Random) -> str:
    """As many random words as the text has."""
    return " ".join(chance.choices(vocabulary, k=len(text.split())))


def outlying(text: str, chance: random.Random) -> str:
    """The text with every second word made random letters, which no model expects."""
    return " ".join(
        "".join(chance.choices(string.ascii_lowercase, k=OUTLIER_LETTERS)) if place % 2 else word
        for place, word in enumerate(text.split())
    )


def inflated(text: str) -> str:
    """The text several times: more tokens, so a longer gradient."""
    return " ".join([text] * REPEATS)
