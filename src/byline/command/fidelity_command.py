"""`byline fidelity`: how true attributions are on a dataset, measured by retraining.

Four steps, each resumable: the design (`byline.fidelity.study`), the counterfactual runs and what
is read off them (programs of `serving`, started here), and the figures. All files of a measurement
lie in HOME/fidelity/<study>; the runs lie in HOME/counterfactuals and serve every measurement.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

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

DESIGN_SEED = 1  # of questions, coalitions and orders


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
    readings = _measure(Home(home), folder, model, processes)
    by_row = _measure_rows(Home(home), folder, model, processes, PROFILES[profile])
    facts: dict[str, Json] = {
        "dataset": study.reference,
        "profile": profile,
        "rows": len(study.rows),
        "contributors": len(study.contributors),
        "seconds": round(time.monotonic() - began, 1),
    }
    page, result = _report(study, readings, facts, wanted, by_row)
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


def _measure(home: Home, folder: Path, model: str, processes: int | None) -> Path:
    """Train and read whatever is missing; answers the readings' file."""
    readings = folder / "readings.npz"
    if readings.is_file():
        return readings
    display = Display()
    base = Preparation(home, display, model=model, everything=False).base()
    arguments = ["--base", base.reference, "--study", str(folder / "study.json")]
    side_by_side = ["--processes", str(processes)] if processes else []
    with display.step("training", "counterfactual runs") as step:
        run_program(home, "serving.counterfactuals", [*arguments, *side_by_side], step)
    with display.step("reading", "readings") as step:
        run_program(home, "serving.fidelity", [*arguments, "--readings", str(readings)], step)
    return readings


def _measure_rows(
    home: Home, folder: Path, model: str, processes: int | None, profile: Profile
) -> Path | None:
    """The same for what is measured row by row; None where the profile has nothing of it."""
    if not profile.row_halves:
        return None
    readings = folder / "rows.npz"
    if readings.is_file():
        return readings
    display = Display()
    base = Preparation(home, display, model=model, everything=False).base()
    arguments = [
        "--base", base.reference, "--study", str(folder / "study.json"),
        "--readings", str(readings),
        "--halves", str(profile.row_halves), "--removals", str(profile.removals),
    ]  # fmt: skip
    side_by_side = ["--processes", str(processes)] if processes else []
    with display.step("rows", "runs and readings by row") as step:
        run_program(home, "serving.fidelity.by_row", [*arguments, *side_by_side], step)
    return readings


def _report(
    study: Study, path: Path, facts: dict[str, Json], wanted: Sequence[str], by_row: Path | None
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
    from byline.fidelity.readings import read_readings
    from byline.fidelity.repeated import repeated, repeated_json, repeated_page
    from byline.fidelity.report import as_json, markdown, picture

    readings = read_readings(path)
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
