"""Banzhaf shares from the trained halves, beside the leave-one-out shares that are paid.

A contributor's Banzhaf value is its mean marginal effect over coalitions (Wang and Jia,
https://arxiv.org/abs/2205.15466); least squares over coalitions estimates it (Kernel Banzhaf,
https://arxiv.org/abs/2410.08336). Halves all have one size, so they tell contributors apart but not
what one more is worth; that comes from an anchor, the line's fixed end: everybody, or the base.
"""

from dataclasses import dataclass

import numpy as np

from byline.fidelity.measures import Array, payout_errors, shares
from byline.fidelity.replication import half_distance
from byline.fidelity.resampling import Draws, Figure, interval, mean_draws


@dataclass(frozen=True, slots=True)
class Compared:
    """Banzhaf shares and what they would change in pay; see `anchored_values` of the anchor."""

    anchor: str
    shares: tuple[float, ...]  # mean over answers, by contributor
    leave_one_out_shares: tuple[float, ...]
    change_by_answer: Figure  # half L1, the unpaid part counted
    change_in_aggregate: float  # half L1 of the mean shares


def anchored_values(outcomes: Array, membership: Array, anchor: Array, *, everybody: bool) -> Array:
    """Values [A, C] by least squares of outcomes [A, S] on membership [S, C]; nats.

    The line goes through `anchor` [A]: the outcome with everybody, or of the base without anybody.
    In an additive game both give every contributor's worth. Raises ValueError where the coalitions
    don't tell all contributors apart.
    """
    changed = membership - 1 if everybody else membership
    if np.linalg.matrix_rank(changed) < changed.shape[1]:
        raise ValueError("too few coalitions to tell contributors apart")
    values = np.linalg.lstsq(changed, (outcomes - anchor[:, None]).T, rcond=None)[0]
    return np.asarray(values.T, dtype=np.float64)


def compare(anchor: str, values: Array, effects: Array, draws: Draws) -> Compared:
    """The shares of Banzhaf values [A, C] against those of leave-one-out effects [A, C]."""
    errors = payout_errors(values, effects)
    left, right = shares(values), shares(effects)
    return Compared(
        anchor=anchor,
        shares=tuple(left.mean(axis=0).tolist()),
        leave_one_out_shares=tuple(right.mean(axis=0).tolist()),
        change_by_answer=interval(float(errors.mean()), mean_draws(errors, draws)),
        change_in_aggregate=half_distance(left, right),
    )
