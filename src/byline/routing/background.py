"""General talk that no specialist should answer: small talk, trivia, books, sports, money.

It comes from the package `chatterbot-corpus` (BSD licence), English part, whose YAML files are read
line by line: they hold lists of lists of one-line texts and nothing else.
"""

import re

from byline.datasets.packages import InstalledPackage, find_package
from byline.routing.text import content_words

PACKAGE = "chatterbot_corpus"
# Left out: computers, coding, tech_support and health, which touch what specialists answer.
SUBJECTS = (
    "ai", "botprofile", "conversations", "emotion", "food", "gossip", "greetings", "history",
    "humor", "literature", "money", "movies", "politics", "psychology", "science", "sports",
    "trivia",
)  # fmt: skip
ITEM = re.compile(r"^(?:- - |  - |- )(.*)$")


def find_background() -> InstalledPackage:
    """The package of general texts. Raises StartFailed if it is not installed."""
    return find_package(PACKAGE)


def read_background(package: InstalledPackage) -> list[str]:
    """Every utterance of two content words or more, each once, in the files' order."""
    texts: list[str] = []
    for subject in SUBJECTS:
        texts += utterances(package.read_text(f"data/english/{subject}.yml"))
    return [text for text in dict.fromkeys(texts) if len(content_words(text)) >= 2]


def utterances(document: str) -> list[str]:
    """The texts of one file's conversations; a text may go on over lines that are indented."""
    texts: list[str] = []
    for line in document.partition("conversations:")[2].splitlines():
        if item := ITEM.match(line):
            texts.append(item[1])
        elif texts and line.strip():
            texts[-1] += f" {line.strip()}"
    return [text.strip("'\" ") for text in texts]
