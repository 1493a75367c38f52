"""How far paid is from audited: rank correlation and payout error, with intervals. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from byline.auditing.audit import Audit, nano_of
from byline.fidelity.measures import rank_correlations

NORMAL_95 = 1.959964


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over audits, and the half-width of its 95 % interval (normal; 0 for one audit)."""

    mean: float
    half_width: float


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What the audits of one adapter say of what was paid for it."""

    audits: int
    rank_correlation: Figure  # of the contributors' scores, paid against audited; -1 to 1
    payout_error: (
        Figure  # half the sum of |paid - audited| by pool, `unattributed` included; 0 to 1
    )


def fidelity_of(audits: Iterable[Audit]) -> Fidelity | None:
    """The figures over these audits; None where there are none with a pool."""
    known = [audit for audit in audits if audit.paid.pool_nano]
    if not known:
        return None
    return Fidelity(
        audits=len(known),
        rank_correlation=_figure([_rank_correlation(audit) for audit in known]),
        payout_error=_figure([_payout_error(audit) for audit in known]),
    )


def _rank_correlation(audit: Audit) -> float:
    names = sorted(audit.audited.scores)
    paid = [[float(audit.paid.scores.get(name, 0)) for name in names]]
    audited = [[float(audit.audited.scores[name]) for name in names]]
    found: NDArray[np.float64] = rank_correlations(np.array(paid), np.array(audited))
    return float(found[0])


def _payout_error(audit: Audit) -> float:
    paid, audited = nano_of(audit.paid), nano_of(audit.audited)
    moved = sum(abs(paid.get(who, 0) - audited.get(who, 0)) for who in {*paid, *audited})
    return moved / 2 / audit.paid.pool_nano


def _figure(values: Sequence[float]) -> Figure:
    numbers = np.array(values)
    error = float(numbers.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    return Figure(float(numbers.mean()), NORMAL_95 * error)
