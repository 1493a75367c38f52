"""The journal is trimmed only behind what is exported and in a snapshot; what is old is forgotten
only when nothing that comes again could still post."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from byline.bookkeeping import trimming
from byline.bookkeeping.bookkeeper import Bookkeeper
from byline.bookkeeping.trimming import FORGET_DAYS, Trimming
from byline.bookkeeping.upkeep import Upkeep
from byline.errors import LedgerRefused
from byline.ledger.books import Fold, Snapshot
from byline.ledger.journal import Journal
from byline.ledger.ledger import Ledger
from byline.ledger.snapshots import Snapshots
from byline.limits import EVENT_AGE_DAYS_MAX
from byline.posting.keys import Keys
from byline.posting.postings import DAY_MS
from byline.posting.redis_client import Client
from byline.records import AttributionState, Posted
from tests.byline.cases import (
    HOLD_MS,
    NOW_MS,
    Killed,
    a_capture,
    an_attribution,
    captured,
    event_id,
    expired,
    held,
)
from tests.byline.test_snapshots import a_snapshot

pytestmark = pytest.mark.anyio

LATER_MS = NOW_MS + (FORGET_DAYS + 1) * DAY_MS
DAY = NOW_MS // DAY_MS


def trimming_of(ledger: Ledger, step: Callable[[str], None] = lambda _: None) -> Trimming:
    redis, keys = ledger.inside
    return Trimming(redis, keys, Journal(redis, keys), step)


async def trim(ledger: Ledger, *, keep: int = 1, days: float = 0, now_ms: int = NOW_MS) -> int:
    return await trimming_of(ledger).trim(keep_entries=keep, keep_days=days, now_ms=now_ms)


async def ready_to_trim(ledger: Ledger) -> int:
    """Export all and take a snapshot of all; the newest entry."""
    snapshot = await a_snapshot(ledger)
    await Snapshots(*ledger.inside).write(snapshot, ledger.epoch)
    await ledger.note_exported(snapshot.seq)
    return snapshot.seq


async def ten_entries(ledger: Ledger) -> None:
    for _ in range(10):
        await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)


@pytest.mark.parametrize(
    ("exported", "snapshot", "trimmed"),
    [(0, 0, 0), (10, 0, 0), (0, 10, 0), (4, 9, 3), (9, 4, 3), (10, 10, 9), (1, 1, 0)],
)
async def test_trimming_stops_before_what_is_exported_and_in_a_snapshot(
    ledger: Ledger, redis: Client, exported: int, snapshot: int, trimmed: int
) -> None:
    await ten_entries(ledger)
    _, keys = ledger.inside
    await redis.hset(keys.meta, mapping={"exported": exported, "snapshot": snapshot})
    assert await trim(ledger) == trimmed
    assert await redis.xlen(keys.journal) == 10 - trimmed
    assert int(await redis.hget(keys.meta, "trimmed") or 0) == trimmed


async def test_the_newest_entries_and_the_young_ones_are_kept(ledger: Ledger) -> None:
    await ten_entries(ledger)
    for day in range(1, 6):
        time_ms = NOW_MS + day * DAY_MS
        await ledger.deposit(event_id(time_ms), "demo", 1, time_ms=time_ms)
    await ready_to_trim(ledger)
    assert await trim(ledger, keep=12) == 3
    assert await trim(ledger, days=5, now_ms=NOW_MS + 5 * DAY_MS - 1) == 3
    assert await trim(ledger, days=3, now_ms=NOW_MS + 5 * DAY_MS) == 12
    assert await trim(ledger, now_ms=NOW_MS + 5 * DAY_MS) == 14


async def test_a_trimmed_ledger_is_checked_posted_to_and_rebuilt(ledger: Ledger) -> None:
    inference = await captured(ledger, (200, 300))
    newest = await ready_to_trim(ledger)
    assert await trim(ledger) == newest - 1
    await ledger.settle(an_attribution(inference, pool=200), time_ms=NOW_MS)
    await captured(ledger)
    books = await ledger.check()
    assert books.balanced
    assert books.journal_entries == newest + 4
    balances = await ledger.balances()
    with pytest.raises(LedgerRefused, match="trimmed up to"):
        await ledger.rebuild(full=True)
    assert await ledger.rebuild() == balances
    await ledger.settle(an_attribution(inference, 1, pool=300), time_ms=NOW_MS)


async def test_gaps_and_drift_are_found_in_a_trimmed_ledger(ledger: Ledger, redis: Client) -> None:
    await ten_entries(ledger)
    newest = await ready_to_trim(ledger)
    await trim(ledger)
    await ten_entries(ledger)
    _, keys = ledger.inside
    await redis.xdel(keys.journal, f"{newest + 3}-1")
    await redis.hincrby(keys.balances, "platform", 1)
    books = await ledger.check()
    assert books.gaps == (newest + 3,)
    assert "platform" in books.drifting_accounts


async def test_a_trimmed_inference_is_still_answered(ledger: Ledger) -> None:
    inference = await captured(ledger, (200, 300))
    await ledger.settle(an_attribution(inference, pool=200), time_ms=NOW_MS)
    before = await ledger.inference(inference)
    await ten_entries(ledger)
    await ready_to_trim(ledger)
    await trim(ledger)
    assert await ledger.inference(inference) == before
    assert before is not None
    assert [each.state for each in before.attributions] == [
        AttributionState.DONE, AttributionState.PENDING,
    ]  # fmt: skip


async def exported_and_trimmed(ledger: Ledger) -> None:
    await ten_entries(ledger)  # so that all before them is trimmed
    await ready_to_trim(ledger)
    await trim(ledger, now_ms=LATER_MS)


async def is_known(ledger: Ledger, inference: str) -> bool:
    redis, keys = ledger.inside
    marks = await redis.hkeys(keys.marks(DAY))
    has_facts = bool(await redis.exists(keys.inference(inference)))
    assert has_facts == any(mark.startswith(inference) for mark in marks)
    return has_facts


async def test_what_is_finished_is_forgotten_when_nothing_can_be_sent_again(
    ledger: Ledger,
) -> None:
    gone = [await expired(ledger), await held(ledger), await captured(ledger)]
    await ledger.void(gone[1], "demo", time_ms=NOW_MS)
    await ledger.settle(an_attribution(gone[2]), time_ms=NOW_MS)
    stay = [await held(ledger), await captured(ledger)]
    await exported_and_trimmed(ledger)
    young = await captured(ledger)
    await ledger.settle(an_attribution(young), time_ms=NOW_MS)
    at_work = trimming_of(ledger)
    young_enough_ms = (DAY + EVENT_AGE_DAYS_MAX) * DAY_MS + DAY_MS
    assert await at_work.forget(now_ms=young_enough_ms) == 0
    assert await at_work.forget(now_ms=LATER_MS) == len(gone)
    assert [await is_known(ledger, each) for each in gone] == [False] * len(gone)
    assert all([await is_known(ledger, each) for each in [*stay, young]])
    assert (await ledger.check()).balanced


async def test_nothing_is_forgotten_that_is_not_exported(ledger: Ledger) -> None:
    inference = await expired(ledger)
    assert await trimming_of(ledger).forget(now_ms=LATER_MS) == 0
    assert await is_known(ledger, inference)


async def test_what_comes_again_after_it_was_forgotten_posts_nothing(ledger: Ledger) -> None:
    settled = await captured(ledger)
    await ledger.settle(an_attribution(settled), time_ms=NOW_MS)
    void = await held(ledger)
    await ledger.void(void, "demo", time_ms=NOW_MS)
    late = await expired(ledger)
    await exported_and_trimmed(ledger)
    assert await trimming_of(ledger).forget(now_ms=LATER_MS) == 3
    before = await ledger.balances()
    until = NOW_MS + HOLD_MS
    again: list[Awaitable[Posted | None]] = [
        ledger.hold(settled, "demo", 1_000, expires_ms=until, time_ms=LATER_MS),
        ledger.capture(a_capture(settled), time_ms=LATER_MS),
        ledger.capture(a_capture(late), time_ms=LATER_MS),
        ledger.settle(an_attribution(settled), time_ms=LATER_MS),
        ledger.void(void, "demo", time_ms=LATER_MS),
    ]
    for call in again:
        with pytest.raises(LedgerRefused):
            await call
    assert await ledger.expire(late, time_ms=LATER_MS) is None
    assert await ledger.balances() == before
    assert await ledger.inference(settled) is None


async def test_a_late_settlement_keeps_its_inference_until_it_is_trimmed_itself(
    ledger: Ledger,
) -> None:
    inference = await captured(ledger)
    await exported_and_trimmed(ledger)
    at_work = trimming_of(ledger)
    assert await at_work.forget(now_ms=LATER_MS) == 0
    await ledger.settle(an_attribution(inference), time_ms=LATER_MS)
    assert await at_work.forget(now_ms=LATER_MS) == 0
    assert (await ledger.settle(an_attribution(inference), time_ms=LATER_MS)).duplicate
    await exported_and_trimmed(ledger)
    assert await at_work.forget(now_ms=LATER_MS) == 1


async def test_many_are_forgotten_a_page_at_a_time(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def one() -> None:
        await ledger.void(await held(ledger), "demo", time_ms=NOW_MS)

    await asyncio.gather(*(one() for _ in range(300)))
    await exported_and_trimmed(ledger)
    monkeypatch.setattr(trimming, "MARKS_AT_ONCE", 50)
    monkeypatch.setattr(trimming, "PAGES_A_ROUND", 2)
    at_work = trimming_of(ledger)
    forgotten = [await at_work.forget(now_ms=LATER_MS) for _ in range(20)]
    assert sum(forgotten) == 300
    assert 0 < forgotten[0] < 300
    redis, keys = ledger.inside
    assert not await redis.exists(keys.marks(DAY))


async def test_a_kill_while_forgetting_is_made_good_by_the_next_round(ledger: Ledger) -> None:
    inference = await expired(ledger)
    await exported_and_trimmed(ledger)

    def die(done: str) -> None:
        if done == "facts deleted":
            raise Killed

    with pytest.raises(Killed):
        await trimming_of(ledger, die).forget(now_ms=LATER_MS)
    assert await trimming_of(ledger).forget(now_ms=LATER_MS) == 1
    assert not await is_known(ledger, inference)


@pytest.mark.parametrize("step", ["forgotten time noted", "facts deleted", "marks deleted"])
async def test_no_kill_while_forgetting_lets_a_hold_post_again(ledger: Ledger, step: str) -> None:
    inference = await expired(ledger)
    await exported_and_trimmed(ledger)
    before = await ledger.balances()

    def die(done: str) -> None:
        if done == step:
            raise Killed

    with pytest.raises(Killed):
        await trimming_of(ledger, die).forget(now_ms=LATER_MS)
    until = NOW_MS + HOLD_MS
    again = ledger.hold(inference, "demo", 1_000, expires_ms=until, time_ms=NOW_MS)
    if step == "marks deleted":
        with pytest.raises(LedgerRefused, match="too old"):
            await again
    else:
        assert (await again).duplicate
    assert await ledger.balances() == before


async def test_a_hold_and_a_capture_as_old_as_what_is_forgotten_are_refused(
    ledger: Ledger, redis: Client
) -> None:
    waiting = await held(ledger)
    newest = event_id(NOW_MS + 1)
    await ledger.hold(newest, "demo", 1, expires_ms=NOW_MS + HOLD_MS, time_ms=NOW_MS)
    await ledger.void(newest, "demo", time_ms=NOW_MS)
    await exported_and_trimmed(ledger)
    assert await trimming_of(ledger).forget(now_ms=LATER_MS) == 1
    until = NOW_MS + HOLD_MS
    old: list[Awaitable[Posted]] = [
        ledger.hold(newest, "demo", 1, expires_ms=until, time_ms=NOW_MS),
        ledger.hold(event_id(NOW_MS + 1), "demo", 1, expires_ms=until, time_ms=NOW_MS),
        ledger.capture(a_capture(waiting), time_ms=NOW_MS),
    ]
    for call in old:
        with pytest.raises(LedgerRefused, match="too old"):
            await call
    await ledger.hold(event_id(NOW_MS + 2), "demo", 1, expires_ms=until, time_ms=NOW_MS)
    await ledger.deposit(event_id(NOW_MS), "demo", 1, time_ms=NOW_MS)
    assert await ledger.expire(waiting, time_ms=LATER_MS)  # nothing else has an age
    assert await redis.hget(ledger.inside[1].meta, "forgotten_ms") == str(NOW_MS + 1)


async def test_the_time_of_what_is_forgotten_never_goes_back(ledger: Ledger, redis: Client) -> None:
    await expired(ledger)
    await exported_and_trimmed(ledger)
    _, keys = ledger.inside
    await redis.hset(keys.meta, "forgotten_ms", NOW_MS + 1)
    assert await trimming_of(ledger).forget(now_ms=LATER_MS) == 1
    assert await redis.hget(keys.meta, "forgotten_ms") == str(NOW_MS + 1)


async def test_a_bookkeeper_trims_what_it_has_in_its_snapshot(
    ledger: Ledger, ledger_name: str
) -> None:
    upkeep = Upkeep(snapshot_entries=5, keep_entries=4, keep_days=0)
    bookkeeper = Bookkeeper(ledger, None, name=ledger_name, upkeep=upkeep)
    for _ in range(5):
        inference = await captured(ledger)
        await ledger.settle(an_attribution(inference), time_ms=NOW_MS)
        await ledger.note_exported((await ledger.unfinished()).journal_entries)
        findings = await bookkeeper.once(NOW_MS)
        assert findings.balanced, findings.found
    assert findings.figures.trimmed_seq > 0
    fresh = Bookkeeper(ledger, None, name=ledger_name, upkeep=upkeep)
    assert (await fresh.once(LATER_MS)).balanced
    assert (await ledger.check()).balanced


async def test_a_check_that_is_overtaken_by_trimming_begins_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ten_entries(ledger)
    fold, times = Journal._fold, 0

    async def overtaken(inside: Journal, base: Snapshot, *, up_to_seq: int | None = None) -> Fold:
        nonlocal times
        times += 1
        if times in trimmed_at:
            await ten_entries(ledger)
            await ready_to_trim(ledger)
            await trim(ledger)
        return await fold(inside, base, up_to_seq=up_to_seq)

    monkeypatch.setattr(Journal, "_fold", overtaken)
    trimmed_at: tuple[int, ...] = (1,)
    assert (await ledger.check()).balanced
    assert times == 2
    trimmed_at = (3, 4, 5)
    with pytest.raises(LedgerRefused, match="being trimmed"):
        await ledger.check()


async def test_nothing_to_begin_at_is_said(ledger: Ledger, redis: Client) -> None:
    await ten_entries(ledger)
    _, keys = ledger.inside
    await ready_to_trim(ledger)
    await trim(ledger)
    await redis.hdel(keys.meta, "snapshot", "snapshot_sha256")
    for call in (ledger.check(), ledger.rebuild()):
        with pytest.raises(LedgerRefused, match="no snapshot covers it"):
            await call
    assert await ledger.rebuild(base=Snapshot(9, {"funding": -9, "app:demo": 9}))


def test_the_names_of_keys_are_of_one_slot() -> None:
    keys = Keys("usd")
    assert keys.snapshot.startswith(keys.tag)
