"""Whichever dies, the ledger's server or the delivering process, and between whichever two steps:
each charge is posted once, or lies among the refusals."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from byline.ledger.ledger import Ledger
from byline.redis_server import RedisServer, running_redis
from tests.byline.cases import NOW_MS, a_capture, event_id, held
from tests.byline.deliveries import answered, captures_of, delivering, refusals

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def server(tmp_path: Path) -> RedisServer:
    return RedisServer(tmp_path / "data", unix_socket=tmp_path / "s.sock")


async def test_a_ledger_that_goes_away_and_comes_back_has_each_capture_once(
    server: RedisServer, folder: Path
) -> None:
    inferences: list[str] = []
    with running_redis(server):
        ledger = await Ledger.open(server.url, timeout_seconds=0.5)
        inferences += [await held(ledger) for _ in range(20)]
        first, rest = inferences[:5], inferences[5:]
        async with delivering(ledger, folder, runs=False) as delivery:
            for inference in first:
                assert await delivery.capture(a_capture(inference), time_ms=NOW_MS)
    async with delivering(ledger, folder) as delivery:
        posts = [delivery.capture(a_capture(each), time_ms=NOW_MS) for each in rest]
        assert not any(await asyncio.gather(*posts))
        assert delivery.waiting == len(rest)
        with running_redis(server):
            await answered(delivery)
            assert sorted(await captures_of(ledger)) == sorted(inferences)
            await ledger.close()


VICTIM = """
import asyncio, os, signal, sys
from pathlib import Path
from byline.delivery.delivery import Delivery
from byline.ledger.ledger import Ledger
from byline.delivery.spool import Spool
from tests.byline.cases import NOW_MS, a_capture

url, folder, last, *inferences = sys.argv[1:]

def step(name: str) -> None:
    if name == last:
        os.kill(os.getpid(), signal.SIGKILL)

async def deliver() -> None:
    ledger = await Ledger.open(url, timeout_seconds=0.5)
    if last == "synced":
        print("away", flush=True)
        sys.stdin.readline()
    delivery = Delivery(ledger, Spool.open(Path(folder)), step=step)
    for inference in inferences:
        await delivery.capture(a_capture(inference), time_ms=NOW_MS)

asyncio.run(deliver())
"""


def victim(
    server: RedisServer, folder: Path, last: str, *inferences: str
) -> "subprocess.Popen[str]":
    """A process that delivers these and is killed after the step `last`."""
    return subprocess.Popen(
        [sys.executable, "-c", VICTIM, server.url, str(folder), last, *inferences],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "src:."},
    )  # fmt: skip


@pytest.mark.parametrize("last", ["kept", "posted", "refused", "refusal noted"])
async def test_a_process_killed_between_any_two_steps_leaves_each_capture_to_the_next(
    server: RedisServer, folder: Path, last: str
) -> None:
    with running_redis(server):
        ledger = await Ledger.open(server.url)
        is_refused = last.startswith("refus")
        inference = event_id() if is_refused else await held(ledger)
        with victim(server, folder, last, inference) as process:
            assert process.wait(30) == -signal.SIGKILL
        async with delivering(ledger, folder) as delivery:
            await answered(delivery)
        assert await captures_of(ledger) == ([] if is_refused else [inference])
        await ledger.close()
    if is_refused:
        assert set(refusals(folder)) == {inference}
    assert not list(folder.glob("*.spool"))


async def test_a_process_killed_while_the_ledger_is_down_leaves_its_captures_to_the_next(
    server: RedisServer, folder: Path
) -> None:
    with running_redis(server):
        ledger = await Ledger.open(server.url)
        inference = await held(ledger)
        process = victim(server, folder, "synced", inference)
        assert process.stdout is not None
        assert process.stdout.readline() == "away\n"
        await ledger.close()
    with process:
        process.communicate("go on\n", timeout=30)
        assert process.returncode == -signal.SIGKILL
    with running_redis(server):
        ledger = await Ledger.open(server.url)
        assert await captures_of(ledger) == []
        async with delivering(ledger, folder) as delivery:
            await answered(delivery)
        assert await captures_of(ledger) == [inference]
        await ledger.close()
