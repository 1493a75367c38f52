"""The fault run: `python -m loadtests.faults --seed 1 --minutes 2`.

One seed drives operations, clock and faults. Prints one JSON object as its last line and exits 1 if
anything was lost, doubled, invented or unbalanced; the run's folder is kept then. A seed that fails
asks for the same operations and faults again.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from loadtests.faults.actors.stage import Part
from loadtests.faults.cast import prepare
from loadtests.faults.driver import Run
from loadtests.faults.record import Record

TURNS_MAX = 10**9


async def run(
    part: Part, seconds: float, *, turns_min: int = 0, turns_max: int = TURNS_MAX
) -> dict[str, Any]:
    """One run in `part.folder`: so long, but so many turns; answers its figures."""
    began = time.monotonic()
    with Record(part.folder / "record.jsonl") as record:
        running = Run(part.seed, part.folder, record, part)
        await running.go(seconds, turns_min, turns_max)
    took = time.monotonic() - began
    figures = running.figures()
    rate = round(figures["operations"] / took)
    return {**figures, "seconds": round(took, 1), "operations_per_second": rate}


def is_good(figures: dict[str, Any]) -> bool:
    """True when nothing at all was found."""
    return not figures["findings"]


def main() -> int:
    """Run, print, and say by the status whether every promise was kept."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    prepare()
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir=arguments.folder))
    seconds = arguments.seconds or arguments.minutes * 60
    figures = uvloop.run(run(Part(folder, arguments.seed), seconds, turns_max=arguments.turns))
    good = is_good(figures)
    if good:
        shutil.rmtree(folder)
    else:
        figures["folder"] = str(folder)
    print(json.dumps(figures))
    return 0 if good else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=0.0, help="instead of --minutes")
    parser.add_argument("--turns", type=int, default=TURNS_MAX, help="end after so many turns")
    parser.add_argument("--folder", type=Path, help="where the run's folder is made")
    return parser


if __name__ == "__main__":
    sys.exit(main())
