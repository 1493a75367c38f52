"""What was handed to a delivery is posted once, or lies among the refusals: whatever goes away, the
ledger, the disk or the process itself, and between whichever two steps."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from byline.delivery.delivery import SENT_AT_ONCE, Delivery
from byline.delivery.spool import REFUSED, Spool
from byline.errors import (
    BylineError,
    LedgerFenced,
    LedgerFrozen,
    LedgerRefused,
    LedgerUnavailable,
    LedgerUnconfirmed,
    SpoolFull,
)
from byline.ledger.ledger import Ledger
from byline.posting import postings
from byline.posting.postings import Posting
from byline.records import Posted
from byline.redis_server import RedisServer, running_redis
from tests.byline.cases import NOW_MS, a_capture, event_id, held

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
PAUSE_SECONDS = 0.02


class StubbornLedger(Ledger):
    """A real ledger, whose next posts fail before or after they are sent, in this order."""

    failures: Sequence[tuple[str, Exception]]
    sent: list[str]

    @classmethod
    async def over(cls, url: str, name: str) -> "StubbornLedger":
        ledger = await cls.open(url, name=name)
        assert isinstance(ledger, cls)
        ledger.failures, ledger.sent = [], []
        return ledger

    async def post(self, posting: Posting) -> Posted | None:
        self.sent.append(posting.key)
        (when, problem), *self.failures = [*self.failures, ("never", Exception())]
        if when == "before":
            raise problem
        posted = await super().post(posting)
        if when == "after":
            raise problem
        return posted


@pytest.fixture
async def ledger(redis_url: str, ledger_name: str) -> AsyncIterator[StubbornLedger]:
    opened = await StubbornLedger.over(redis_url, ledger_name)
    yield opened
    await opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@asynccontextmanager
async def delivering(
    ledger: Ledger, folder: Path, *, runs: bool = True, **more: Callable[..., None]
) -> AsyncIterator[Delivery]:
    """A delivery over the folder's spool; its background runs unless a test wants it to stand."""
    spool = Spool.open(folder)
    delivery = Delivery(ledger, spool, pause_seconds=PAUSE_SECONDS, **more)
    stop = asyncio.Event()
    running = asyncio.create_task(delivery.run(stop)) if runs else None
    try:
        yield delivery
    finally:
        stop.set()
        if running is not None:
            await running
        await delivery.drain(5)
        await spool.close()


async def answered(delivery: Delivery) -> None:
    """Wait until nothing waits."""
    async with asyncio.timeout(10):
        while delivery.waiting:
            await asyncio.sleep(0.01)


async def captures_of(ledger: Ledger) -> list[str]:
    books = await ledger.check()
    assert books.balanced
    return [e.inference or "" async for e in ledger.entries() if e.kind.startswith("capture")]


def refusals(folder: Path) -> list[str]:
    lines = (folder / REFUSED).read_text().splitlines()
    return [json.loads(line)["posting"]["inference"] for line in lines]


async def test_an_answered_capture_waits_no_more(ledger: StubbornLedger, folder: Path) -> None:
    async with delivering(ledger, folder) as delivery:
        inference = await held(ledger)
        posted = await delivery.capture(a_capture(inference), time_ms=NOW_MS)
        assert posted is not None
        assert not posted.duplicate
        assert (delivery.waiting, delivery.oldest_ms) == (0, None)
        other = await held(ledger)
        assert await delivery.void(other, "demo", time_ms=NOW_MS)
        assert ledger.sent == [f"{inference}/capture/0", f"{other}/void/0"]
    assert await captures_of(ledger) == [inference]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "problem",
    [LedgerUnavailable("away"), LedgerUnconfirmed("one copy"), LedgerFrozen("stopped")],
    ids=lambda problem: type(problem).__name__,
)
async def test_an_unanswered_capture_is_sent_again_and_posts_once(
    ledger: StubbornLedger, folder: Path, when: str, problem: Exception
) -> None:
    async with delivering(ledger, folder, runs=False) as delivery:
        inference = await held(ledger)
        ledger.failures = [(when, problem)] * 3
        assert await delivery.capture(a_capture(inference), time_ms=NOW_MS) is None
        assert (delivery.waiting, delivery.oldest_ms) == (1, NOW_MS)
        delivery.require_room()
    async with delivering(ledger, folder) as delivery:
        assert delivery.waiting == 1
        await answered(delivery)
    assert ledger.sent == [f"{inference}/capture/0"] * 4
    assert await captures_of(ledger) == [inference]


async def test_what_waits_is_sent_in_order(ledger: StubbornLedger, folder: Path) -> None:
    inferences = [await held(ledger) for _ in range(2 * SENT_AT_ONCE + 5)]
    async with delivering(ledger, folder, runs=False) as delivery:
        ledger.failures = [("before", LedgerUnavailable("away"))] * len(inferences)
        for inference in inferences:
            await delivery.capture(a_capture(inference), time_ms=NOW_MS)
    ledger.sent.clear()
    async with delivering(ledger, folder) as delivery:
        await answered(delivery)
    assert ledger.sent == [f"{inference}/capture/0" for inference in inferences]
    assert sorted(await captures_of(ledger)) == sorted(inferences)


async def test_while_nothing_is_answered_one_batch_is_tried_at_a_time(
    ledger: StubbornLedger, folder: Path
) -> None:
    async with delivering(ledger, folder, runs=False) as delivery:
        ledger.failures = [("before", LedgerUnavailable("away"))] * 4 * SENT_AT_ONCE
        for _ in range(2 * SENT_AT_ONCE):
            await delivery.void(event_id(), "demo", time_ms=NOW_MS)
        ledger.sent.clear()
        await delivery._send_waiting(asyncio.Event())
        assert len(ledger.sent) == SENT_AT_ONCE


async def test_one_post_that_is_never_answered_does_not_hold_back_the_others(
    ledger: StubbornLedger, folder: Path
) -> None:
    async with delivering(ledger, folder, runs=False) as delivery:
        inferences = [await held(ledger) for _ in range(SENT_AT_ONCE + 3)]
        ledger.failures = [("before", LedgerUnavailable("away"))] * (len(inferences) + 1)
        for inference in inferences:
            await delivery.capture(a_capture(inference), time_ms=NOW_MS)
        await delivery._send_waiting(asyncio.Event())
        assert delivery.waiting == 1
        assert sorted(await captures_of(ledger)) == sorted(inferences[1:])
        await delivery._send_waiting(asyncio.Event())


async def test_a_refused_capture_lies_among_the_refusals(
    ledger: StubbornLedger, folder: Path
) -> None:
    inference = event_id()
    async with delivering(ledger, folder) as delivery:
        with pytest.raises(LedgerRefused, match="capture without hold"):
            await delivery.capture(a_capture(inference), time_ms=NOW_MS)
        assert delivery.waiting == 0
    assert refusals(folder) == [inference]


async def test_a_refusal_that_comes_late_is_told(ledger: StubbornLedger, folder: Path) -> None:
    told: list[tuple[str, type]] = []

    def refused(posting: Posting, problem: BylineError) -> None:
        told.append((posting.inference, type(problem)))

    inference = event_id()
    async with delivering(ledger, folder, refused=refused) as delivery:
        ledger.failures = [("before", LedgerUnavailable("away"))]
        assert await delivery.capture(a_capture(inference), time_ms=NOW_MS) is None
        await answered(delivery)
    assert told == [(inference, LedgerRefused)]
    assert refusals(folder) == [inference]


async def test_a_capture_that_is_none_is_refused_at_once(
    ledger: StubbornLedger, folder: Path
) -> None:
    async with delivering(ledger, folder) as delivery:
        with pytest.raises(LedgerRefused, match="older than"):
            await delivery.capture(a_capture(event_id(0)), time_ms=NOW_MS)
        assert not ledger.sent


async def test_a_real_freeze_waits_for_its_thaw(ledger: StubbornLedger, folder: Path) -> None:
    async with delivering(ledger, folder) as delivery:
        inference = await held(ledger)
        await ledger.freeze("the books do not balance")
        assert await delivery.capture(a_capture(inference), time_ms=NOW_MS) is None
        await asyncio.sleep(3 * PAUSE_SECONDS)
        assert delivery.waiting == 1
        await ledger.thaw()
        await answered(delivery)
    assert await captures_of(ledger) == [inference]


async def test_a_charge_waits_until_a_damaged_ledger_is_mended(
    ledger: StubbornLedger, folder: Path
) -> None:
    redis, keys = ledger.inside
    async with delivering(ledger, folder) as delivery:
        inference = await held(ledger)
        await redis.hset(keys.meta, "trimmed", 1)  # as if an entry had been lost
        assert await delivery.capture(a_capture(inference), time_ms=NOW_MS) is None
        await asyncio.sleep(3 * PAUSE_SECONDS)
        assert delivery.waiting == 1
        await redis.hdel(keys.meta, "trimmed")
        await answered(delivery)
    assert not (folder / REFUSED).exists()
    assert await captures_of(ledger) == [inference]


async def test_a_fenced_delivery_rejoins_and_posts(
    ledger: StubbornLedger, folder: Path, redis_url: str, ledger_name: str
) -> None:
    async with delivering(ledger, folder) as delivery:
        inferences = [await held(ledger) for _ in range(5)]
        operator = await Ledger.open(redis_url, name=ledger_name)
        await operator.promote()
        await operator.close()
        posts = [delivery.capture(a_capture(each), time_ms=NOW_MS) for each in inferences]
        assert all(await asyncio.gather(*posts))
    assert sorted(await captures_of(ledger)) == sorted(inferences)


async def test_all_who_are_fenced_at_once_share_one_rejoining(folder: Path) -> None:
    rejoined = 0

    class Fenced(Ledger):
        def __init__(self) -> None:
            pass

        async def rejoin(self) -> None:
            nonlocal rejoined
            await asyncio.sleep(0.01)
            rejoined += 1

    async def call() -> str:
        if not rejoined:
            raise LedgerFenced("an old epoch")
        return "answered"

    async with delivering(Fenced(), folder, runs=False) as delivery:
        answers = await asyncio.gather(*(delivery.rejoined(call) for _ in range(9)))
        assert (answers, rejoined) == (["answered"] * 9, 1)
        rejoined = 0
        assert await delivery.rejoined(call) == "answered"


async def test_an_old_primary_is_waited_out(ledger: StubbornLedger, folder: Path) -> None:
    async with delivering(ledger, folder) as delivery:
        inference = await held(ledger)
        await ledger._redis.hincrby(ledger._keys.meta, "epoch", -1)
        assert await delivery.capture(a_capture(inference), time_ms=NOW_MS) is None
        assert delivery.waiting == 1
        await ledger._redis.hincrby(ledger._keys.meta, "epoch", 1)
        await answered(delivery)
    assert await captures_of(ledger) == [inference]


async def test_a_cancelled_callers_capture_still_ends(ledger: StubbornLedger, folder: Path) -> None:
    async with delivering(ledger, folder) as delivery:
        inference, refused = await held(ledger), event_id()
        for each in (inference, refused):
            capturing = asyncio.create_task(delivery.capture(a_capture(each), time_ms=NOW_MS))
            await asyncio.sleep(0)
            capturing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await capturing
        await delivery.drain(5)
    assert await captures_of(ledger) == [inference]
    assert refusals(folder) == [refused]


async def test_a_bug_in_a_delivery_is_logged_and_the_post_kept(
    ledger: StubbornLedger, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with delivering(ledger, folder, runs=False) as delivery:
        inference = await held(ledger)
        ledger.failures = [("before", RuntimeError("a bug"))]
        with pytest.raises(RuntimeError):
            await delivery.capture(a_capture(inference), time_ms=NOW_MS)
    assert "a delivery failed" in caplog.text
    async with delivering(ledger, folder) as delivery:
        await answered(delivery)
    assert await captures_of(ledger) == [inference]


async def test_a_stop_does_not_wait_longer_than_it_may(
    ledger: StubbornLedger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(_: Posting) -> None:
        await asyncio.sleep(60)

    inference = await held(ledger)
    async with delivering(ledger, folder, runs=False) as delivery:
        with monkeypatch.context() as patched:
            patched.setattr(ledger, "post", silent)
            capturing = asyncio.create_task(delivery.capture(a_capture(inference), time_ms=NOW_MS))
            await asyncio.sleep(0.05)
            assert await delivery.drain(0.01) == 1
            with pytest.raises(asyncio.CancelledError):
                await capturing
    async with delivering(ledger, folder) as delivery:
        await answered(delivery)
    assert await captures_of(ledger) == [inference]


# --- without a disk ---


class FullSpool(Spool):
    """A spool that takes nothing while it is full."""

    full = True

    def require_room(self) -> None:
        if self.full:
            raise SpoolFull("no room")

    async def write(self, posting: Posting, *, time_ms: int) -> None:
        self.require_room()
        await super().write(posting, time_ms=time_ms)

    async def refuse(self, posting: Posting, reason: str) -> None:
        self.require_room()
        await super().refuse(posting, reason)

    async def sync(self) -> None:
        self.require_room()

    async def tidy(self) -> None:
        self.require_room()


async def test_without_room_a_capture_is_sent_all_the_same(
    ledger: StubbornLedger, folder: Path
) -> None:
    spool = FullSpool.open(folder)
    delivery = Delivery(ledger, spool)
    with pytest.raises(SpoolFull, match="no room"):
        delivery.require_room()
    inference = await held(ledger)
    assert await delivery.capture(a_capture(inference), time_ms=NOW_MS)
    assert delivery.waiting == 0
    await spool.close()


async def test_without_room_what_waits_lies_in_memory_and_stops_holds(
    ledger: StubbornLedger, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = FullSpool.open(folder)
    assert isinstance(spool, FullSpool)
    delivery = Delivery(ledger, spool)
    inference, refused = await held(ledger), event_id()
    ledger.failures = [("before", LedgerUnavailable("away"))] * 2
    for each in (inference, refused):
        assert await delivery.capture(a_capture(each), time_ms=NOW_MS) is None
    await delivery.drain(1)
    assert "is in no spool: lost" in caplog.text
    await delivery._send_waiting(asyncio.Event())
    assert delivery.waiting == 1  # the refused one, until its refusal can be noted
    spool.full = False
    with pytest.raises(SpoolFull, match="1 posts wait"):
        delivery.require_room()
    await delivery._send_waiting(asyncio.Event())
    delivery.require_room()
    await spool.close()
    assert refusals(folder) == [refused]
    assert await captures_of(ledger) == [inference]


async def test_what_lies_in_memory_is_kept_as_soon_as_there_is_room(
    ledger: StubbornLedger, folder: Path
) -> None:
    spool = FullSpool.open(folder)
    assert isinstance(spool, FullSpool)
    delivery = Delivery(ledger, spool)
    inference = await held(ledger)
    ledger.failures = [("before", LedgerUnavailable("away"))] * 2
    assert await delivery.capture(a_capture(inference), time_ms=NOW_MS) is None
    assert spool.waiting == 0
    spool.full = False
    await delivery._send_waiting(asyncio.Event())
    assert (spool.waiting, spool.oldest_ms, delivery.waiting) == (1, NOW_MS, 1)
    delivery.require_room()
    await spool.close()
    async with delivering(ledger, folder) as delivery:
        await answered(delivery)
    assert await captures_of(ledger) == [inference]


# --- a server that goes away, and processes that die ---


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


async def test_a_stop_ends_the_sending_between_two_batches(
    ledger: StubbornLedger, folder: Path
) -> None:
    inferences = [await held(ledger) for _ in range(SENT_AT_ONCE + 1)]
    spool = Spool.open(folder)
    for inference in inferences:
        capture = postings.capture(a_capture(inference), time_ms=NOW_MS)
        await spool.put(capture, time_ms=NOW_MS)
    delivery = Delivery(ledger, spool)
    stop = asyncio.Event()
    stop.set()
    await delivery._send_waiting(stop)
    assert await delivery.drain(1) == 1
    await spool.close()
