"""Trains the adapters of attack worlds and reads off what each answers, and by whose rows.

    python -m serving.attacks --home HOME --base REFERENCE --study FILE --trainings FILE
        --readings FOLDER

The file of trainings names each and the ids of its rows. Every row of the study is a player of its
own, so a training is one counterfactual run with weight 1 for its rows. What is trained or read
already stays, so a program that was killed goes on where it was.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from byline.artifacts import Artifact, ArtifactStore
from byline.attacks.reading_files import reading_path, write_reading
from byline.fidelity.study import read_study
from byline.home import Home
from serving.counterfactuals.plan import Planner, Run, coalition
from serving.counterfactuals.pool import train_missing
from serving.progress import Report, json_lines
from serving.recipes import cores, share_cores


def run_of(planner: Planner, rows: Sequence[str]) -> Run:
    """The run that trains these rows of the study alone."""
    players = planner.study.contributors
    members = [players.index(row) for row in rows]
    return planner.run("an attack's", coalition(len(players), members), planner.study.orders[0])


def train_and_read(
    base: Artifact, study: Path, trainings: Mapping[str, Sequence[str]], home: Home,
    readings: Path, processes: int, report: Report,
) -> int:  # fmt: skip
    """Train and read what is missing; answers how many trainings were read now."""
    from serving.attacks.reading import WorldReader

    planner = Planner(read_study(study), base.sha256)
    runs = {name: run_of(planner, rows) for name, rows in trainings.items()}
    shape = (processes, 1)
    train_missing(base, study, home.counterfactuals, shape, report, list(runs.values()))
    missing = [name for name in trainings if not reading_path(readings, name).is_file()]
    if not missing:
        return 0
    reader = WorldReader(base, planner, home.counterfactuals)
    for number, name in enumerate(missing):

        def read(_what: str, done: int, total: int, before: int = number) -> None:
            report("readings", before * 1_000 + done * 1_000 // total, len(missing) * 1_000)

        reading = reader.read(runs[name], trainings[name], read)
        write_reading(reading_path(readings, name), reading)
    return len(missing)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Train and read the adapters of attack worlds.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--base", required=True, help="reference of a base artifact")
    parser.add_argument("--study", type=Path, required=True, help="the study's JSON file")
    parser.add_argument("--trainings", type=Path, required=True, help="name -> ids of rows, JSON")
    parser.add_argument("--readings", type=Path, required=True, help="the folder to write to")
    parser.add_argument("--processes", type=int, default=cores())
    arguments = parser.parse_args()
    share_cores()
    from serving.fine_tuning import be_deterministic

    be_deterministic(arguments.processes)
    home = Home(arguments.home)
    with json_lines() as lines:
        base = ArtifactStore(home.artifacts).open("base", arguments.base)
        trainings = json.loads(arguments.trainings.read_text())
        read = train_and_read(
            base, arguments.study, trainings, home,
            arguments.readings, arguments.processes, lines.progress,
        )  # fmt: skip
        lines.result({"read": read})


if __name__ == "__main__":
    main()
