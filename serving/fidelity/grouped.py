"""What tangents of groups keep of fidelity, where a run for each contributor would be too many.

    python -m serving.fidelity.grouped --home HOME --base REFERENCE --study FILE --readings FILE
                                       [--groups 4]

Two kinds of groups: of contributors, as `serving.counterfactuals.grouping` makes them, and of rows
without regard to whose they are (so that no split of an account changes any run), as many as there
are contributors. A group's tangent is divided inside by row scores. The study must have been read:
its readings.npz lies beside FILE.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from byline.artifacts import Artifact, ArtifactStore
from byline.attribution import divided_in_groups
from byline.errors import StartFailed
from byline.fidelity.example_level import by_rows
from byline.fidelity.measures import Array
from byline.fidelity.readings import FRONTIER, read_readings, write_scores
from byline.fidelity.study import read_study
from byline.home import Home
from serving.counterfactuals.grouping import NUMBERS, clusters
from serving.counterfactuals.plan import Planner, Run
from serving.counterfactuals.pool import train_missing
from serving.counterfactuals.runs import RunStore
from serving.counterfactuals.vectors import scores
from serving.fidelity.asking import gradients
from serving.fidelity.frontier import projected
from serving.fidelity.reading import Reader
from serving.progress import Report, json_lines
from serving.recipes import cores, share_cores

NUMBER_BYTES = 4


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which rows are left out together: a group's rows, by place."""

    name: str
    groups: Sequence[Sequence[int]]

    def __str__(self) -> str:
        return f"tangents of {len(self.groups)} groups of {self.name}"


class GroupReader(Reader):
    """Reads, beside a study's answers, the tangents of groups of its rows."""

    def __init__(self, base: Artifact, planner: Planner, store: RunStore, report: Report) -> None:
        super().__init__(base, planner, store, report)
        self.of_rows = gradients(self._model, self._rows, lambda _: None)
        self._of_answers = gradients(self._model, self._completions, lambda _: None)

    def groupings(self, groups: int) -> Iterator[Grouping]:
        """Both kinds; those of contributors are `groups` at most."""
        study = self._planner.study
        owners = np.array(study.contributor_of)
        short = projected(NUMBERS, self.of_rows)[0].numpy()
        count = len(study.contributors)
        sums = np.zeros((count, NUMBERS), dtype=np.float32)
        np.add.at(sums, owners, short)
        yield Grouping("contributors", _members(np.array(clusters(sums, groups))[owners]))
        yield Grouping("rows", _members(np.array(clusters(short, count))))

    def scores_of(self, runs: Sequence[Run], groups: Sequence[Sequence[int]], rows: Array) -> Array:
        """Contributors' scores [A, C] of the groups that each run lacks; `rows` are row scores."""
        full = self._store.weights(self._planner.full(self._first), self._model)
        tangents = torch.stack([full - self._store.weights(run, self._model) for run in runs])
        return among_contributors(
            scores(self._of_answers, tangents).numpy(),
            rows,
            groups,
            self._planner.study.contributor_of,
        )


def among_contributors(
    of_groups: Array, of_rows: Array, groups: Sequence[Sequence[int]], owners: Sequence[int]
) -> Array:
    """Groups' scores [A, G] as contributors' [A, C], divided among rows by their scores [A, n]."""
    group_of = {str(row): str(number) for number, rows in enumerate(groups) for row in rows}
    found = np.zeros((len(of_groups), max(owners) + 1))
    for line, whole, by_row in zip(found, of_groups.tolist(), of_rows.tolist(), strict=True):
        named = {str(number): score for number, score in enumerate(whole)}
        rows = [(str(row), score) for row, score in enumerate(by_row)]
        totals, _ = divided_in_groups(named, rows, group_of)
        for row, score in totals.items():
            line[owners[int(row)]] += score
    return found


def _members(places: Array) -> list[list[int]]:
    return [np.flatnonzero(places == place).tolist() for place in np.unique(places)]


def measure(
    base: Artifact, study_path: Path, home: Home, scale: tuple[int, int], report: Report
) -> dict[str, Array]:
    """Train and read off what is missing: "FRONTIER/name/bytes a contributor" -> scores [A, C].

    `scale` is how many groups of contributors there are, and how many processes train.
    """
    study = read_study(study_path)
    by_row = read_readings(study_path.with_name("readings.npz")).by_row
    if by_row is None:
        raise StartFailed("the readings know no rows: delete readings.npz and measure again")
    alone = by_rows(study, 0, 0)
    path = study_path.with_name("rows-alone.json")
    path.write_text(alone.text())
    planner, store = Planner(alone, base.sha256), RunStore(home.counterfactuals)
    reader = GroupReader(base, Planner(study, base.sha256), store, report)
    found = {}
    for grouping in reader.groupings(scale[0]):
        runs = planner.leave_groups_out(study.orders[0], grouping.groups)
        train_missing(base, path, home.counterfactuals, (scale[1], 1), report, runs)
        size = NUMBER_BYTES * reader.of_rows.shape[1] * len(runs) // len(study.contributors)
        name = f"{FRONTIER}/{grouping}/{size}"
        found[name] = reader.scores_of(runs, grouping.groups, by_row)
    return found


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Train and read off tangents of groups.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--base", required=True, help="reference of a base artifact")
    parser.add_argument("--study", type=Path, required=True, help="the study's JSON file")
    parser.add_argument("--readings", type=Path, required=True, help="the file to write")
    parser.add_argument("--groups", type=int, default=4, help="groups of contributors, at most")
    parser.add_argument("--processes", type=int, default=cores())
    arguments = parser.parse_args()
    share_cores()
    from serving.fine_tuning import be_deterministic

    be_deterministic(cores())
    home = Home(arguments.home)
    began = time.monotonic()
    with json_lines() as lines:
        base = ArtifactStore(home.artifacts).open("base", arguments.base)
        scale = (arguments.groups, arguments.processes)
        write_scores(
            arguments.readings, measure(base, arguments.study, home, scale, lines.progress)
        )
        lines.result({"seconds": round(time.monotonic() - began, 1)})


if __name__ == "__main__":
    main()
