"""The worker on a real Redis-protocol server, with a model's answer made up.

What is captured is settled and the books balance; a raised epoch fences the worker only until it
has connected again; SIGTERM ends it well.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import uuid_utils
from redis.asyncio.client import Pipeline

from byline.attribution import Measurement, attribute
from byline.auditing.payment import Pause, PaymentPauses
from byline.home import Home
from byline.jobs import Jobs
from byline.ledger.ledger import Ledger
from byline.records import (
    Attribution,
    AttributionJob,
    AttributionState,
    Capture,
    Leg,
    ServedTokens,
    Usage,
    UsageSource,
)
from byline.redis_server import RedisServer, running_redis
from byline.served import served_inferences, write_served
from serving.settings import WorkerSettings
from serving.telemetry import WorkerMetrics
from serving.worker import work
from tests.ports import free_port

pytestmark = pytest.mark.anyio

VERSION = "healthcare@0123456789ab"
OTHER = "legal@0123456789ab"


def made_up(jobs: Sequence[AttributionJob]) -> list[Attribution]:
    scores = {"ann": 2.0, "bob": 1.0, "cem": -4.0}
    measured = Measurement(lift_nats=2.0, scores=scores, examples=())
    return [attribute(job, measured) for job in jobs]


@pytest.fixture
async def settings(tmp_path: Path) -> AsyncIterator[WorkerSettings]:
    server = RedisServer(tmp_path, unix_socket=tmp_path / "s.sock")
    with running_redis(server):
        yield WorkerSettings(
            home=tmp_path, redis_url=server.url, metrics_port=free_port(),
            sweep_seconds=0.1, retry_seconds=0.1,
        )  # fmt: skip


async def serve_one(ledger: Ledger, settings: WorkerSettings, version: str = VERSION) -> str:
    """One answered inference with two choices, held and captured."""
    inference = str(uuid_utils.uuid7())
    now_ms = time.time_ns() // 1_000_000
    folder = Home(settings.home).served
    served = write_served(folder, ServedTokens(inference, (1, 2), ((3,), (4,))))
    expires = now_ms + 60_000
    await ledger.hold(inference, "clinic", 1_000, expires_ms=expires, time_ms=now_ms)
    capture = Capture(
        inference=inference, application="clinic", held_nano=1_000, charge_nano=900,
        credits=(Leg("platform", 300),), pools=(400, 200), skipped=None, model="healthcare",
        served_by=version, adapter_version=version, index="healthcare@ba9876543210",
        usage=Usage(2, (2, 1), UsageSource.ENGINE), partial=False, tokens_sha256=served,
        policy="2026-11",
    )  # fmt: skip
    await ledger.capture(capture, time_ms=now_ms)
    return inference


async def funded(ledger: Ledger) -> Ledger:
    """The ledger, with money of the application that asks."""
    now_ms = time.time_ns() // 1_000_000
    await ledger.deposit(str(uuid_utils.uuid7()), "clinic", 10**6, time_ms=now_ms)
    return ledger


async def settled(ledger: Ledger, inference: str) -> tuple[Attribution, ...]:
    """The inference's attributions once none is pending."""
    async with asyncio.timeout(20):
        while True:
            record = await ledger.inference(inference)
            assert record is not None
            states = {one.state for one in record.attributions}
            if AttributionState.PENDING not in states:
                return record.attributions
            await asyncio.sleep(0.05)


async def opened(settings: WorkerSettings) -> Ledger:
    return await Ledger.open(settings.redis_url)


async def test_what_is_captured_is_settled_also_after_a_fence(settings: WorkerSettings) -> None:
    metrics = WorkerMetrics()
    ledger = await funded(await opened(settings))
    task = asyncio.create_task(work(settings, made_up, metrics))

    first, second = await settled(ledger, await serve_one(ledger, settings))
    assert {share.contributor: share.nano for share in first.shares} == {"ann": 267, "bob": 133}
    assert second.pool_nano == 200

    await ledger.rebuild()  # raises the epoch: the worker's next post is fenced
    await ledger.close()
    ledger = await opened(settings)
    await settled(ledger, await serve_one(ledger, settings))

    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(20):
        await task
    books = await ledger.check()
    assert books.balanced
    balances = await ledger.balances()
    await ledger.close()
    assert balances["contrib:ann"] + balances["contrib:bob"] == 2 * 600
    assert not any(account.startswith(("open:", "hold:")) for account in balances)
    assert not served_inferences(Home(settings.home).served)
    posted = {"operation": "settle", "outcome": "posted"}
    assert metrics.registry.get_sample_value("byline_ledger_posts_total", posted) == 4


STEPS = ("xreadgroup", "xadd", "xack", "none")


@pytest.mark.parametrize("at", STEPS)
async def test_a_paused_versions_money_waits_open_and_is_paid_once_after_the_word(
    settings: WorkerSettings, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the worker dies between claiming a paused job and setting it aside."""
    pauses = PaymentPauses(Home(settings.home).payment)
    pauses.write({VERSION: Pause(1, "payout error 0.73")})
    ledger = await funded(await opened(settings))
    held = [await serve_one(ledger, settings) for _ in range(3)]
    if at != "none":
        await die_setting_aside(settings, at, monkeypatch)
    metrics = WorkerMetrics()
    task = asyncio.create_task(work(settings, made_up, metrics))
    for _ in range(2):  # others go on, before and after
        await settled(ledger, await serve_one(ledger, settings, OTHER))
        held.append(await serve_one(ledger, settings))
    await asyncio.sleep(1)  # ten sweeps
    balances = await ledger.balances()
    assert sum(nano for name, nano in balances.items() if name.startswith("open:")) == 5 * 600
    for inference in held:
        record = await ledger.inference(inference)
        assert record is not None
        assert {one.state for one in record.attributions} == {AttributionState.PENDING}
    assert (await ledger.check()).balanced
    assert metrics.registry.get_sample_value("byline_attribution_queue_length") == 0
    gauge = "byline_payment_paused"
    assert metrics.registry.get_sample_value(gauge, {"adapter_version": VERSION}) == 1

    pauses.resume(VERSION, now_ms=1)
    for inference in held:
        assert [one.pool_nano for one in await settled(ledger, inference)] == [400, 200]
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(20):
        await task
    assert (await ledger.check()).balanced
    balances = await ledger.balances()
    await ledger.close()
    assert balances["contrib:ann"] + balances["contrib:bob"] == 7 * 600
    assert not any(account.startswith("open:") for account in balances)
    assert metrics.registry.get_sample_value(gauge, {"adapter_version": VERSION}) == 0
    assert not served_inferences(Home(settings.home).served)


class Killed(BaseException):
    """The worker died here."""


async def die_setting_aside(
    settings: WorkerSettings, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of the same name that dies when it has claimed, or anywhere in setting aside."""
    jobs = await Jobs.open(
        settings.redis_url, consumer=settings.consumer_name, paused=lambda: [VERSION]
    )

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if at == "xreadgroup":  # claimed, and no more
            patch.setattr(Jobs, "_set_aside", die)
        else:
            patch.setattr(Pipeline, at, die)
        with pytest.raises(Killed):
            await jobs.claim(count=8, block_ms=0)
    await jobs.close()


async def test_each_job_is_settled_in_its_own_ledger(settings: WorkerSettings) -> None:
    settings = settings.model_copy(update={"ledgers": ("usd-0", "usd-1")})
    metrics = WorkerMetrics()
    ledgers = [
        await funded(await Ledger.open(settings.redis_url, name=name)) for name in settings.ledgers
    ]
    asked = [(ledger, await serve_one(ledger, settings)) for ledger in ledgers for _ in range(3)]
    task = asyncio.create_task(work(settings, made_up, metrics))
    for ledger, inference in asked:
        await settled(ledger, inference)
    for ledger in ledgers:  # it waits for both
        await settled(ledger, await serve_one(ledger, settings))
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(20):
        await task
    for ledger in ledgers:
        assert (await ledger.check()).balanced
        balances = await ledger.balances()
        assert balances["contrib:ann"] + balances["contrib:bob"] == 4 * 600
        await ledger.close()
    assert metrics.registry.get_sample_value("byline_attribution_seconds_count") == 16
    assert not served_inferences(Home(settings.home).served)
