"""Trains all runs of a study that are not trained yet, over several processes.

    python -m serving.counterfactuals --home HOME --base REFERENCE --study FILE

Runs are deterministic and lie in HOME/counterfactuals; killed and started again, the program goes
on with the first run that is missing. On a CPU each process trains one run in one thread: matrix
products are as fast at one run's size as at several's, and what lies between them gains little by
a second thread.
"""

import argparse
from pathlib import Path

from byline.artifacts import ArtifactStore
from byline.home import Home
from serving.counterfactuals.pool import train_missing
from serving.progress import json_lines
from serving.recipes import cores, share_cores


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Train a study's counterfactual adapters.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--base", required=True, help="reference of a base artifact")
    parser.add_argument("--study", type=Path, required=True, help="the study's JSON file")
    parser.add_argument("--processes", type=int, default=cores())
    parser.add_argument("--together", type=int, default=1, help="runs trained in one pass")
    arguments = parser.parse_args()
    share_cores()
    home = Home(arguments.home)
    with json_lines() as lines:
        base = ArtifactStore(home.artifacts).open("base", arguments.base)
        shape = (arguments.processes, arguments.together)
        trained = train_missing(base, arguments.study, home.counterfactuals, shape, lines.progress)
        lines.result({"trained": trained})


if __name__ == "__main__":
    main()
