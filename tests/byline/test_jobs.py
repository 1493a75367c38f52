"""A job waits until it is acknowledged, whichever worker dies with it."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from byline import jobs as jobs_module
from byline.errors import ArtifactError, LedgerUnavailable
from byline.jobs import Jobs
from byline.ledger.ledger import Ledger
from byline.ledger.waiting import Waiting
from tests.byline.cases import ADAPTER, NOW_MS, captured

pytestmark = pytest.mark.anyio


@pytest.fixture
async def jobs(redis_url: str, ledger_name: str) -> AsyncIterator[Jobs]:
    opened = await Jobs.open(redis_url, consumer="first", name=ledger_name)
    yield opened
    await opened.close()


async def test_each_choice_with_a_pool_is_one_job(ledger: Ledger, jobs: Jobs) -> None:
    inference = await captured(ledger, (300, 0, 200))
    claimed = await jobs.claim(count=10, block_ms=0)
    assert [(job.inference, job.ordinal, job.pool_nano) for job in claimed] == [
        (inference, 0, 300), (inference, 2, 200),
    ]  # fmt: skip
    assert claimed[0].adapter_version == ADAPTER
    assert claimed[0].attempts == 1
    assert await jobs.claim(count=10, block_ms=1) == []


async def test_jobs_captured_before_any_worker_are_not_missed(
    ledger: Ledger, redis_url: str, ledger_name: str
) -> None:
    await captured(ledger)
    jobs = await Jobs.open(redis_url, consumer="late", name=ledger_name)
    assert len(await jobs.claim(count=1, block_ms=1)) == 1
    await jobs.close()


async def test_an_acknowledged_job_is_gone(ledger: Ledger, jobs: Jobs) -> None:
    await captured(ledger)
    await captured(ledger)
    first, second = await jobs.claim(count=2, block_ms=1)
    assert await jobs.waiting(now_ms=NOW_MS + 1_500) == (2, 1.5)
    await jobs.acknowledge(first)
    await jobs.acknowledge(first)
    assert await jobs.waiting(now_ms=NOW_MS - 1) == (1, 0.0)
    await jobs.acknowledge(second)
    assert await jobs.waiting(now_ms=NOW_MS) == (0, 0.0)


async def test_a_restarted_worker_finds_its_own_jobs_at_once(
    ledger: Ledger, jobs: Jobs, redis_url: str, ledger_name: str
) -> None:
    await captured(ledger)
    (job,) = await jobs.claim(count=1, block_ms=1)
    again = await Jobs.open(redis_url, consumer="first", name=ledger_name)
    (taken,) = await again.claim(count=1, block_ms=1)
    assert (taken.message_id, taken.attempts) == (job.message_id, 2)
    assert await again.claim(count=1, block_ms=1) == []
    await again.close()


async def test_a_dead_workers_jobs_go_to_another(
    ledger: Ledger, jobs: Jobs, redis_url: str, ledger_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await captured(ledger)
    (job,) = await jobs.claim(count=1, block_ms=1)
    other = await Jobs.open(redis_url, consumer="second", name=ledger_name)
    assert await other.claim(count=1, block_ms=1) == []  # it may still be at work
    monkeypatch.setattr(jobs_module, "JOB_IDLE_SECONDS", 0.0)
    (taken,) = await other.claim(count=1, block_ms=1)
    assert (taken.message_id, taken.attempts) == (job.message_id, 2)
    await other.close()


async def test_each_arrival_is_told_once_and_claims_nothing(ledger: Ledger, jobs: Jobs) -> None:
    async def told_within(seconds: float) -> bool:
        began = time.monotonic()
        await jobs.arrival(block_ms=2_000)
        return time.monotonic() - began < seconds

    await captured(ledger)
    assert await told_within(1.0)
    assert not await told_within(1.0)
    waiting = asyncio.create_task(told_within(1.0))
    await asyncio.sleep(0.05)
    await captured(ledger)
    assert await waiting
    assert len(await jobs.claim(count=10, block_ms=0)) == 2


async def test_a_paused_versions_jobs_wait_aside_and_come_back_as_new_ones(
    ledger: Ledger, redis_url: str, ledger_name: str
) -> None:
    paused = {ADAPTER}
    jobs = await Jobs.open(redis_url, consumer="first", name=ledger_name, paused=lambda: paused)
    first, second = await captured(ledger), await captured(ledger)
    assert await jobs.claim(count=1, block_ms=0) == []  # both, one after the other
    assert await jobs.waiting(now_ms=NOW_MS) == (0, 0.0)
    assert await jobs.take_back() == 0
    waiting = Waiting(ledger._redis, ledger._keys)
    assert await waiting.restore_jobs() == (0, [])  # the bookkeeper knows where they are
    paused.clear()
    other = await Jobs.open(redis_url, consumer="second", name=ledger_name, paused=lambda: paused)
    assert await other.take_back() == 2
    assert await other.take_back() == 0
    claimed = await other.claim(count=10, block_ms=0)
    assert [(job.inference, job.attempts, job.enqueued_ms) for job in claimed] == [
        (first, 1, NOW_MS), (second, 1, NOW_MS),
    ]  # fmt: skip
    await jobs.close()
    await other.close()


async def test_others_jobs_go_on_beside_more_paused_ones_than_are_claimed(
    ledger: Ledger, redis_url: str, ledger_name: str
) -> None:
    jobs = await Jobs.open(
        redis_url, consumer="first", name=ledger_name, paused=lambda: ["paused@0123456789ab"]
    )
    job = '"adapter_version":"paused@0123456789ab"'
    await captured(ledger)
    ((_, fields),) = await ledger._redis.xrange(ledger._keys.jobs)
    mine = fields["job"].replace(f'"adapter_version":"{ADAPTER}"', job)
    assert mine != fields["job"]
    for _ in range(jobs_module.BACK_MAX + 5):
        await ledger._redis.xadd(ledger._keys.jobs, {"job": mine})
    inference = await captured(ledger)
    (before,) = await jobs.claim(count=1, block_ms=0)
    assert before.adapter_version == ADAPTER
    (after,) = await jobs.claim(count=2, block_ms=0)
    assert after.inference == inference
    free = await Jobs.open(redis_url, consumer="second", name=ledger_name)
    assert await free.take_back() == jobs_module.BACK_MAX + 5
    await jobs.close()
    await free.close()


async def test_who_is_paid_must_be_known_before_a_job_is_claimed(
    ledger: Ledger, redis_url: str, ledger_name: str
) -> None:
    def unknown() -> list[str]:
        raise ArtifactError("paused.json can't be read")

    await captured(ledger)
    jobs = await Jobs.open(redis_url, consumer="first", name=ledger_name, paused=unknown)
    with pytest.raises(ArtifactError):
        await jobs.claim(count=1, block_ms=0)
    free = await Jobs.open(redis_url, consumer="second", name=ledger_name)
    (job,) = await free.claim(count=1, block_ms=0)
    assert job.attempts == 1
    await jobs.close()
    await free.close()


async def test_no_server_is_unavailable(ledger_name: str) -> None:
    with pytest.raises(LedgerUnavailable):
        await Jobs.open("unix:///nothing.sock", consumer="first", name=ledger_name)


async def test_a_name_that_is_no_stream_is_not_opened(
    ledger: Ledger, redis_url: str, ledger_name: str
) -> None:
    await ledger._redis.set(ledger._keys.jobs, "not ours")
    with pytest.raises(LedgerUnavailable, match="WRONGTYPE"):
        await Jobs.open(redis_url, consumer="first", name=ledger_name)
