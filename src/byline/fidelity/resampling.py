"""Bootstrap intervals over answers and over coalitions at once: both are samples of what could be.

Every figure of one measurement is resampled with the same draws, so that the difference between two
methods' draws is the difference's own (paired) distribution.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from byline.fidelity.measures import Array, lds_by_answer

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Draws:
    """Resampled places: answers [B, A] and coalitions [B, S], each drawn with replacement."""

    answers: NDArray[np.int64]
    coalitions: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and its interval."""

    value: float
    low: float
    high: float


def draw(answers: int, coalitions: int, count: int, seed: int) -> Draws:
    """`count` resamples of both."""
    random = np.random.default_rng(seed)
    return Draws(
        answers=random.integers(0, answers, size=(count, answers)),
        coalitions=random.integers(0, coalitions, size=(count, coalitions)),
    )


def interval(value: float, drawn: Array) -> Figure:
    """The value with the draws' percentile interval."""
    tail = (1 - CONFIDENCE) / 2 * 100
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Figure(value, float(low), float(high))


def lds_draws(scores: Array, membership: Array, outcomes: Array, draws: Draws) -> Array:
    """The LDS of every resample, [B]."""
    found = np.empty(len(draws.answers))
    for number, (answers, coalitions) in enumerate(
        zip(draws.answers, draws.coalitions, strict=True)
    ):
        each = lds_by_answer(scores, membership[coalitions], outcomes[:, coalitions])
        found[number] = each[answers].mean()
    return found


def mean_draws(values: Array, draws: Draws) -> Array:
    """The mean of `values` [A] in every resample of answers, [B]."""
    result: Array = values[draws.answers].mean(axis=1)
    return result
