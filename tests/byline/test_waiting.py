"""A rebuild makes the lists of holds and pools anew, and a job for each open pool that has none."""

import json
from dataclasses import replace

import pytest

from byline.bookkeeping.bookkeeper import Bookkeeper
from byline.errors import LedgerRefused
from byline.jobs import Jobs
from byline.ledger import journal, waiting
from byline.ledger.ledger import Ledger
from byline.ledger.waiting import Waiting
from byline.posting.keys import Keys
from byline.posting.redis_client import Client
from tests.byline.cases import (
    HOLD_MS,
    NOW_MS,
    a_capture,
    an_attribution,
    captured,
    event_id,
    held,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def keys(ledger_name: str) -> Keys:
    return Keys(ledger_name)


async def lists(redis: Client, keys: Keys) -> list[list[tuple[str, float]]]:
    return [await redis.zrange(key, 0, -1, withscores=True) for key in (keys.holds, keys.pools)]


async def captured_later(ledger: Ledger) -> str:
    """An inference with two pools, captured a while after its time."""
    inference = await held(ledger)
    await ledger.capture(a_capture(inference, pools=(200, 0, 300)), time_ms=NOW_MS + 60_000)
    return inference


async def test_a_rebuild_makes_both_lists_as_they_were(
    ledger: Ledger, ledger_name: str, redis: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PAGE", 2)
    for _ in range(3):
        await held(ledger)
        await captured_later(ledger)
    voided = await held(ledger)
    await ledger.void(voided, "demo", time_ms=NOW_MS)
    before = await lists(redis, keys)
    holds, pools = before
    assert (len(holds), len(pools)) == (3, 6)
    await redis.zrem(keys.holds, holds[0][0])
    await redis.zrem(keys.pools, pools[1][0])
    await redis.zadd(keys.holds, {voided: 5, holds[1][0]: 5})
    await redis.zadd(keys.pools, {f"open:{voided}": 5})
    await ledger.rebuild()
    assert await lists(redis, keys) == before
    assert (await Bookkeeper(ledger, None, name=ledger_name).once(NOW_MS)).balanced


async def test_a_rebuild_empties_lists_of_what_is_finished(
    ledger: Ledger, redis: Client, keys: Keys
) -> None:
    await redis.zadd(keys.holds, {event_id(): 5})
    await redis.zadd(keys.pools, {f"open:{event_id()}": 5})
    await ledger.rebuild()
    assert await lists(redis, keys) == [[], []]


async def test_where_the_facts_are_lost_the_time_of_the_id_stands_for_them(
    ledger: Ledger, redis: Client, keys: Keys
) -> None:
    waits, open_ = await held(ledger), await captured_later(ledger)
    await redis.delete(keys.inference(waits), keys.inference(open_), keys.holds, keys.pools)
    await redis.delete(keys.jobs)
    await ledger.rebuild()
    assert await lists(redis, keys) == [
        [(waits, NOW_MS)], [(f"open:{open_}", NOW_MS), (f"open:{open_}/2", NOW_MS)],
    ]  # fmt: skip
    assert await Waiting(redis, keys).enqueue_lost_jobs() == 0  # nobody knows what was asked


async def test_a_rebuilt_hold_expires_and_a_rebuilt_pool_is_settled(
    ledger: Ledger, redis: Client, keys: Keys
) -> None:
    waits, open_ = await held(ledger), await captured(ledger)
    await redis.delete(keys.holds, keys.pools)
    await ledger.rebuild()
    (due,) = await ledger.expired_holds(now_ms=NOW_MS + HOLD_MS)
    assert due == waits
    assert await ledger.expire(due, time_ms=NOW_MS + HOLD_MS)
    await ledger.settle(an_attribution(open_), time_ms=NOW_MS)
    assert await lists(redis, keys) == [[], []]


async def test_a_rebuild_that_is_given_up_leaves_the_lists_alone(
    ledger: Ledger, redis: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def grow(*_: object) -> None:
        await redis.xadd(keys.journal, {"e": "{}"}, id="9-1")

    await held(ledger)
    monkeypatch.setattr(journal.Journal, "_write_folded", grow)
    before = await lists(redis, keys)
    await redis.zadd(keys.pools, {"open:x": 5})
    with pytest.raises(LedgerRefused, match="grew meanwhile"):
        await ledger.rebuild()
    assert await lists(redis, keys) == [before[0], [("open:x", 5)]]


async def test_a_lost_job_is_made_again_as_it_was(
    ledger: Ledger, redis: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PAGE", 2)
    for _ in range(3):
        await captured_later(ledger)
    jobs = [fields["job"] for _, fields in await redis.xrange(keys.jobs)]
    assert len(jobs) == 6
    at_work = Waiting(redis, keys)
    assert await at_work.enqueue_lost_jobs() == 0
    first, _, third, *_ = await redis.xrange(keys.jobs)
    await redis.xdel(keys.jobs, first[0], third[0])
    assert await at_work.enqueue_lost_jobs() == 2
    assert await at_work.enqueue_lost_jobs() == 0
    again = [fields["job"] for _, fields in await redis.xrange(keys.jobs)]
    assert sorted(again) == sorted(jobs)
    assert again[-2:] == [jobs[0], jobs[2]] or again[-2:] == [jobs[2], jobs[0]]


async def test_a_job_that_is_claimed_is_not_made_again(
    ledger: Ledger, ledger_name: str, redis_url: str, redis: Client, keys: Keys
) -> None:
    inference = await captured_later(ledger)
    jobs = await Jobs.open(redis_url, consumer="one", name=ledger_name)
    first, second = await jobs.claim(count=2, block_ms=0)
    assert await Waiting(redis, keys).enqueue_lost_jobs() == 0
    await ledger.settle(an_attribution(inference, pool=200), time_ms=NOW_MS)
    await jobs.acknowledge(first)
    await jobs.acknowledge(second)  # without having settled it
    assert await Waiting(redis, keys).enqueue_lost_jobs() == 1
    (again,) = await jobs.claim(count=9, block_ms=0)
    await jobs.close()
    assert replace(again, message_id=second.message_id) == second


async def test_a_job_says_when_its_inference_was_captured(
    ledger: Ledger, redis: Client, keys: Keys
) -> None:
    await captured_later(ledger)
    await redis.delete(keys.jobs)
    await Waiting(redis, keys).enqueue_lost_jobs()
    times = {
        json.loads(fields["job"])["enqueued_ms"] for _, fields in await redis.xrange(keys.jobs)
    }
    assert times == {NOW_MS + 60_000}
