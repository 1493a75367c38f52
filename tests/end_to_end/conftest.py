"""One whole Byline for the session: real artifacts, engine, ledger, gateway and worker."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from byline.ledger.ledger import Ledger
from byline.records import Books
from tests.ports import free_ports

PORTS = 8  # the gateway's, and its programs' behind it
HOME = Path(os.environ.get("BYLINE_TEST_HOME", ".byline"))
UP_SECONDS = 1_500.0
TREE_SECONDS = 90.0  # a graceful end of four programs, one after the other


@dataclass
class Running:
    """A running `byline up` and what is needed to talk to it."""

    home: Path
    url: str
    redis_url: str
    worker_url: str
    archive_metrics_url: str
    bookkeeper_url: str
    notary_url: str
    engine_url: str
    keys: dict[str, Any]
    pids: dict[str, int]
    report: dict[str, Any]

    def books(self) -> Books:
        """The check of the books, made afresh."""

        async def check() -> Books:
            ledger = await Ledger.open(self.redis_url)
            try:
                return await ledger.check()
            finally:
                await ledger.close()

        return asyncio.run(check())


def assert_nothing_outlives_a_kill(up: subprocess.Popen[str]) -> None:
    """kill -9 `byline up`, and see its whole tree go: guardian, programs, the engine's children."""
    tree = psutil.Process(up.pid).children(recursive=True) if up.poll() is None else []
    up.kill()
    up.wait()
    if up.stdout is not None:
        up.stdout.close()
    _, alive = psutil.wait_procs(tree, timeout=TREE_SECONDS)
    assert not alive, alive


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`byline up` with the artifacts of the default home (built if missing) and a fresh ledger."""
    home = tmp_path_factory.mktemp("home")
    HOME.mkdir(exist_ok=True)
    (HOME / "artifacts").mkdir(exist_ok=True)
    (home / "artifacts").symlink_to((HOME / "artifacts").resolve())
    command = [sys.executable, "-m", "byline.command", "up", "--json", "--home", str(home),
               "--port", str(free_ports(PORTS))]  # fmt: skip
    with (home / "up.log").open("wb") as log:
        up = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        watchdog = threading.Timer(UP_SECONDS, up.kill)
        watchdog.start()
        try:
            assert up.stdout is not None
            line = up.stdout.readline()
            assert line, f"byline up failed:\n{(home / 'up.log').read_text()[-4_000:]}"
            run = json.loads((home / "run.json").read_text())
            yield Running(
                home=home,
                url=run["gateway_url"],
                redis_url=run["redis_url"],
                worker_url=run["worker_url"],
                archive_metrics_url=run["archive_metrics_url"],
                bookkeeper_url=run["bookkeeper_url"],
                notary_url=run["notary_url"],
                engine_url=run["engine_url"],
                keys=json.loads((home / "keys.json").read_text()),
                pids=run["pids"],
                report=json.loads(line),
            )
        finally:
            watchdog.cancel()
            assert_nothing_outlives_a_kill(up)
