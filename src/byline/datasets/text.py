"""Small, deterministic pieces of text work that the sources share."""

import re
import unicodedata
from collections.abc import Sequence

from byline.canonical import sha256_hex

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(]?[A-Z0-9])")


def squeezed(text: str | None) -> str:
    """`text` with every run of white space as one space; None is empty."""
    return " ".join((text or "").split())


def word_count(text: str) -> int:
    """How many words stand in `text`."""
    return len(text.split())


def slug(name: str) -> str:
    """`name` as `[a-z0-9-]+`: accents dropped, anything else a hyphen."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def whole_sentences(text: str, words_max: int) -> str:
    """The sentences from the start that fit `words_max`; empty if the first one does not."""
    kept: list[str] = []
    for sentence in SENTENCE_END.split(squeezed(text)):
        if word_count(" ".join([*kept, sentence])) > words_max:
            break
        kept.append(sentence)
    return " ".join(kept)


def chosen_template(templates: Sequence[str], key: str) -> str:
    """One of `templates`, always the same for the same key."""
    return templates[int(sha256_hex(key.encode())[:8], 16) % len(templates)]
