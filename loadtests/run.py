"""One load test of a running `byline up`: `python -m loadtests.run --seconds 60 --users 8`.

Runs Locust headless, waits (within a bound) until each answer's attribution is settled, has the
books checked, and prints one JSON object as its last line. The exit status is 0 where everything
was answered and the books balance, 1 where not, 2 where the test itself could not be run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byline.command.asking import get_json
from byline.errors import BylineError, NotFound
from byline.home import Home
from loadtests.report import figures, is_good

ROOT = Path(__file__).parents[1]
STOP_SECONDS = 120  # for answers under way when the time is up
BOOKS_SECONDS_MAX = 300.0
WAIT_SECONDS = 20.0  # of one question for an attribution


class LoadTestFailed(Exception):
    """The test could not be run; says what to do."""


@dataclass(frozen=True, slots=True)
class Installation:
    """A running installation: its home, its address and the application's key."""

    home: Home
    url: str
    application_key: str

    @classmethod
    def running(cls, root: Path) -> "Installation":
        """The one that runs in this home. Raises LoadTestFailed."""
        home = Home(root)
        try:
            url = json.loads(home.run.read_text())["gateway_url"]
            return cls(home, url, json.loads(home.keys.read_text())["application"])
        except (OSError, ValueError, KeyError) as problem:
            raise LoadTestFailed(
                f"nothing runs in {root} ({problem}): start it with `byline up --home {root}`"
            ) from problem


def run_locust(
    installation: Installation, *, users: int, seconds: int, folder: Path
) -> list[dict[str, Any]]:
    """Locust's statistics of one headless run. Raises LoadTestFailed if it left none."""
    argv = [sys.executable, "-m", "locust", "--headless", "--only-summary"]
    argv += ["--locustfile", str(Path(__file__).with_name("locustfile.py"))]
    argv += ["--host", installation.url, "--users", str(users), "--spawn-rate", str(users)]
    argv += ["--run-time", f"{seconds}s", "--stop-timeout", str(STOP_SECONDS)]
    argv += ["--json-file", str(folder / "stats"), "--exit-code-on-error", "0"]
    env = {
        **os.environ,
        "BYLINE_URL": installation.url,
        "BYLINE_KEYS": str(installation.home.keys),
        "BYLINE_INFERENCES": str(folder / "inferences"),
    }
    done = subprocess.run(
        argv, env=env, stdout=sys.stderr, timeout=seconds + STOP_SECONDS + 60, check=False
    )
    try:
        stats: list[dict[str, Any]] = json.loads((folder / "stats.json").read_text())
    except (OSError, ValueError) as problem:
        raise LoadTestFailed(
            f"locust ended with status {done.returncode} and left no statistics: {problem}"
        ) from problem
    return stats


def settled_states(
    installation: Installation, inferences: Iterable[str], *, seconds_max: float
) -> Iterator[str]:
    """The state of each inference, waiting for those that are pending, together so long."""
    deadline = time.monotonic() + seconds_max
    for inference in inferences:
        yield _state(installation, inference, deadline)


def _state(installation: Installation, inference: str, deadline: float) -> str:
    address = f"{installation.url}/v1/attributions/{inference}"
    while True:
        wait = min(WAIT_SECONDS, max(0.0, deadline - time.monotonic()))
        try:
            found = get_json(f"{address}?wait={wait:.0f}", installation.application_key)
        except NotFound:
            return "absent"
        if found["state"] != "pending" or time.monotonic() >= deadline:
            return str(found["state"])


def check_books(home: Path) -> dict[str, Any]:
    """What `byline ledger check --json` says. Raises LoadTestFailed if it says nothing."""
    argv = [sys.executable, "-m", "byline.command", "ledger", "check", "--json"]
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    done = subprocess.run(
        [*argv, "--home", str(home)],
        env=env,
        capture_output=True,
        text=True,
        timeout=BOOKS_SECONDS_MAX,
        check=False,
    )
    return last_json(done.stdout, "`byline ledger check`", done.stderr)


def last_json(text: str, who: str, said: str = "") -> dict[str, Any]:
    """The JSON object in the last line of a program's output. Raises LoadTestFailed."""
    lines = text.strip().splitlines()
    try:
        found = json.loads(lines[-1])
    except (IndexError, ValueError) as problem:
        raise LoadTestFailed(f"{who} printed no JSON: {said.strip()[-500:]}") from problem
    if not isinstance(found, dict):
        raise LoadTestFailed(f"{who} printed {type(found).__name__}, no object")
    return found


def load_test(root: Path, *, users: int, seconds: int, settle_seconds: float) -> Mapping[str, Any]:
    """The whole test; answers its figures."""
    installation = Installation.running(root)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stats = run_locust(installation, users=users, seconds=seconds, folder=folder)
        file = folder / "inferences"
        inferences = file.read_text().split() if file.is_file() else []
    began = time.monotonic()
    states = list(settled_states(installation, inferences, seconds_max=settle_seconds))
    settled = time.monotonic() - began
    books = check_books(root)
    return figures(stats, users=users, books=books, states=states, settle_seconds=settled)


def main() -> int:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description="One load test of a running `byline up`.")
    parser.add_argument("--home", type=Path, default=Path(".byline"))
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--settle-seconds", type=float, default=600.0)
    chosen = parser.parse_args()
    try:
        report = load_test(
            chosen.home,
            users=chosen.users,
            seconds=chosen.seconds,
            settle_seconds=chosen.settle_seconds,
        )
    except (LoadTestFailed, BylineError, subprocess.TimeoutExpired) as problem:
        sys.stderr.write(f"load test: {problem}\n")
        return 2
    sys.stdout.write(json.dumps(report) + "\n")
    return 0 if is_good(report) else 1


if __name__ == "__main__":
    raise SystemExit(main())
