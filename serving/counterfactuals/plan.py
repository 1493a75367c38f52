"""The runs that a study needs: each is one line that decides the bytes of one adapter.

The order of the plan is that of use: the full run first, then the leave-one-out runs, which pay
needs, then the coalitions, which only measure, then the same under further orders, coalitions last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from byline.canonical import Json, canonical_text, digest
from byline.fidelity.study import Study
from serving.recipes import LoraShape, RunSettings, library_versions

CODE = 1  # raise when the code's result changes and nothing in a plan's line says so
HALF_WEIGHT = 0.5  # of the runs that measure how smooth training is


@dataclass(frozen=True, slots=True)
class Run:
    """One training run: what it is for, and the line that decides its result.

    `weights` holds the loss weight of each contributor, by place.
    """

    purpose: str
    weights: tuple[float, ...]
    order: int
    line: Mapping[str, Json]

    @property
    def name(self) -> str:
        """The run's folder: 16 digits of its line's hash."""
        return digest(self.line)[:16]

    def text(self) -> str:
        """The line as canonical JSON."""
        return canonical_text(self.line)


def full(contributors: int) -> tuple[float, ...]:
    """Everybody's rows at their full weight."""
    return (1.0,) * contributors


def without(contributors: int, place: int, weight: float = 0.0) -> tuple[float, ...]:
    """Everybody's but one's, whose rows weigh `weight`."""
    return tuple(weight if other == place else 1.0 for other in range(contributors))


def coalition(contributors: int, members: Sequence[int]) -> tuple[float, ...]:
    """The members' rows alone."""
    return tuple(float(place in members) for place in range(contributors))


class Planner:
    """Makes runs of one study on one base model with one recipe."""

    def __init__(
        self,
        study: Study,
        base: str,
        run: RunSettings | None = None,
        shape: LoraShape | None = None,
    ) -> None:
        self.study = study
        self.settings = run or RunSettings()
        self.shape = shape or LoraShape()
        rows: list[Json] = [[row.contributor, row.prompt, row.completion] for row in study.rows]
        self._always: dict[str, Json] = {
            "code": CODE,
            "base": base,
            "rows": digest(rows),
            "lora": asdict(self.shape),
            "run": asdict(self.settings),
            "libraries": dict(library_versions()),
        }

    def run(self, purpose: str, weights: tuple[float, ...], order: int) -> Run:
        """One run; the purpose is no part of its line, so equal runs are trained once."""
        line = {**self._always, "order": order, "weights": list(weights)}
        return Run(purpose, weights, order, line)

    def plan(self) -> list[Run]:
        """All runs of the study in the order of use, none twice."""
        count = len(self.study.contributors)
        first = self.study.orders[0]
        runs = [self.full(first), *self.leave_one_out(first), *self.coalitions()]
        runs += self.halved().values()
        for order in self.study.orders[1:]:
            runs += [self.full(order), *self.leave_one_out(order)]
        for order in self.study.orders[1:]:
            runs += self.coalitions(order)
        assert all(len(run.weights) == count for run in runs)
        return list({run.name: run for run in runs}.values())

    def full(self, order: int) -> Run:
        """The run with everybody."""
        return self.run("full", full(len(self.study.contributors)), order)

    def leave_one_out(self, order: int) -> list[Run]:
        """A run without each contributor, by place."""
        count = len(self.study.contributors)
        return [self.run(f"without {c}", without(count, c), order) for c in range(count)]

    def leave_groups_out(self, order: int, groups: Sequence[Sequence[int]]) -> list[Run]:
        """A run without each group of contributors, which are given by place."""
        everybody = range(len(self.study.contributors))
        return [
            self.run(f"without group {n}", tuple(float(c not in group) for c in everybody), order)
            for n, group in enumerate(groups)
        ]

    def coalitions(self, order: int | None = None) -> list[Run]:
        """The study's random halves, under its first order or the one given."""
        count = len(self.study.contributors)
        chosen = self.study.orders[0] if order is None else order
        return [
            self.run(f"coalition {number}", coalition(count, members), chosen)
            for number, members in enumerate(self.study.coalitions)
        ]

    def halved(self) -> dict[int, Run]:
        """Two contributors at half their weight, by place: are an effect's two halves alike?"""
        count, first = len(self.study.contributors), self.study.orders[0]
        return {
            place: self.run(f"half {place}", without(count, place, HALF_WEIGHT), first)
            for place in (0, count // 2)
        }
