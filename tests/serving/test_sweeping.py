"""Beside its jobs the worker gives late holds back, deletes old tokens and sets the gauges."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from byline.errors import LedgerFenced, LedgerRefused, LedgerUnavailable
from byline.limits import SERVED_TOKENS_DAYS_MAX
from byline.program import pause
from byline.records import Posted, ServedTokens
from byline.served import served_bytes
from serving.sweeping import Sweep, forget_old_tokens
from serving.telemetry import WorkerMetrics

pytestmark = pytest.mark.anyio

NOW_MS = 1_800_000_000_000


class LedgerInMemory:
    """Late holds with what expiring each of them does."""

    def __init__(self, holds: Mapping[str, Posted | None | Exception]) -> None:
        self.holds = holds
        self.away = 0  # how many looks at it fail
        self.rejoined = 0
        self.stop: asyncio.Event | None = None

    async def expired_holds(self, *, now_ms: int, limit: int = 100) -> list[str]:
        if self.away:
            self.away -= 1
            raise LedgerUnavailable("no answer")
        if self.stop is not None:
            self.stop.set()
        return list(self.holds)[:limit]

    async def rejoin(self) -> None:
        self.rejoined += 1
        self.holds = {"a": Posted(1)}

    async def expire(self, inference: str, *, time_ms: int) -> Posted | None:
        found = self.holds[inference]
        if isinstance(found, Exception):
            raise found
        return found


class JobsInMemory:
    """Two jobs wait, the older one for three and a half seconds; one was paused."""

    async def take_back(self) -> int:
        return 1

    async def waiting(self, *, now_ms: int) -> tuple[int, float]:
        return 2, 3.5


def sweep_of(ledger: LedgerInMemory) -> tuple[Sweep, WorkerMetrics]:
    metrics = WorkerMetrics()
    return Sweep("usd", ledger, JobsInMemory(), metrics), metrics


async def test_late_holds_go_back_and_each_is_counted_once() -> None:
    refused = LedgerRefused("it is odd")
    holds = {
        "a": Posted(1),
        "b": None,
        "c": Posted(2, duplicate=True),
        "d": refused,
        "e": Posted(3),
    }
    sweep, metrics = sweep_of(LedgerInMemory(holds))
    await sweep.once(now_ms=NOW_MS)
    assert metrics.registry.get_sample_value("byline_holds_expired_total") == 2


async def test_the_gauges_say_what_waits() -> None:
    sweep, metrics = sweep_of(LedgerInMemory({}))
    await sweep.once(now_ms=NOW_MS)
    expected = {
        "byline_attribution_queue_length": 2,
        "byline_attribution_queue_age_seconds": 3.5,
    }
    found = {name: metrics.registry.get_sample_value(name) for name in expected}
    assert found == expected


async def test_served_tokens_do_not_outlive_their_days(tmp_path: Path) -> None:
    kept = ServedTokens("0192f000-0000-7000-8000-000000000001", (1,), ((2,),))
    oldest_ms = round((time.time() - SERVED_TOKENS_DAYS_MAX * 86_400) * 1_000)
    names = []
    for born_ms in (oldest_ms - 60_000, oldest_ms + 60_000):
        digits = f"{born_ms:012x}"
        names.append(f"{digits[:8]}-{digits[8:]}-7000-8000-000000000001.tokens")
        (tmp_path / names[-1]).write_bytes(served_bytes(kept) + b"\n")
    stop = asyncio.Event()
    asyncio.get_running_loop().call_soon(stop.set)
    await forget_old_tokens(tmp_path, stop, 60)
    assert [path.name for path in tmp_path.iterdir()] == names[1:]


async def test_a_ledger_that_is_away_is_swept_the_next_time() -> None:
    ledger = LedgerInMemory({})
    ledger.away, ledger.stop = 2, asyncio.Event()
    sweep, _ = sweep_of(ledger)
    async with asyncio.timeout(5):
        await sweep.run(ledger.stop, 0.01)
    assert ledger.away == 0


async def test_a_fenced_sweep_rejoins_before_the_next() -> None:
    ledger = LedgerInMemory({"a": LedgerFenced("the epoch is 2")})
    sweep, metrics = sweep_of(ledger)
    stop = asyncio.Event()
    running = asyncio.create_task(sweep.run(stop, 0.01))
    async with asyncio.timeout(5):
        while not ledger.rejoined:
            await asyncio.sleep(0.01)
    stop.set()
    await running
    assert metrics.registry.get_sample_value("byline_holds_expired_total") == 1


async def test_a_pause_ends_with_its_time_or_with_the_stop() -> None:
    stop = asyncio.Event()
    assert not await pause(stop, 0.01)
    stop.set()
    assert await pause(stop, 60)
