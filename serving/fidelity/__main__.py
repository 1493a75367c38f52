"""Reads off the trained runs what a fidelity measurement needs.

    python -m serving.fidelity --home HOME --base REFERENCE --study FILE --readings FILE

The full run and the leave-one-out runs must be trained; of the coalitions, those that are.
"""

import argparse
import json
import time
from pathlib import Path

from byline.artifacts import Artifact, ArtifactStore
from byline.errors import StartFailed
from byline.fidelity.study import read_study
from byline.home import Home
from serving.counterfactuals.plan import Planner
from serving.progress import Report, json_lines
from serving.recipes import cores, share_cores

COALITIONS_MIN = 6  # fewer have no ranks to speak of


def read_off(base: Artifact, study_path: Path, home: Home, target: Path, report: Report) -> None:
    """Write the readings of a study, and the answers as JSON beside them."""
    from byline.fidelity.readings import write_readings
    from serving.counterfactuals.runs import RunStore
    from serving.fidelity.reading import Reader

    planner = Planner(read_study(study_path), base.sha256)
    store = RunStore(home.counterfactuals)
    order = planner.study.orders[0]
    needed = store.missing([planner.full(order), *planner.leave_one_out(order)])
    trained = [run for run in planner.coalitions() if store.has(run)]
    if needed or len(trained) < COALITIONS_MIN:
        raise StartFailed(
            f"{len(needed)} runs without a contributor and "
            f"{len(planner.coalitions()) - len(trained)} coalitions are not trained yet"
        )
    reader = Reader(base, planner, store, report)
    readings = reader.read()
    texts = [
        {"question": int(answer.question), "is_served": answer.is_served, "text": answer.text}
        for answer in reader.answers
    ]
    target.with_suffix(".json").write_text(json.dumps(texts, indent=1) + "\n")
    write_readings(target, readings)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Read off trained runs for a measurement.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--base", required=True, help="reference of a base artifact")
    parser.add_argument("--study", type=Path, required=True, help="the study's JSON file")
    parser.add_argument("--readings", type=Path, required=True, help="the file to write")
    parser.add_argument("--threads", type=int, default=cores(), help="torch threads")
    arguments = parser.parse_args()
    share_cores()
    from serving.fine_tuning import be_deterministic

    be_deterministic(arguments.threads)
    home = Home(arguments.home)
    began = time.monotonic()
    with json_lines() as lines:
        base = ArtifactStore(home.artifacts).open("base", arguments.base)
        read_off(base, arguments.study, home, arguments.readings, lines.progress)
        lines.result({"seconds": round(time.monotonic() - began, 1)})


if __name__ == "__main__":
    main()
