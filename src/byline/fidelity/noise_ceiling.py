"""How well anything that doesn't know the training order can foretell outcomes: the noise ceiling.

The same coalitions are trained under several orders. The orders are split into two halves, and the
mean outcomes of the halves are rank-correlated over coalitions: a split-half reliability.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from byline.fidelity.measures import Array, rank_correlations
from byline.fidelity.resampling import Draws, Figure, interval


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The figures of one kind of answers; all lie between 0 and 1."""

    orders: int
    reliability: Figure  # of one order's outcomes
    lds_max: Figure  # of a perfect predictor, against one order's outcomes


def split_half(outcomes: Array) -> Array:
    """Rank correlation over coalitions of two halves of the orders, the mean of all splits, [A].

    `outcomes` [orders, A, S] need two orders at least; of an odd number one is left out in turn.
    """
    size = len(outcomes) // 2
    parts = [set(part) for part in combinations(range(len(outcomes)), size)]
    means = [outcomes[sorted(part)].mean(axis=0) for part in parts]
    pairs = combinations(range(len(parts)), 2)
    found = [rank_correlations(means[i], means[j]) for i, j in pairs if not parts[i] & parts[j]]
    result: Array = np.mean(found, axis=0)
    return result


def stepped(reliability: Array, factor: float) -> Array:
    """The reliability of a mean of `factor` times as many orders, by Spearman and Brown's formula.

    f r / (1 + (f - 1) r), with r cut to 0 .. 1 before (Spearman 1910, Brown 1910; exact for
    Pearson's correlation of parallel measurements, an approximation for ranks).
    """
    cut = np.clip(reliability, 0.0, 1.0)
    result: Array = factor * cut / (1 + (factor - 1) * cut)
    return result


def noise_ceiling(outcomes: Array, draws: Draws) -> Ceiling:
    """The ceiling of outcomes [orders, A, S]; intervals over answers and coalitions at once.

    A predictor of the true mean correlates with one order by the root of that order's reliability
    (Spearman's correction for attenuation, 1904).
    """
    to_one = 1 / (len(outcomes) // 2)
    drawn = np.array([
        split_half(outcomes[:, :, coalitions])[answers].mean()
        for answers, coalitions in zip(draws.answers, draws.coalitions, strict=True)
    ])  # fmt: skip
    value = stepped(split_half(outcomes).mean(keepdims=True), to_one)
    each = stepped(drawn, to_one)
    return Ceiling(
        orders=len(outcomes),
        reliability=interval(float(value[0]), each),
        lds_max=interval(float(np.sqrt(value[0])), np.sqrt(each)),
    )
