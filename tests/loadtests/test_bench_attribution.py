"""The bench of attributions ends with a worker's own words when one dies, and lets others go."""

import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.bench_attribution import Workers

DIES = "import sys; print('no index of that adapter', flush=True); sys.exit(3)"
WAITS = "import sys; sys.stdin.read()"


def a_worker(log: Path, program: str) -> "subprocess.Popen[str]":
    with log.open("w") as out:
        argv = [sys.executable, "-c", program]
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=out, stderr=out, text=True)


def test_a_dead_worker_ends_the_bench_with_what_it_said(tmp_path: Path) -> None:
    # Leaving a worker's block closes its input, and so ends it.
    with a_worker(tmp_path / "alive", WAITS) as alive, a_worker(tmp_path / "dead", DIES) as dead:
        workers = Workers({tmp_path / "alive": alive, tmp_path / "dead": dead})
        dead.wait()
        with pytest.raises(SystemExit, match=r"died \(3\): no index of that adapter"):
            workers.require_all()


def test_workers_that_live_are_no_reason_to_end(tmp_path: Path) -> None:
    with a_worker(tmp_path / "alive", WAITS) as alive:
        Workers({tmp_path / "alive": alive}).require_all()
