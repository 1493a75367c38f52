"""What cheaper forms of the vectors cost and keep: bytes a contributor against fidelity."""

from dataclasses import dataclass

from byline.fidelity.evaluation import judged_on
from byline.fidelity.measures import lds, payout_errors
from byline.fidelity.readings import FRONTIER, Readings
from byline.fidelity.resampling import Figure, interval, lds_draws
from byline.fidelity.study import Study


@dataclass(frozen=True, slots=True)
class Point:
    """One form of the vectors: what is kept of each contributor's, and what that tells."""

    form: str
    bytes_a_contributor: int
    lds: Figure
    payout_error: float


def frontier(study: Study, readings: Readings) -> list[Point]:
    """The forms in the readings, on the test split of the served answers; dearest first."""
    test = judged_on(study, readings, served=True)
    points = []
    for key, scores in readings.scores.items():
        method, _, form = key.partition("/")
        if method != FRONTIER:
            continue
        name, _, size = form.rpartition("/")
        mine = scores[test.answers]
        drawn = lds_draws(mine, test.membership, test.outcomes, test.draws)
        points.append(
            Point(
                form=name,
                bytes_a_contributor=int(size),
                lds=interval(lds(mine, test.membership, test.outcomes), drawn),
                payout_error=float(payout_errors(mine, test.effects).mean()),
            )
        )
    return sorted(points, key=lambda point: -point.bytes_a_contributor)
