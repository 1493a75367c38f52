"""What the worker does beside its jobs: late holds go back, old tokens go, gauges are set, and jobs
that were set aside come back when their adapter version is paid again."""

import asyncio
import logging
import time
from pathlib import Path
from typing import Protocol

from byline.errors import ArtifactError, LedgerError, LedgerFenced, LedgerRefused
from byline.program import pause
from byline.records import Posted
from byline.served import delete_old_served
from serving.telemetry import WorkerMetrics

logger = logging.getLogger("byline.worker")


class SweptLedger(Protocol):
    """What the sweep needs of the ledger."""

    async def expired_holds(self, *, now_ms: int, limit: int = 100) -> list[str]:
        """Inferences whose holds are past their time."""

    async def expire(self, inference: str, *, time_ms: int) -> Posted | None:
        """Give one of them back."""

    async def rejoin(self) -> None:
        """Take the ledger's epoch again."""


class SweptJobs(Protocol):
    """What the sweep needs of the jobs."""

    async def take_back(self) -> int:
        """Put jobs back whose adapter version is paid again."""

    async def waiting(self, *, now_ms: int) -> tuple[int, float]:
        """How many wait, and how old the oldest is."""


async def forget_old_tokens(served: Path, stop: asyncio.Event, seconds: float) -> None:
    """Delete what has waited too long for its attribution, every so many seconds."""
    while not stop.is_set():
        delete_old_served(served, now=time.time())
        await pause(stop, seconds)


class Sweep:
    """Sweeps one ledger. Any number may: each hold is given back once, by whoever is first."""

    def __init__(
        self, name: str, ledger: SweptLedger, jobs: SweptJobs, metrics: WorkerMetrics
    ) -> None:
        self._name = name
        self._ledger = ledger
        self._jobs = jobs
        self._metrics = metrics

    async def run(self, stop: asyncio.Event, seconds: float) -> None:
        """Sweep every so many seconds. A ledger that is away is met again at the next sweep."""
        fenced = False
        while not stop.is_set():
            try:
                if fenced:
                    await self._ledger.rejoin()
                await self.once(now_ms=time.time_ns() // 1_000_000)
                fenced = False
            except (LedgerError, ArtifactError) as problem:
                fenced = isinstance(problem, LedgerFenced)
                logger.warning("the sweep of %s: %s", self._name, problem)
            await pause(stop, seconds)

    async def once(self, *, now_ms: int) -> None:
        """One sweep."""
        for inference in await self._ledger.expired_holds(now_ms=now_ms):
            await self._expire(inference, now_ms)
        if taken := await self._jobs.take_back():
            logger.info("ledger %s: %d jobs are not paused any more", self._name, taken)
        length, age = await self._jobs.waiting(now_ms=now_ms)
        self._metrics.observe_queue(self._name, length, age)

    async def _expire(self, inference: str, now_ms: int) -> None:
        try:
            posted = await self._ledger.expire(inference, time_ms=now_ms)
        except LedgerFenced:
            raise
        except LedgerRefused as problem:  # one hold must not keep the others from going back
            logger.error("the hold of %s can't be given back: %s", inference, problem)  # noqa: TRY400
        else:
            if posted is not None and not posted.duplicate:
                self._metrics.holds_expired.inc()
