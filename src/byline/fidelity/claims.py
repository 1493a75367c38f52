"""What contributors would claim pay by, of the methods that pay: their payout error is the money's.

The other methods' payout error is of their scores, cut at zero by contributor.
"""

from collections.abc import Mapping

import numpy as np

from byline.attribution import divided, row_claims
from byline.fidelity.measures import Array
from byline.fidelity.methods import FISHER, TANGENT
from byline.fidelity.readings import Readings
from byline.fidelity.study import Study
from byline.limits import SCORE_UNITS_PER_NAT


def as_paid(study: Study, readings: Readings, method: str, scores: Array) -> Array | None:
    """Every contributor's claim to every answer, [A, C], of a method's scores [A, C]; nats.

    By the rows' scores that were read and the rules of pay; damped Fisher pays by those rows alone.
    None where rows were not read, or for a method that never pays.
    """
    if readings.by_row is None or method not in {FISHER, TANGENT}:
        return None
    names = study.contributors
    owners = [names[place] for place in study.contributor_of]
    claims = np.zeros(scores.shape)
    for line, whole, by_row in zip(claims, scores.tolist(), readings.by_row.tolist(), strict=True):
        rows = list(zip(owners, by_row, strict=True))
        if method == TANGENT:
            rows = divided(dict(zip(names, whole, strict=True)), rows)
        found: Mapping[str, int] = row_claims(rows)
        line[:] = [found.get(name, 0) / SCORE_UNITS_PER_NAT for name in names]
    return claims
