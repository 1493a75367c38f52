"""The ledger keeps the same books on either server: Valkey from the wheel, and Debian's Redis 7.0.

A part of the ledger's tests, run against both; the rest runs against Valkey alone.
"""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from byline.errors import (
    InsufficientFunds,
    KeyConflict,
    LedgerFenced,
    LedgerFrozen,
    LedgerRefused,
    LedgerUnavailable,
    LedgerUnconfirmed,
)
from byline.ledger.ledger import Ledger
from byline.limits import CENT_NANO
from byline.posting.keys import Keys
from byline.posting.redis_client import connect
from byline.records import Adjustment, Leg, Payout, Refund, UnattributedRelease
from byline.redis_server import RedisServer, running_redis, stop
from tests.byline.cases import (
    ADAPTER,
    HOLD_MS,
    NOW_MS,
    a_capture,
    a_failure,
    an_attribution,
    captured,
    event_id,
    expired,
    held,
    refuses,
)  # fmt: skip

pytestmark = pytest.mark.anyio

REDIS = shutil.which("redis-server")


@pytest.fixture(
    scope="module",
    params=[
        "valkey",
        pytest.param(
            "redis",
            marks=pytest.mark.skipif(REDIS is None, reason="apt-get install redis-server"),
        ),
    ],
)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    folder = tmp_path_factory.mktemp(request.param)
    binary = Path(REDIS or "") if request.param == "redis" else None
    found = RedisServer(folder, unix_socket=folder / "s.sock", binary=binary)
    with running_redis(found):
        yield found


@pytest.fixture
async def ledger(server: RedisServer, ledger_name: str) -> AsyncIterator[Ledger]:
    opened = await Ledger.open(server.url, name=ledger_name)
    yield opened
    await opened.close()


async def test_an_answer_is_held_captured_and_settled_once(ledger: Ledger) -> None:
    for _ in range(2):
        inference = await captured(ledger, pools=(300, 200))
        for _ in range(2):
            await ledger.settle(an_attribution(inference, pool=300), time_ms=NOW_MS)
            await ledger.settle(a_failure(inference, 1, pool=200), time_ms=NOW_MS)
    assert await ledger.balances() == {
        "funding": -20_000, "app:demo": 18_200, "platform": 800, "contrib:alice": 600,
        f"unattributed:{ADAPTER}": 400,
    }  # fmt: skip
    books = await ledger.check()
    assert books.balanced
    assert books.journal_entries == 10


async def test_a_repeated_post_is_a_duplicate_and_another_payload_a_conflict(
    ledger: Ledger,
) -> None:
    operation = event_id()
    first = await ledger.deposit(operation, "demo", 5, time_ms=NOW_MS)
    again = await ledger.deposit(operation, "demo", 5, time_ms=NOW_MS + 1)
    assert (again.seq, again.duplicate) == (first.seq, True)
    call = ledger.deposit(operation, "demo", 6, time_ms=NOW_MS)
    await refuses(ledger, call, KeyConflict, "another payload")


async def test_nothing_is_held_beyond_the_credit_limit(ledger: Ledger) -> None:
    await ledger.set_credit_limit("demo", 500)
    await held(ledger, 1_500, funds=1_000)
    more = ledger.hold(event_id(), "demo", 1, expires_ms=NOW_MS + HOLD_MS, time_ms=NOW_MS)
    await refuses(ledger, more, InsufficientFunds, "credit limit")


async def test_a_late_capture_is_posted_and_flagged(ledger: Ledger) -> None:
    posted = await ledger.capture(a_capture(await expired(ledger)), time_ms=NOW_MS + HOLD_MS)
    assert posted.late
    assert await ledger.balance("app:demo") == 100


async def test_a_void_gives_the_whole_hold_back(ledger: Ledger) -> None:
    inference = await held(ledger)
    await ledger.void(inference, "demo", time_ms=NOW_MS)
    assert await ledger.balance("app:demo") == 10_000
    call = ledger.capture(a_capture(inference), time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "without hold")


async def test_operators_correct_release_refund_and_pay(ledger: Ledger) -> None:
    inference = await captured(ledger)
    await ledger.settle(an_attribution(inference, unattributed=100), time_ms=NOW_MS)
    operations = [event_id() for _ in range(4)]
    legs = (Leg("funding", -2 * CENT_NANO), Leg("contrib:bob", 2 * CENT_NANO))
    for _ in range(2):  # whatever is sent twice is posted once
        await ledger.adjust(Adjustment(operations[0], legs, "a gift", "ops"), time_ms=NOW_MS)
        decision = UnattributedRelease(
            operations[1], ADAPTER, (Leg("contrib:alice", 100),), "0" * 64
        )
        await ledger.release(decision, time_ms=NOW_MS)
        await ledger.refund(Refund(operations[2], inference, 450, "half"), time_ms=NOW_MS)
        await ledger.payout(
            Payout(operations[3], "contrib:bob", CENT_NANO, "contrib:bob/2026-11", 1, 3, 0,
                   2 * CENT_NANO, "bank-1"),
            time_ms=NOW_MS,
        )  # fmt: skip
    assert (await ledger.check()).balanced
    assert await ledger.balance("app:demo") == 9_550
    assert await ledger.balance("contrib:bob") == CENT_NANO
    assert await ledger.balance("payout") == CENT_NANO


async def test_balances_are_made_again_from_the_journal_under_a_new_epoch(
    ledger: Ledger, server: RedisServer, ledger_name: str
) -> None:
    other = await Ledger.open(server.url, name=ledger_name)
    await captured(ledger)
    before = dict(await ledger.balances())
    async with connect(server.url) as client:
        await client.delete(Keys(ledger_name).balances)
    assert not (await ledger.check()).balanced
    assert await ledger.rebuild() == before
    assert await ledger.balances() == before
    call = other.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    await refuses(other, call, LedgerFenced, "epoch")
    await other.rejoin()
    await other.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    await other.close()


async def test_a_frozen_ledger_takes_nothing_until_it_is_thawed(ledger: Ledger) -> None:
    await ledger.freeze("look here")
    call = ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    await refuses(ledger, call, LedgerFrozen, "look here")
    await ledger.thaw()
    await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)


async def test_without_its_replica_a_post_is_unconfirmed_and_not_doubled(
    server: RedisServer, ledger_name: str
) -> None:
    careful = await Ledger.open(server.url, name=ledger_name, replicas=1)
    operation = event_id()
    for _ in range(2):
        with pytest.raises(LedgerUnconfirmed):
            await careful.deposit(operation, "demo", 5, time_ms=NOW_MS)
    assert await careful.balance("app:demo") == 5
    await careful.close()


async def test_what_was_answered_survives_a_kill(server: RedisServer, tmp_path: Path) -> None:
    own = RedisServer(tmp_path, unix_socket=tmp_path / "s.sock", binary=server.binary)
    process = own.start()
    try:
        ledger = await Ledger.open(own.url)
        inference = await captured(ledger)
        process.kill()
        process.wait()
        with pytest.raises(LedgerUnavailable):
            await ledger.settle(an_attribution(inference), time_ms=NOW_MS)
        process = own.start()
        await ledger.rejoin()
        await ledger.settle(an_attribution(inference), time_ms=NOW_MS)
        assert await ledger.balance("contrib:alice") == 500
        assert (await ledger.check()).balanced
        await ledger.close()
    finally:
        stop(process)
