"""The worker: claims attribution jobs, invents attributions, settles, acknowledges; and sweeps."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from byline.errors import InsufficientFunds, LedgerFenced, LedgerRefused, LedgerUnavailable
from byline.jobs import Jobs
from byline.ledger.ledger import Ledger
from byline.records import Attribution, AttributionJob
from loadtests.faults.actors.stage import IDLE_ROUNDS, PAUSE_SECONDS, Part, Stage, act, opened
from loadtests.faults.messages import Acknowledged, Open, Perform, Refused, Unknown
from loadtests.faults.operations import attribution_of, legs_of_settle

CONSUMER = "worker"
CLAIMED_AT_ONCE = 64
SWEPT_AT_ONCE = 100
TWICE = "settle twice under a new id"
MORE = "settle more than its pool"
TOO_SOON = "acknowledge before settling"


class Worker:
    """Takes a job only out of the stream when what it says is settled."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._ledger: Ledger | None = None
        self._jobs: Jobs | None = None
        self._now_ms = 0

    async def open(self, command: Open) -> None:
        """Connect under the same consumer's name as the process before: its jobs are ours."""
        if self._ledger is not None:
            await self._ledger.close()
        if self._jobs is not None:
            await self._jobs.close()
        self._ledger = await opened(command, self._stage.part)
        self._url = command.url
        self._jobs = await Jobs.open(command.url, consumer=CONSUMER)

    async def perform(self, command: Perform) -> dict[str, int]:
        """Settle until nothing waits; then give back the holds whose time is over."""
        self._now_ms = command.now_ms
        settled = swept = failures = idle = 0
        while failures < command.tries and idle < IDLE_ROUNDS:
            try:
                settling = await self._settle_some()
                sweeping = 0 if settling else await self._sweep()
                settled, swept = settled + settling, swept + sweeping
                if not settling and not sweeping:
                    idle += 1
                    await asyncio.sleep(PAUSE_SECONDS)
            except (LedgerUnavailable, LedgerFenced) as problem:
                failures += 1
                await asyncio.sleep(PAUSE_SECONDS)
                with suppress(LedgerUnavailable):
                    await self._again(fenced=isinstance(problem, LedgerFenced))
        return {"settled": settled, "swept": swept}

    async def _again(self, *, fenced: bool) -> None:
        """Take the ledger's epoch, and the jobs that were claimed and not done."""
        assert self._ledger is not None
        assert self._jobs is not None
        if fenced:
            await self._ledger.rejoin()
        await self._jobs.close()
        self._jobs = await Jobs.open(self._url, consumer=CONSUMER)

    async def _settle_some(self) -> int:
        assert self._jobs is not None
        jobs = await self._jobs.claim(count=CLAIMED_AT_ONCE, block_ms=0)
        self._stage.step("claimed")
        results = await asyncio.gather(*map(self._handle, jobs), return_exceptions=True)
        for problem in results:
            if isinstance(problem, BaseException):
                raise problem
        return len(jobs)

    async def _handle(self, job: AttributionJob) -> None:
        assert self._jobs is not None
        attribution = attribution_of(self._stage.part.seed, job)
        if self._stage.part.defect == MORE:
            attribution = _of_more(attribution)
        self._stage.step("attributed")
        if self._stage.part.defect == TOO_SOON:
            await self._jobs.acknowledge(job)
            self._stage.step("acknowledged")
        await self._settle(attribution)
        self._stage.step("settled")
        if self._stage.part.defect == TWICE:
            await self._settle(replace(attribution, ordinal=attribution.ordinal + 7))
        await self._jobs.acknowledge(job)
        self._stage.step("acknowledged")

    async def _settle(self, attribution: Attribution) -> None:
        assert self._ledger is not None
        key = f"{attribution.inference}/settle/{attribution.ordinal}"
        try:
            posted = await self._ledger.settle(attribution, time_ms=self._now_ms)
        except LedgerFenced:
            raise
        except LedgerUnavailable:
            self._stage.report(Unknown(key))
            raise
        except (LedgerRefused, InsufficientFunds) as problem:
            self._stage.report(Refused(key, type(problem).__name__, str(problem)))
            return
        self._stage.report(
            Acknowledged(
                key, posted.seq, posted.duplicate, posted.late, legs_of_settle(attribution)
            )
        )

    async def _sweep(self) -> int:
        assert self._ledger is not None
        expired = await self._ledger.expired_holds(now_ms=self._now_ms, limit=SWEPT_AT_ONCE)
        self._stage.step("looked for expired holds")
        for inference in expired:
            key = f"{inference}/expire/0"
            try:
                posted = await self._ledger.expire(inference, time_ms=self._now_ms)
            except LedgerUnavailable:
                self._stage.report(Unknown(key))
                raise
            if posted is not None:
                self._stage.report(Acknowledged(key, posted.seq, posted.duplicate, posted.late))
            self._stage.step("expired")
        return len(expired)


def _of_more(attribution: Attribution) -> Attribution:
    """What a mutant settles: one nano more than the pool, to `unattributed`."""
    more = replace(attribution, pool_nano=attribution.pool_nano + 1)
    return replace(more, unattributed_nano=attribution.unattributed_nano + 1)


def main(connection: "Connection[Any, Any]", part: Part) -> None:
    """Run as an actor's process."""
    act(connection, part, Worker)
