"""How the router reads a text: its content words, and the numbers made of them.

Used alike when a router is built and when it routes, so that both see the same columns.
"""

import re

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, HashingVectorizer

COLUMNS = 2**14  # of the hashed part: some 4,000 different words occur in three small datasets
CHARACTERS_MAX = 4_000  # a subject shows early; a longer text would only cost time
WORD = re.compile(r"[a-z]{2,}")


def content_words(text: str) -> list[str]:
    """The lower-case words of the start of `text` that can tell a subject."""
    words = WORD.findall(text[:CHARACTERS_MAX].lower())
    return [word for word in words if word not in ENGLISH_STOP_WORDS]


def hashing() -> HashingVectorizer:
    """The stateless vectorizer: rows of unit length in COLUMNS columns."""
    return HashingVectorizer(
        analyzer=content_words, n_features=COLUMNS, alternate_sign=False, dtype=np.float32
    )


def hashed(vectorizer: HashingVectorizer, texts: list[str]) -> csr_matrix:
    """One sparse row a text."""
    return csr_matrix(vectorizer.transform(texts))
