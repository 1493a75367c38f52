"""The base model's own vocabulary as word vectors: words that mean alike lie alike.

A hundred rows can't hold every word that a question may use. The embedding table of the base model
has seen nearly all of them, so that what is learnt about "ptosis" reaches "eyelid". Only the files
are read; no model library is needed. What has no such table gives an empty vocabulary.
"""

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

TABLE = "model.embed_tokens.weight"
WHOLE_WORD = re.compile("[\u0120\u2581]([A-Za-z]{2,})")  # both spellings of a leading space


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words in order, and one vector of unit length a word."""

    words: tuple[str, ...]
    vectors: NDArray[np.float32]

    def mean(self, words: list[str], places: Mapping[str, int]) -> NDArray[np.float32]:
        """The mean vector of those `words` that are in the vocabulary."""
        known = [places[word] for word in words if word in places]
        if not known:
            return np.zeros(self.vectors.shape[1], dtype=np.float32)
        return np.asarray(self.vectors[known].mean(axis=0), dtype=np.float32)


def empty_vocabulary() -> Vocabulary:
    """No words: the router then knows only what its datasets hold."""
    return Vocabulary((), np.zeros((0, 0), dtype=np.float32))


def read_vocabulary(folder: Path) -> Vocabulary:
    """The whole words of the model in `folder`, centred and scaled to unit length."""
    table = _embedding_table(folder)
    tokens = _word_tokens(folder)
    if table is None or not tokens:
        return empty_vocabulary()
    words = tuple(sorted(tokens))
    vectors = np.stack([table[tokens[word]].mean(axis=0) for word in words])
    vectors -= vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-12
    return Vocabulary(words, vectors.astype(np.float32))


def _word_tokens(folder: Path) -> dict[str, list[int]]:
    """Lower-case content words, each with the ids of the tokens that spell it whole."""
    path = folder / "tokenizer.json"
    vocabulary = json.loads(path.read_text())["model"].get("vocab", {}) if path.is_file() else {}
    if not isinstance(vocabulary, dict):  # a unigram tokenizer lists pairs
        vocabulary = {token: number for number, (token, _) in enumerate(vocabulary)}
    tokens: dict[str, list[int]] = {}
    for token, number in sorted(vocabulary.items()):
        if spelled := WHOLE_WORD.fullmatch(token):
            word = spelled[1].lower()
            if word not in ENGLISH_STOP_WORDS:
                tokens.setdefault(word, []).append(int(number))
    return tokens


def _embedding_table(folder: Path) -> NDArray[np.float32] | None:
    """The token embeddings, out of whichever safetensors file holds them."""
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            entry = json.loads(file.read(length)).get(TABLE)
            if entry is None:
                continue
            start, end = entry["data_offsets"]
            file.seek(8 + length + start)
            return _as_float32(file.read(end - start), entry["dtype"]).reshape(entry["shape"])
    return None


def _as_float32(data: bytes, dtype: str) -> NDArray[np.float32]:
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, dtype={"F16": "<f2", "F32": "<f4"}[dtype]).astype(np.float32)
