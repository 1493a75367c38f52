"""What was handed to a delivery is posted once, or lies among the refusals, whatever the ledger
says and however long it says nothing."""

import asyncio
from collections.abc import AsyncIterator
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
)
from byline.ledger.ledger import Ledger
from byline.posting import postings
from byline.posting.postings import Posting
from tests.byline.cases import NOW_MS, a_capture, event_id, held
from tests.byline.deliveries import (
    PAUSE_SECONDS,
    StubbornLedger,
    answered,
    captures_of,
    delivering,
    refusals,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ledger(redis_url: str, ledger_name: str) -> AsyncIterator[StubbornLedger]:
    opened = await StubbornLedger.over(redis_url, ledger_name)
    yield opened
    await opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


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
