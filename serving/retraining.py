"""Trains an adapter again without each of its contributors, for pay and audits that follow that.

    python -m serving.retraining --home HOME --adapter REF --dataset REF --base REF

Of each training order a run with everybody and one without each contributor, or, where those are
more than `--groups`, one without each group of them (`byline.auditing.groups`). The first order is
the one that the served adapter was trained in, and its run with everybody has to be that adapter to
the last bit: what retraining says is then said of what is served. From two orders on it is measured
how much of an effect comes again (`serving.fidelity.replication`); pay is shrunken by that.

The result goes into the home's audit plan, which `serving.index_builder` and the auditor read.
Killed and started again, the program goes on with the first run that is missing.
"""

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from byline.artifacts import Artifact, ArtifactStore
from byline.auditing.groups import GROUPS_MAX, Groups, group_of
from byline.auditing.lottery import parse_rate
from byline.auditing.plan import Counterfactuals, Order, enter, read_plan
from byline.datasets import read_dataset
from byline.errors import InvalidInput, StartFailed
from byline.fidelity.study import of_adapter
from byline.home import Home
from byline.limits import PPB
from serving.counterfactuals.plan import Planner, Run
from serving.counterfactuals.pool import train_missing
from serving.progress import Report, json_lines
from serving.recipes import ORDER_SEED, cores, share_cores

if TYPE_CHECKING:  # it loads the model libraries
    from serving.fidelity.replication import Replication


@dataclass(frozen=True, slots=True)
class Scale:
    """How often it is trained, by how many processes, and what its replication is read off."""

    orders: int
    questions: int
    processes: int
    groups: int = GROUPS_MAX  # that contributors are left out in, where there are more of them


@dataclass(frozen=True, slots=True)
class Trained:
    """An adapter, and what it was trained on."""

    adapter: Artifact
    dataset: Artifact
    base: Artifact


def retrain(
    home: Home, trained: Trained, scale: Scale, report: Report
) -> tuple[Counterfactuals, "Replication | None"]:
    """The adapter's counterfactual runs, trained where they are missing, and how they replicate.

    Raises StartFailed where the run with everybody is another adapter than `trained`, InvalidInput
    for fewer than one order or question.
    """
    from serving.counterfactuals.grouping import grouped
    from serving.fidelity.replication import replication_of

    if scale.orders < 1:
        raise InvalidInput(
            f"{scale.orders} training orders train nothing: give 1 or more", param="orders"
        )
    if scale.questions < 1:
        raise InvalidInput(
            f"{scale.questions} questions tell nothing: give 1 or more", param="questions"
        )

    if scale.groups < 2:
        raise InvalidInput("fewer than 2 groups tell nobody apart: give 2 or more", param="groups")

    rows = read_dataset(trained.dataset).canonical
    seeds = tuple(range(ORDER_SEED, ORDER_SEED + scale.orders))
    study = of_adapter(trained.adapter.name, rows, seeds, scale.questions)
    groups = None
    if len(study.contributors) > scale.groups:
        groups = grouped(trained.base, trained.adapter, rows, scale.groups, report)
        if len(groups) < 2:
            raise StartFailed("all contributors teach alike here: no group of them can be left out")
    planner = Planner(study, trained.base.sha256)
    runs = [[planner.full(seed), *_without(planner, seed, groups)] for seed in seeds]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.json"
        path.write_text(study.text())
        wanted = [run for each in runs for run in each]
        shape = (scale.processes, 1)
        train_missing(trained.base, path, home.counterfactuals, shape, report, wanted)
    found = replication_of(trained.base, trained.adapter, study, home.counterfactuals, runs, report)
    made = Counterfactuals(
        orders=tuple(_order(groups or study.contributors, each) for each in runs),
        reliability_ppb=None if found is None else round(found.reliability * PPB),
        groups=groups,
    )
    return made, found


def _without(planner: Planner, seed: int, groups: Groups | None) -> list[Run]:
    """A run without each contributor, or each group of them."""
    if groups is None:
        return planner.leave_one_out(seed)
    place = planner.study.contributors.index
    return planner.leave_groups_out(
        seed, [[place(who) for who in each] for each in groups.values()]
    )


def _order(units: Iterable[str], runs: Sequence[Run]) -> Order:
    everybody, *without = (run.name for run in runs)
    return Order(everybody, dict(zip(units, without, strict=True)))


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Train an adapter without each contributor.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--adapter", required=True, help="reference of an adapters artifact")
    parser.add_argument("--dataset", required=True, help="reference of a datasets artifact")
    parser.add_argument("--base", required=True, help="reference of a base artifact")
    parser.add_argument("--orders", type=int, default=2, help="training orders")
    parser.add_argument("--questions", type=int, default=24, help="that replication is read off")
    parser.add_argument("--rate", default="1/20", help="the fraction of answers that is audited")
    parser.add_argument("--groups", type=int, default=GROUPS_MAX, help="left out together, at most")
    parser.add_argument("--processes", type=int, default=cores())
    arguments = parser.parse_args()
    share_cores()
    home = Home(arguments.home)
    store = ArtifactStore(home.artifacts)
    rate = parse_rate(arguments.rate)
    read_plan(home.audit_plan)  # a damaged one is refused before hours of training, not after
    with json_lines() as lines:
        scale = Scale(arguments.orders, arguments.questions, arguments.processes, arguments.groups)
        trained = Trained(
            adapter=store.open("adapters", arguments.adapter),
            dataset=store.open("datasets", arguments.dataset),
            base=store.open("base", arguments.base),
        )
        made, found = retrain(home, trained, scale, lines.progress)
        enter(home.audit_plan, arguments.adapter, made, rate)
        lines.result({
            "adapter": arguments.adapter,
            "contributors": len(group_of(made.groups) if made.groups else made.orders[0].without),
            "groups": len(made.groups) if made.groups else None,
            "runs": sum(len(order.runs) for order in made.orders),
            "reliability_ppb": made.reliability_ppb,
            "orders_distance": None if found is None else round(found.distance, 4),
        })  # fmt: skip


if __name__ == "__main__":
    main()
