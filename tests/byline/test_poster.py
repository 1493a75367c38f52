"""Group commit: one send for each posting, one outcome for each caller, whatever comes back."""

import asyncio
import os
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from byline.errors import (
    LedgerFenced,
    LedgerMisconfigured,
    LedgerRefused,
    LedgerUnavailable,
)
from byline.ledger.ledger import Ledger
from byline.posting import poster as poster_module
from byline.posting import postings
from byline.posting.address import Address
from byline.posting.redis_client import Client, connect
from byline.records import Posted
from byline.redis_server import RedisServer, running_redis
from tests.byline.cases import HOLD_MS, NOW_MS, a_capture, event_id, held
from tests.byline.meddler import Meddler, Tampering

pytestmark = pytest.mark.anyio
TIMEOUT_SECONDS = 0.3
CALLERS = 40
Outcomes = Counter[tuple[str, str]]


@pytest.fixture
def server(tmp_path: Path) -> RedisServer:
    return RedisServer(tmp_path / "data", unix_socket=tmp_path / "s.sock")


@pytest.fixture
def running(server: RedisServer) -> Iterator[int]:
    """The process id of a server of this test alone."""
    with running_redis(server) as process:
        yield process.pid


@pytest.fixture
async def meddler(server: RedisServer, running: int, tmp_path: Path) -> AsyncIterator[Meddler]:
    assert server.unix_socket is not None
    async with Meddler(tmp_path / "m.sock", server.unix_socket).listening() as listening:
        yield listening


@pytest.fixture
def outcomes() -> Outcomes:
    return Counter()


@pytest.fixture
async def meddled(meddler: Meddler, outcomes: Outcomes) -> AsyncIterator[Ledger]:
    """A ledger behind the meddler, which counts what its posts come to."""
    opened = await Ledger.open(
        meddler.url,
        timeout_seconds=TIMEOUT_SECONDS,
        observe=lambda operation, outcome, _: outcomes.update([(operation, outcome)]),
    )
    yield opened
    await opened.close()


@pytest.fixture
async def own(server: RedisServer, running: int) -> AsyncIterator[Client]:
    client = connect(server.url)
    yield client
    await client.aclose()


async def deposits(ledger: Ledger, operations: list[str]) -> list[Posted | BaseException]:
    """One deposit of one nano each, all at once."""
    return await asyncio.gather(
        *(ledger.deposit(operation, "demo", 1, time_ms=NOW_MS) for operation in operations),
        return_exceptions=True,
    )


async def until_all_are_posted(ledger: Ledger, operations: list[str]) -> list[Posted]:
    """Send again what has no answer, as every caller does."""
    posted: dict[str, Posted] = {}
    for _ in range(10):
        waiting = [operation for operation in operations if operation not in posted]
        for operation, answer in zip(waiting, await deposits(ledger, waiting), strict=True):
            if isinstance(answer, Posted):
                posted[operation] = answer
            else:
                assert isinstance(answer, LedgerUnavailable)
        if len(posted) == len(operations):
            return list(posted.values())
    raise AssertionError("it never ended")


def without_one(replies: list[bytes]) -> list[bytes]:
    """The reply in the middle is lost."""
    middle = len(replies) // 2
    return replies[:middle] + replies[middle + 1 :]


def with_one_twice(replies: list[bytes]) -> list[bytes]:
    """The reply in the middle comes twice."""
    middle = len(replies) // 2
    return replies[: middle + 1] + replies[middle:]


def swapped(replies: list[bytes]) -> list[bytes]:
    """The last two change places."""
    return [*replies[:-2], replies[-1], replies[-2]]


def cut(replies: list[bytes]) -> list[bytes]:
    """The stream goes on in the middle of a reply."""
    return [replies[0][:-7], *replies[1:]]


def replaced(replies: list[bytes]) -> list[bytes]:
    """A reply of another shape."""
    return [*replies[:-1], b":7\r\n"]


@pytest.mark.parametrize("tampering", [without_one, with_one_twice, swapped, cut, replaced])
@pytest.mark.parametrize("events_together", [True, False])
async def test_replies_out_of_order_are_never_taken_for_anothers(
    meddler: Meddler, meddled: Ledger, tampering: Tampering, events_together: bool,
    outcomes: Outcomes, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if not events_together:  # a call for each, on one connection: so many replies in a row
        monkeypatch.setattr("byline.posting.poster.BATCH_BYTES", 1)
        monkeypatch.setattr("byline.posting.lanes.LANES_MAX", 1)
    meddler.opens_replies = events_together
    operations = [event_id() for _ in range(CALLERS)]
    meddler.tamper = tampering
    first = await deposits(meddled, operations)
    unknown = [answer for answer in first if isinstance(answer, LedgerUnavailable)]
    assert unknown
    told = {
        operation: answer.seq
        for operation, answer in zip(operations, first, strict=True)
        if isinstance(answer, Posted)
    }
    posted = await until_all_are_posted(meddled, operations)
    assert sorted(answer.seq for answer in posted) == list(range(1, CALLERS + 1))
    keys = {entry.key.split("/")[0]: entry.seq async for entry in meddled.entries()}
    assert keys.items() >= told.items()  # what was believed at once was true
    assert await meddled.balance("app:demo") == CALLERS
    assert outcomes["deposit", "unknown"] >= len(unknown)
    assert outcomes["deposit", "posted"] + outcomes["deposit", "duplicate"] == CALLERS + len(told)


async def test_replies_that_come_too_late_are_unknown_and_post_once(
    meddler: Meddler, meddled: Ledger
) -> None:
    operations = [event_id() for _ in range(CALLERS)]
    meddler.delay_seconds = 2 * TIMEOUT_SECONDS
    assert all(isinstance(each, LedgerUnavailable) for each in await deposits(meddled, operations))
    meddler.delay_seconds = 0.0
    await until_all_are_posted(meddled, operations)
    assert (await meddled.check()).journal_entries == CALLERS


async def test_what_waits_together_is_sent_together(own: Client, server: RedisServer) -> None:
    ledger = await Ledger.open(server.url)
    operations = [event_id() for _ in range(500)]
    before = (await own.info("stats"))["total_reads_processed"]
    assert all(isinstance(answer, Posted) for answer in await deposits(ledger, operations))
    assert (await own.info("stats"))["total_reads_processed"] - before < 100
    await ledger.close()


async def test_only_so_much_is_under_way_at_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poster_module, "BYTES_UNDER_WAY_MAX", 1)
    monkeypatch.setattr(poster_module, "BATCH_BYTES", 1)
    most, sent = 0, ledger._poster._send

    def sending(*batch: object) -> None:
        nonlocal most
        sent(*batch)  # type: ignore[arg-type]
        under_way = ledger._poster._unanswered - len(ledger._poster._waiting)
        most = max(most, under_way)

    monkeypatch.setattr(ledger._poster, "_send", sending)
    answers = await deposits(ledger, [event_id() for _ in range(CALLERS)])
    assert sorted(answer.seq for answer in answers if isinstance(answer, Posted)) == list(
        range(1, CALLERS + 1)
    )
    assert most == 1


async def test_a_cancelled_callers_post_is_sent_and_observed(
    meddled: Ledger, outcomes: Outcomes, running: int
) -> None:
    os.kill(running, signal.SIGSTOP)
    posts = [
        asyncio.create_task(meddled.deposit(event_id(), "demo", 1, time_ms=NOW_MS))
        for _ in range(CALLERS)
    ]
    await asyncio.sleep(0)  # asked for, and not even sent
    for post in posts[::2]:
        post.cancel()
    os.kill(running, signal.SIGCONT)
    answers = await asyncio.gather(*posts, return_exceptions=True)
    assert [isinstance(each, asyncio.CancelledError) for each in answers] == [True, False] * 20
    await meddled._poster.drain()
    assert await meddled.balance("app:demo") == CALLERS
    assert outcomes == {("deposit", "posted"): CALLERS}


async def test_a_server_killed_in_mid_batch_is_found_again_by_the_next_post(
    server: RedisServer, outcomes: Outcomes
) -> None:
    process = server.start()
    ledger = await Ledger.open(server.url, timeout_seconds=5.0)
    operations = [event_id() for _ in range(2_000)]
    posting = asyncio.create_task(deposits(ledger, operations))
    await asyncio.sleep(0.02)
    process.kill()
    process.wait()
    first = await posting
    with running_redis(server):  # with no scripts
        posted = await until_all_are_posted(ledger, operations)
        told = [answer.seq for answer in first if isinstance(answer, Posted)]
        assert len(told) < len(operations)
        assert sorted(answer.seq for answer in posted) == list(range(1, 2_001))
        assert sum(answer.duplicate for answer in posted) >= len(told)
        assert (await ledger.check()).balanced
        await ledger.close()


async def test_scripts_that_were_flushed_are_sent_again_on_every_connection(
    own: Client, server: RedisServer
) -> None:
    ledger = await Ledger.open(server.url)
    for _ in range(3):
        operations = [event_id() for _ in range(500)]
        answers = await deposits(ledger, operations)
        assert all(isinstance(answer, Posted) and not answer.duplicate for answer in answers)
        await own.script_flush()
    await ledger.close()


@pytest.mark.parametrize(
    ("lacks", "error"),
    [("-script|load", LedgerMisconfigured), ("-evalsha", LedgerMisconfigured)],
)
async def test_a_user_without_the_rights_is_told_so(
    own: Client, server: RedisServer, lacks: str, error: type[Exception]
) -> None:
    await own.execute_command(f"ACL SETUSER weak on >x ~* +@all {lacks}")
    ledger = await Ledger.open(server.url.replace("unix://", "unix://weak:x@"))
    with pytest.raises(error, match="refuses the rights: NOPERM"):
        await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    await ledger.close()


async def test_a_server_that_is_gone_is_unavailable_until_it_is_back(server: RedisServer) -> None:
    with running_redis(server):
        ledger = await Ledger.open(server.url, timeout_seconds=TIMEOUT_SECONDS)
    operations = [event_id() for _ in range(CALLERS)]
    for answer in await deposits(ledger, operations):
        assert isinstance(answer, LedgerUnavailable)
        assert "deposit" in str(answer)
    with running_redis(server):
        await until_all_are_posted(ledger, operations)
        await ledger.close()


async def test_a_server_that_became_unsafe_is_not_posted_to_again(server: RedisServer) -> None:
    with running_redis(server):
        ledger = await Ledger.open(server.url)
    unsafe = RedisServer(
        server.folder, unix_socket=server.unix_socket, settings={"appendfsync": "everysec"}
    )
    with running_redis(unsafe):
        await asyncio.sleep(0.05)  # until the loss of the connection is seen
        with pytest.raises(LedgerMisconfigured, match="appendfsync is 'everysec'"):
            await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
        with pytest.raises(LedgerMisconfigured, match="appendfsync"):
            await ledger.rejoin()
        await ledger.close()


async def test_a_server_that_has_lost_entries_is_not_posted_to_again(
    server: RedisServer, tmp_path: Path
) -> None:
    with running_redis(server):
        ledger = await Ledger.open(server.url)
        await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    shutil.copytree(server.folder, tmp_path / "old")
    with running_redis(server):
        await asyncio.sleep(0.05)  # until the loss of the connection is seen
        await ledger.deposit(event_id(), "demo", 2, time_ms=NOW_MS)
    old = RedisServer(tmp_path / "old", unix_socket=server.unix_socket)
    with running_redis(old):
        await asyncio.sleep(0.05)
        for _ in range(2):
            with pytest.raises(LedgerFenced, match="ends at 1, this writer was told 2"):
                await ledger.deposit(event_id(), "demo", 3, time_ms=NOW_MS)
        with pytest.raises(LedgerFenced, match="nobody has promoted it"):
            await ledger.rejoin()
        operator = await Ledger.open(server.url)
        assert await operator.promote() == 2  # an operator decides to go on without them
        await ledger.rejoin()
        await ledger.deposit(event_id(), "demo", 3, time_ms=NOW_MS)
        assert await ledger.balance("app:demo") == 4
        await operator.close()
        await ledger.close()


async def test_a_hold_and_its_capture_may_follow_at_once(ledger: Ledger) -> None:
    """Different connections keep no order between them: a caller waits for its own answers."""
    inferences = [await held(ledger, 1_000, funds=1_000) for _ in range(20)]
    captures = [ledger.capture(a_capture(each), time_ms=NOW_MS) for each in inferences]
    assert len({answer.seq for answer in await asyncio.gather(*captures)}) == 20
    assert await ledger.expired_holds(now_ms=NOW_MS + HOLD_MS) == []


async def test_joining_elsewhere_leaves_what_is_under_way_without_an_answer(
    server: RedisServer, running: int, meddler: Meddler
) -> None:
    ledger = await Ledger.open(server.url)
    operations = [event_id() for _ in range(CALLERS)]
    os.kill(running, signal.SIGSTOP)
    posts = asyncio.ensure_future(deposits(ledger, operations))
    await asyncio.sleep(0.05)

    async def epoch() -> int:
        return 1

    joining = asyncio.ensure_future(ledger._poster.join(Address.parse(meddler.url), epoch))
    await asyncio.sleep(0.05)
    assert not joining.done()
    os.kill(running, signal.SIGCONT)
    await joining
    assert {type(answer) for answer in await posts} <= {LedgerUnavailable, Posted}
    await until_all_are_posted(ledger, operations)
    assert (await ledger.check()).journal_entries == CALLERS
    await ledger.close()


@pytest.mark.parametrize(
    "change", [{"inference": "no-uuid"}, {"arguments": ("demo", "\ud800")}], ids=["key", "text"]
)
async def test_a_posting_that_can_not_be_sent_holds_up_nobody(
    ledger: Ledger, change: dict[str, Any]
) -> None:
    good = [postings.deposit(event_id(), "demo", 1, time_ms=NOW_MS) for _ in range(2)]
    bad = replace(good[0], **{"inference": event_id(), "is_permanent": False, **change})
    async with asyncio.timeout(5):
        answers = await asyncio.gather(
            *(ledger.post(each) for each in (good[0], bad, good[1])), return_exceptions=True
        )
        assert isinstance(answers[1], LedgerRefused)
        again = [await ledger.post(each) for each in good]
    assert all(isinstance(answer, Posted) for answer in again)


@pytest.mark.parametrize("time_ms", [True, 1.0, -1, 2**53], ids=repr)
def test_no_entry_is_drawn_up_with_a_time_that_is_none(time_ms: int) -> None:
    with pytest.raises(LedgerRefused, match="no time in milliseconds"):
        postings.deposit(event_id(), "demo", 1, time_ms=time_ms)
