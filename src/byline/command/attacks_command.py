"""`byline attacks`: what cheating earns on a dataset, measured by training what cheats leave.

Three steps, each resumable: the worlds (`byline.attacks.worlds`), their trainings and what is read
off them (`serving.attacks`, started here), and the figures. All files lie in HOME/attacks/<study>.
`--quick` takes some of the same worlds, so a whole measurement goes on from it.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from byline.attacks.worlds import Arena, World, design_arena
from byline.canonical import Json
from byline.command.fidelity_command import DESIGN_SEED, rows_of
from byline.command.options import DEFAULT_HOME, DEFAULT_MODEL, HomeOption, ModelOption
from byline.command.preparing import Preparation, run_program
from byline.command.progress import Display
from byline.home import Home


def attacks(
    dataset: Annotated[
        Path,
        typer.Argument(help="Rows in our format, one JSON object a line; or a dataset of ours."),
    ],
    quick: Annotated[
        bool, typer.Option("--quick", help="Near-copies, and what needs no training more.")
    ] = False,
    processes: Annotated[
        int | None, typer.Option(help="Runs at a time; one a core without it.", min=1)
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    model: ModelOption = DEFAULT_MODEL,
) -> None:
    """Measure what attacks on a dataset earn: copies, split accounts, junk and others."""
    home.mkdir(parents=True, exist_ok=True)
    arena = design_arena(dataset.stem, rows_of(dataset, Home(home)), DESIGN_SEED)
    worlds = arena.taken(quick=quick)
    folder = Home(home).attacks / arena.study.reference
    began = time.monotonic()
    _measure(Home(home), folder, arena, worlds, (model, processes))
    result = _report(folder, arena, worlds, quick=quick)
    result["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(result))


def _measure(
    home: Home,
    folder: Path,
    arena: Arena,
    worlds: Sequence[World],
    how: tuple[str, int | None],
) -> None:
    """Train and read whatever is missing; says first how much that is."""
    from byline.attacks.reading_files import reading_path

    model, processes = how
    readings = folder / "readings"
    readings.mkdir(parents=True, exist_ok=True)
    trainings = {world.training: list(world.trained) for world in worlds}
    missing = sum(not reading_path(readings, name).is_file() for name in trainings)
    print(
        f"{len(worlds)} worlds, {len(trainings)} different trainings, {missing} to do: train "
        f"{len(arena.worlds[0].trained)} rows or some more, then {len(arena.study.questions)} "
        "answers each",
        file=sys.stderr,
    )
    if not missing:
        return
    (folder / "study.json").write_text(arena.study.text())
    wanted = folder / "trainings.json"
    wanted.write_text(json.dumps(trainings))
    display = Display()
    base = Preparation(home, display, model=model, everything=False).base()
    arguments = ["--base", base.reference, "--study", str(folder / "study.json")]
    arguments += ["--trainings", str(wanted), "--readings", str(readings)]
    arguments += ["--processes", str(processes)] if processes else []
    with display.step("attacks", "attack worlds") as step:
        run_program(home, "serving.attacks", arguments, step)


def _report(folder: Path, arena: Arena, worlds: Sequence[World], *, quick: bool) -> dict[str, Json]:
    """Write attacks.json beside the readings, and answer it."""
    from byline.attacks.pay import as_json, outcomes
    from byline.attacks.reading_files import read_reading, reading_path

    readings = {
        world.training: read_reading(reading_path(folder / "readings", world.training))
        for world in worlds
    }
    found = outcomes(arena, worlds, readings)
    result: dict[str, Json] = {
        "dataset": arena.study.reference,
        "quick": quick,
        "rows": len(arena.worlds[0].trained),
        "answers": len(arena.study.questions),
        "trainings": len(readings),
        "owner": arena.owner,
        "attacker": arena.attacker,
        "attacks": as_json(found),
        "passed": all(each.passed is not False for each in found),
        "folder": str(folder),
    }
    (folder / "attacks.json").write_text(json.dumps(result, indent=1) + "\n")
    return result
