"""`byline fidelity`: how true attributions are on a dataset, measured by retraining.

Four steps, each resumable: the design (`byline.fidelity.study`), the counterfactual runs and what
is read off them (programs of `serving`, started here), and the figures. All files of a measurement
lie in HOME/fidelity/<study>; the runs lie in HOME/counterfactuals and serve every measurement.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from byline.artifacts import ArtifactStore
from byline.canonical import Json
from byline.command.options import DEFAULT_HOME, DEFAULT_MODEL, HomeOption, JsonOption, ModelOption
from byline.command.preparing import Preparation, run_program
from byline.command.progress import Display
from byline.datasets import DATASETS, build_dataset, read_dataset
from byline.datasets.copies import without_copies
from byline.errors import InvalidInput
from byline.fidelity.study import PROFILES, Profile, Study, design, read_rows
from byline.home import Home
from byline.records import Example

if TYPE_CHECKING:
    from byline.fidelity.readings import Readings

DESIGN_SEED = 1  # of questions, coalitions and orders
_Files = tuple[Path, Path | None, Path | None]  # readings; by row and of groups, where measured


def fidelity(
    dataset: Annotated[
        Path,
        typer.Argument(help="Rows in our format, one JSON object a line; or a dataset of ours."),
    ],
    profile: Annotated[
        str,
        typer.Option(
            help="quick (an hour on two cores); thorough (all figures at that size, two hours and "
            "a half, going on from quick); full (made for a GPU)."
        ),
    ] = "quick",
    methods: Annotated[
        str, typer.Option(help="Only these methods, between commas; without it, all.")
    ] = "",
    processes: Annotated[
        int | None, typer.Option(help="Runs at a time; one a core without it.", min=1)
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    model: ModelOption = DEFAULT_MODEL,
    as_json: JsonOption = False,
) -> None:
    """Measure how true attributions are on a dataset, by retraining without its contributors."""
    if profile not in PROFILES:
        known = ", ".join(PROFILES)
        raise InvalidInput(f"no profile '{profile}'; there are {known}", param="profile")
    wanted = _wanted(methods)
    home.mkdir(parents=True, exist_ok=True)
    rows = without_copies(rows_of(dataset, Home(home)))
    study = design(dataset.stem, rows, PROFILES[profile], DESIGN_SEED)
    folder = Home(home).fidelity / study.reference
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(study.text())
    began = time.monotonic()
    measurement = _Measurement(Home(home), folder, model, processes, Display())
    files = measurement.files(PROFILES[profile])
    facts: dict[str, Json] = {
        "dataset": study.reference,
        "profile": profile,
        "rows": len(study.rows),
        "contributors": len(study.contributors),
        "seconds": round(time.monotonic() - began, 1),
    }
    page, result = _report(study, files, facts, wanted)
    if not as_json:
        print(page)
    print(json.dumps(result))


def rows_of(dataset: Path, home: Home) -> Sequence[Example]:
    """The file's rows; where there is no such file, all rows of our dataset of that name."""
    if str(dataset) not in DATASETS or dataset.exists():
        return read_rows(dataset)
    store = ArtifactStore(home.artifacts)
    return read_dataset(build_dataset(store, str(dataset), everything=True)).examples


def _wanted(methods: str) -> list[str]:
    from byline.fidelity.methods import COSTS

    wanted = [name.strip() for name in methods.split(",") if name.strip()]
    for name in wanted:
        if name not in COSTS:
            raise InvalidInput(f"no method '{name}'; there are {', '.join(COSTS)}", param="methods")
    return wanted


@dataclass(frozen=True)
class _Measurement:
    """Where one measurement's files are, and how its programs are run."""

    home: Home
    folder: Path
    model: str
    processes: int | None
    display: Display

    @cached_property
    def base(self) -> str:
        """The base model's reference; it is fetched where it is not there."""
        preparation = Preparation(self.home, self.display, model=self.model, everything=False)
        return preparation.base().reference

    def files(self, profile: Profile) -> _Files:
        """All of a profile, measured where it was not."""
        return self.readings(), self.rows(profile), self.groups(profile)

    def readings(self) -> Path:
        """Train and read whatever is missing; answers the readings' file."""
        target = self.folder / "readings.npz"
        if not target.is_file():
            self._run("serving.counterfactuals", "counterfactual runs", self._side_by_side())
            self._run("serving.fidelity", "readings", ["--readings", str(target)])
        return target

    def rows(self, profile: Profile) -> Path | None:
        """The same for what is measured row by row; None where the profile has nothing of it."""
        if not profile.row_halves:
            return None
        sizes = ["--halves", str(profile.row_halves), "--removals", str(profile.removals)]
        return self._more("rows.npz", "serving.fidelity.by_row", "runs and readings by row", sizes)

    def groups(self, profile: Profile) -> Path | None:
        """The same for tangents of groups."""
        if not profile.groups:
            return None
        sizes = ["--groups", str(profile.groups)]
        return self._more("groups.npz", "serving.fidelity.grouped", "tangents of groups", sizes)

    def _more(self, name: str, program: str, title: str, sizes: list[str]) -> Path:
        target = self.folder / name
        if not target.is_file():
            arguments = ["--readings", str(target), *sizes, *self._side_by_side()]
            self._run(program, title, arguments)
        return target

    def _side_by_side(self) -> list[str]:
        return ["--processes", str(self.processes)] if self.processes else []

    def _run(self, program: str, title: str, more: list[str]) -> None:
        study = self.folder / "study.json"
        arguments = ["--base", self.base, "--study", str(study), *more]
        with self.display.step(program.rpartition(".")[2], title) as step:
            run_program(self.home, program, arguments, step)


def _report(
    study: Study,
    files: _Files,
    facts: dict[str, Json],
    wanted: Sequence[str],
) -> tuple[str, dict[str, Json]]:
    """Write report.md, picture.svg and fidelity.json beside the readings; answers page and JSON."""
    from byline.fidelity.evaluation import choose, judge, training_figures
    from byline.fidelity.example_level import (
        figures_json,
        figures_page,
        read_row_readings,
        row_figures,
    )
    from byline.fidelity.frontier import frontier
    from byline.fidelity.methods import all_variants
    from byline.fidelity.repeated import repeated, repeated_json, repeated_page
    from byline.fidelity.report import as_json, markdown, picture

    path, by_row, groups = files
    readings = _read(path, groups)
    texts = [answer["text"] for answer in json.loads(path.with_suffix(".json").read_text())]
    variants = all_variants(study, readings, texts)
    chosen = choose(study, readings, variants, wanted)
    judgements = {
        kind: judge(study, readings, variants, chosen, served=kind == "served")
        for kind in ("served", "references")
        if kind == "served" or not readings.is_served.all()
    }
    known = {**facts, "coalitions_trained": len(readings.coalitions), **training_figures(readings)}
    points = frontier(study, readings)
    page = markdown(study.name, known, judgements, points)
    more = {
        kind: repeated(study, readings, served=kind == "served")
        for kind in judgements
        if len(study.orders) > 1
    }
    page += repeated_page(more)
    result: dict[str, Json] = {**known, **as_json(judgements, points), "folder": str(path.parent)}
    result |= repeated_json(more) if more else {}
    if by_row is not None:
        figures = row_figures(study, read_row_readings(by_row))
        page += figures_page(figures)
        result |= figures_json(figures)
    (path.parent / "report.md").write_text(page)
    (path.parent / "picture.svg").write_text(picture(study.name, judgements))
    (path.parent / "fidelity.json").write_text(json.dumps(result, indent=1) + "\n")
    return page, result


def _read(path: Path, groups: Path | None) -> "Readings":
    """The readings, with the groups' scores among the scores."""
    from byline.fidelity.readings import read_readings, read_scores

    readings = read_readings(path)
    more = {} if groups is None else read_scores(groups)
    return replace(readings, scores={**readings.scores, **more})
