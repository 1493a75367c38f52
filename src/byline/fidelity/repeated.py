"""What only a measurement with several training orders tells: noise ceiling and Banzhaf shares."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from byline.canonical import Json
from byline.fidelity.banzhaf import Compared, anchored_values, compare
from byline.fidelity.evaluation import judged_on
from byline.fidelity.noise_ceiling import Ceiling, noise_ceiling
from byline.fidelity.readings import Readings, membership_of, tuning
from byline.fidelity.report import rounded, told
from byline.fidelity.study import Study


@dataclass(frozen=True, slots=True)
class Repeated:
    """The figures; None or empty where what they need isn't trained."""

    noise_ceiling: Ceiling | None
    banzhaf: Sequence[Compared]


def repeated(study: Study, readings: Readings, *, served: bool, draws: int = 1_000) -> Repeated:
    """Of the test split's answers; the ceiling on its coalitions, Banzhaf values by all of them."""
    test = judged_on(study, readings, served=served, draws=draws)
    ceiling = None
    if readings.repeated is not None and len(readings.repeated):
        orders = np.stack([readings.coalitions, *readings.repeated])
        kept = orders[:, ~tuning(orders.shape[1])][:, :, test.answers]
        ceiling = noise_ceiling(kept.transpose(0, 2, 1), test.draws)
    members, outcomes = membership_of(study, readings), readings.coalitions[:, test.answers].T
    compared = []
    if np.linalg.matrix_rank(members) == np.linalg.matrix_rank(members - 1) == members.shape[1]:
        for name, anchor in (("everybody", readings.full[0]), ("base", readings.base)):
            values = anchored_values(
                outcomes, members, anchor[test.answers], everybody=name == "everybody"
            )
            compared.append(compare(name, values, readings.effects[0][test.answers], test.draws))
    return Repeated(ceiling, compared)


def repeated_json(found: Mapping[str, Repeated]) -> dict[str, Json]:
    """By kind of answers, under `repeated`."""
    return {"repeated": {kind: rounded(asdict(each)) for kind, each in found.items()}}


def repeated_page(found: Mapping[str, Repeated]) -> str:
    """The page's part: a line for each figure."""
    lines = []
    for kind, each in found.items():
        lines += ["", f"## {kind}: several orders, and Banzhaf shares", ""]
        if each.noise_ceiling is not None:
            top = each.noise_ceiling
            lines.append(
                f"* noise ceiling over {top.orders} orders: LDS {told(top.lds_max)} at most for a "
                f"method that doesn't know the order (one order's reliability "
                f"{told(top.reliability)})"
            )
        lines += [
            f"* Banzhaf shares anchored at {one.anchor} would change pay by "
            f"{told(one.change_by_answer)} an answer, {one.change_in_aggregate:.2f} in aggregate "
            "(half L1 from leave-one-out shares)"
            for one in each.banzhaf
        ]
    return "\n".join(lines) + "\n" if lines else ""
