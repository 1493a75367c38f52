"""Fits a router: which texts it learns from, the classifier, and the confidence floor.

Each row teaches by its completion, by stretches of it as short as a question, by its whole prompt,
and by its prompt without the words that all prompts of the dataset share: those are a template's,
and no user's. The floor is set on texts that the classifier had not seen (five-fold
cross-validation): it turns away nine in ten general texts, so that small talk pays nobody.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from byline.artifacts import Artifact
from byline.canonical import Json
from byline.datasets import read_dataset
from byline.datasets.packages import InstalledPackage
from byline.records import Example
from byline.routing.arrays import RouterArrays
from byline.routing.background import read_background
from byline.routing.text import COLUMNS, content_words, hashed, hashing
from byline.routing.vocabulary import Vocabulary, empty_vocabulary, read_vocabulary

STRETCH_WORDS = 8  # about a question's length
TEMPLATE_SHARE = 0.2  # a word in this share of a dataset's prompts belongs to its templates
BACKGROUND_TURNED_AWAY = 0.9
FOLDS = 5
ROWS_MAX = 600  # of one dataset: more adds minutes of fitting and little that is new
# Both by cross-validated log loss on stretches of completions, see docs/results.md.
INVERSE_REGULARISATION = 3.0
VOCABULARY_WEIGHT = 3.0


@dataclass(frozen=True, slots=True)
class Lessons:
    """The texts to learn from: as numbers, with each text's class, fold and kind."""

    numbers: csr_matrix
    classes: NDArray[np.int64]
    folds: NDArray[np.int64]
    kinds: NDArray[np.str_]

    def where(self, mask: NDArray[np.bool_]) -> tuple[csr_matrix, NDArray[np.int64]]:
        """The numbers and classes of the texts that `mask` chooses."""
        return csr_matrix(self.numbers[mask]), self.classes[mask]


def fit_router(
    datasets: Mapping[str, Artifact], background: InstalledPackage, base: Artifact | None
) -> tuple[RouterArrays, Mapping[str, Json]]:
    """The fitted arrays, and what cross-validation said of them."""
    adapters = tuple(sorted(datasets))
    examples = {adapter: read_dataset(datasets[adapter]).examples for adapter in adapters}
    vocabulary = read_vocabulary(base.path) if base else empty_vocabulary()
    lessons = _lessons(list(examples.values()), read_background(background), vocabulary)
    with threadpool_limits(limits=1):  # the matrices are small: threads only wait for each other
        floor, report = _cross_validated(lessons, background_class=len(adapters))
        fitted = _classifier().fit(lessons.numbers, lessons.classes)
    coefficients = fitted.coef_.T
    arrays = RouterArrays(
        adapters=adapters,
        floor=floor,
        columns=coefficients[:COLUMNS].astype(np.float32),
        bias=fitted.intercept_.astype(np.float32),
        words=np.array(vocabulary.words, dtype=np.str_),
        word_weights=_word_weights(vocabulary, coefficients[COLUMNS:]),
    )
    return arrays, report


def _word_weights(vocabulary: Vocabulary, coefficients: NDArray[np.float64]) -> NDArray[np.float32]:
    """Each word's own logits. The classifier is linear in the mean word vector, so a text's logits
    are the mean of its words' logits, and the vectors need not be kept."""
    weights = VOCABULARY_WEIGHT * vocabulary.vectors @ coefficients
    return np.asarray(weights, dtype=np.float32)


def _classifier() -> LogisticRegression:
    return LogisticRegression(C=INVERSE_REGULARISATION, class_weight="balanced", max_iter=3_000)


def texts_of(example: Example, template_words: frozenset[str]) -> list[tuple[str, str]]:
    """What one row teaches by, as (kind, text)."""
    words = example.completion.split()
    starts = range(0, max(1, len(words) - STRETCH_WORDS // 2), STRETCH_WORDS)
    stretches = [" ".join(words[start : start + STRETCH_WORDS]) for start in starts]
    subject = " ".join(w for w in _plain_words(example.prompt) if w not in template_words)
    return [
        ("completion", example.completion),
        ("prompt", example.prompt),
        ("subject", subject),
        *(("stretch", stretch) for stretch in stretches),
    ]


def _plain_words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def template_words(examples: Sequence[Example]) -> frozenset[str]:
    """The words that so many of the prompts share that a template must have put them there."""
    counts = Counter(word for e in examples for word in set(_plain_words(e.prompt)))
    least = TEMPLATE_SHARE * len(examples)
    return frozenset(word for word, count in counts.items() if count >= least)


def _lessons(
    examples: Sequence[Sequence[Example]], background: Sequence[str], vocabulary: Vocabulary
) -> Lessons:
    texts: list[str] = []
    labels: list[tuple[int, int, str]] = []
    for number, rows in enumerate(examples):
        shared = template_words(rows)
        for place, row in enumerate(rows[:ROWS_MAX]):  # ids are hashes: the folds are alike
            for kind, text in texts_of(row, shared):
                texts.append(text)
                labels.append((number, place % FOLDS, kind))
    for place, text in enumerate(background):
        texts.append(text)
        labels.append((len(examples), place % FOLDS, "general"))
    classes, folds, kinds = zip(*labels, strict=True)
    return Lessons(_numbers(texts, vocabulary), np.array(classes), np.array(folds), np.array(kinds))


def _numbers(texts: list[str], vocabulary: Vocabulary) -> csr_matrix:
    places = {word: place for place, word in enumerate(vocabulary.words)}
    means = np.stack([vocabulary.mean(content_words(text), places) for text in texts])
    return csr_matrix(hstack([hashed(hashing(), texts), VOCABULARY_WEIGHT * means]))


def _cross_validated(lessons: Lessons, background_class: int) -> tuple[float, Mapping[str, Json]]:
    """The floor, and the share of unseen texts of each kind that then reach their adapter."""
    unseen = np.zeros((len(lessons.classes), background_class + 1))
    for fold in range(FOLDS):
        held_out = lessons.folds == fold
        fitted = _classifier().fit(*lessons.where(~held_out))
        unseen[held_out] = fitted.predict_proba(lessons.where(held_out)[0])
    best = unseen[:, :background_class].max(axis=1)
    general = lessons.kinds == "general"
    floor = float(np.quantile(best[general], BACKGROUND_TURNED_AWAY))
    right = (unseen[:, :background_class].argmax(axis=1) == lessons.classes) & (best >= floor)
    likelihood = np.log(unseen[np.arange(len(unseen)), lessons.classes])
    report: dict[str, Json] = {"turned_away": {"general": _rounded((best < floor)[general])}}
    kinds = ("completion", "prompt", "stretch")
    report["right"] = {kind: _rounded(right[lessons.kinds == kind]) for kind in kinds}
    report["log_loss"] = {
        kind: _rounded(-likelihood[lessons.kinds == kind]) for kind in (*kinds, "general")
    }
    return floor, report


def _rounded(values: NDArray[np.float64] | NDArray[np.bool_]) -> float:
    return round(float(np.mean(values)), 4)
