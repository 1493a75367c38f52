"""Figures of fidelity: how well contributors' scores foretell what retraining without them does.

A answers, C contributors, S coalitions. `scores` [A, C] are a method's; `outcomes` [A, S] are the
log-probabilities of the answers under adapters trained on each coalition's rows alone; `membership`
[S, C] is 1 where a contributor is in a coalition; `effects` [A, C] are log-probability with
everybody minus that without the contributor.

LDS, the linear datamodelling score (Park et al., https://arxiv.org/abs/2303.14186): a coalition's
predicted outcome is the sum of its members' scores; LDS is the Spearman correlation over coalitions
of predicted and real outcomes, averaged over answers. Here players are contributors.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]


def correlations(left: Array, right: Array) -> Array:
    """Pearson's correlation of each row of `left` [A, N] with that of `right`; 0 where one is flat.

    A flat prediction orders nothing, so it gets what chance gets.
    """
    x = left - left.mean(axis=1, keepdims=True)
    y = right - right.mean(axis=1, keepdims=True)
    norms = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    products = (x * y).sum(axis=1)
    # Rounding leaves a flat row a little less than flat.
    scale = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    flat = norms <= 1e-12 * scale
    result: Array = np.where(flat, 0.0, products / np.where(flat, 1.0, norms))
    return result


def rank_correlations(left: Array, right: Array) -> Array:
    """Spearman's correlation of each pair of rows; ties have their mean rank."""
    return correlations(rankdata(left, axis=1), rankdata(right, axis=1))


def predicted(scores: Array, membership: Array) -> Array:
    """[A, S]: the sum of each coalition's members' scores, rounded so that equal sums are ties."""
    sums = scores @ membership.T
    scale = np.abs(scores).sum(axis=1, keepdims=True)
    rounded: Array = np.round(sums / np.where(scale == 0, 1.0, scale), 12)
    return rounded


def lds_by_answer(scores: Array, membership: Array, outcomes: Array) -> Array:
    """Each answer's rank correlation over coalitions, [A]."""
    return rank_correlations(predicted(scores, membership), outcomes)


def lds(scores: Array, membership: Array, outcomes: Array) -> float:
    """The contributor-level linear datamodelling score."""
    return float(lds_by_answer(scores, membership, outcomes).mean())


def shares(scores: Array) -> Array:
    """Scores [A, C] as shares of pay: negatives clipped, each line to a sum of 1, or all 0."""
    clipped = np.clip(scores, 0.0, None)
    totals = clipped.sum(axis=1, keepdims=True)
    result: Array = np.divide(clipped, totals, out=np.zeros_like(clipped), where=totals > 0)
    return result


def payout_errors(scores: Array, effects: Array) -> Array:
    """Half the sum of |share - share by effects| of each answer, [A]; the unpaid part counts."""
    difference = shares(scores) - shares(effects)
    unpaid = difference.sum(axis=1)
    result: Array = (np.abs(difference).sum(axis=1) + np.abs(unpaid)) / 2
    return result


def aggregate_payout_error(scores: Array, effects: Array) -> float:
    """The same for the mean share over all answers: what a month's pay is wrong by."""
    difference = shares(scores).mean(axis=0) - shares(effects).mean(axis=0)
    return float((np.abs(difference).sum() + abs(difference.sum())) / 2)


def effect_correlation(scores: Array, effects: Array) -> float:
    """Pearson's correlation over contributors of scores and effects, averaged over answers."""
    return float(correlations(scores, effects).mean())


def permuted_lds(
    scores: Array, membership: Array, outcomes: Array, random: np.random.Generator, draws: int
) -> Array:
    """LDS with the contributors' scores handed round at random, [draws]: what chance gets."""
    count = scores.shape[1]
    orders = [random.permutation(count) for _ in range(draws)]
    return np.array([lds(scores[:, order], membership, outcomes) for order in orders])
