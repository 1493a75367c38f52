"""Contributors' scores out of what counterfactual adapters say of an answer, coalitions' included.

A leave-one-out effect e_c is the slope at "everybody", where contributors stand in for each other;
an adapter of half of them shows what is worth how much where they don't. With outcomes y_S of
some coalitions, all relative to their means over those coalitions,

    y_S ~ sum over c in S of phi_c,    phi = s e + delta

is fitted for each answer: s, one number for all answers, by least squares, then delta by ridge
regression on what is left, so that with few coalitions phi stays near the effects. The ridge is
the one that foretells each coalition best from the others, over the answers that are for tuning.
"""

import numpy as np
from numpy.typing import NDArray

from byline.fidelity.measures import Array

RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1_000.0)


def fitted(effects: Array, outcomes: Array, membership: Array, ridge: float) -> Array:
    """phi [A, C], nats, of effects [A, C] and the outcomes [A, S] of coalitions [S, C]."""
    members = membership - membership.mean(axis=0)
    moved = outcomes - outcomes.mean(axis=1, keepdims=True)
    foretold = effects @ members.T
    squares = float((foretold**2).sum())
    scale = float((foretold * moved).sum()) / squares if squares else 0.0
    rest = moved - scale * foretold
    inverse = np.linalg.inv(members @ members.T + ridge * np.eye(len(members)))
    phi: Array = scale * effects + rest @ inverse @ members
    return phi


def left_out_error(effects: Array, outcomes: Array, membership: Array, ridge: float) -> float:
    """Mean squared error of each coalition's outcome, foretold by the others', nats squared."""
    errors = []
    for place in range(len(membership)):
        others = np.arange(len(membership)) != place
        phi = fitted(effects, outcomes[:, others], membership[others], ridge)
        moved = outcomes[:, place] - outcomes[:, others].mean(axis=1)
        members = membership[place] - membership[others].mean(axis=0)
        errors.append(((moved - phi @ members) ** 2).mean())
    return float(np.mean(errors))


def with_coalitions(
    effects: Array, outcomes: Array, membership: Array, tuned_on: NDArray[np.bool_]
) -> Array:
    """The fit [A, C] of all answers, its ridge chosen on the answers `tuned_on` [A]."""
    best = min(
        RIDGES,
        key=lambda ridge: left_out_error(effects[tuned_on], outcomes[tuned_on], membership, ridge),
    )
    return fitted(effects, outcomes, membership, best)
