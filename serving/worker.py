"""The attribution worker: claims a job, attributes, settles, forgets the tokens, acknowledges.

Every step may be repeated: a job stays in the stream until it is acknowledged, `settle` pays once,
and a worker that dies leaves its job to the next one. Any number of workers may run. In one program
each ledger has a worker of its own; they take turns at the model.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Protocol

from byline.attribution import failed
from byline.auditing.payment import PaymentPauses
from byline.auditing.plan import read_plan
from byline.errors import (
    ArtifactError,
    BylineError,
    KeyConflict,
    LedgerError,
    LedgerFenced,
    LedgerFrozen,
    LedgerUnavailable,
)
from byline.home import Home
from byline.jobs import Jobs
from byline.ledger.shards import Shards
from byline.limits import JOB_ATTEMPTS_MAX
from byline.metrics_server import metrics_server
from byline.program import ending_clearly, pause, settings_of, until_signalled
from byline.records import (
    Attribution,
    AttributionJob,
    AttributionState,
    InferenceRecord,
    Posted,
)
from byline.registry import read_release
from byline.served import erase_served
from serving.recipes import share_cores
from serving.settings import WorkerSettings
from serving.sweeping import Sweep, forget_old_tokens
from serving.telemetry import WorkerMetrics

ARRIVAL_BLOCK_MS = 1_000  # a stop is noticed after this at the latest
JOBS_AT_ONCE = 8  # of those that wait: a third faster than one by one; the first waits for the last
logger = logging.getLogger("byline.worker")


class SettlingLedger(Protocol):
    """What the worker needs of the ledger."""

    async def settle(self, attribution: Attribution, *, time_ms: int) -> Posted:
        """Close the choice's open pool."""

    async def rejoin(self) -> None:
        """Take the ledger's epoch again."""

    async def inference(self, inference: str) -> InferenceRecord | None:
        """The record of a captured inference."""


class JobQueue(Protocol):
    """What the worker needs of the jobs."""

    async def claim(self, *, count: int, block_ms: int) -> list[AttributionJob]:
        """Jobs to do."""

    async def arrival(self, *, block_ms: int) -> None:
        """Wait for the next one."""

    async def acknowledge(self, job: AttributionJob) -> None:
        """Forget a job."""


class Worker:
    """Jobs of one ledger, those that wait together, until `stop` is set.

    Workers that share a `turn` claim and attribute one after the other, and wait for their ledgers
    side by side: one that is away keeps no other's jobs waiting.
    """

    def __init__(
        self,
        ledger: SettlingLedger,
        jobs: JobQueue,
        attribute: Callable[[Sequence[AttributionJob]], Awaitable[list[Attribution]]],
        forget_tokens: Callable[[AttributionJob], None],
        metrics: WorkerMetrics,
        turn: asyncio.Lock,
        retry_seconds: float = 1.0,
    ) -> None:
        self._ledger = ledger
        self._jobs = jobs
        self._attribute = attribute
        self._forget_tokens = forget_tokens
        self._metrics = metrics
        self._turn = turn
        self._retry_seconds = retry_seconds

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; what is in hand is finished first."""
        waits = False  # for its ledger or for a job: outside its turn
        while not stop.is_set():
            try:
                if waits:
                    await self._jobs.arrival(block_ms=ARRIVAL_BLOCK_MS)
                waits = not await self._work(stop)
            # The job stays in the stream and comes again; who is paid must be known before.
            except (LedgerError, ArtifactError) as problem:
                waits = True
                logger.warning("%s; waiting", problem)
                await pause(stop, self._retry_seconds)

    async def _work(self, stop: asyncio.Event) -> bool:
        """Some jobs to their end, or to their next attempt; False where there was none."""
        async with self._turn:  # claimed no sooner: others take over what is claimed and not done
            stopped = stop.is_set()
            claimed = [] if stopped else await self._jobs.claim(count=JOBS_AT_ONCE, block_ms=0)
            together = await self._together([job for job in claimed if job.attempts == 1])
            attributions = [together.get(job) or await self._attributed(job) for job in claimed]
        for job, attribution in zip(claimed, attributions, strict=True):
            if attribution is not None and await self._settle(attribution, stop):
                await self._finish(job)
        return bool(claimed)

    async def _together(self, jobs: Sequence[AttributionJob]) -> dict[AttributionJob, Attribution]:
        """The attributions of several new jobs; none where one fails: then each is tried by itself.

        A job that was tried before may be what its worker died of, so it is in no such company.
        """
        if len(jobs) < 2:
            return {}
        found = await self._tried(jobs)
        return {} if isinstance(found, Exception) else dict(zip(jobs, found, strict=True))

    async def _attributed(self, job: AttributionJob) -> Attribution | None:
        """What is to be settled; None where it was settled before, or will be tried again."""
        if job.attempts > 1 and await self._is_settled(job):
            await self._finish(job)
            return None
        return await self._attempt(job)

    async def _attempt(self, job: AttributionJob) -> Attribution | None:
        """The job's attribution; None where it failed and will be tried again."""
        if job.attempts > JOB_ATTEMPTS_MAX:  # whoever tried died of it
            return failed(job, f"given up after {job.attempts - 1} attempts")
        found = await self._tried([job])
        if not isinstance(found, Exception):
            return found[0]
        if job.attempts < JOB_ATTEMPTS_MAX:
            return None  # left unacknowledged: it comes again when it has been idle
        known = isinstance(found, BylineError)
        return failed(job, str(found) if known else f"internal error: {type(found).__name__}")

    async def _tried(self, jobs: Sequence[AttributionJob]) -> list[Attribution] | Exception:
        """The jobs' attributions, or what went wrong, which is logged."""
        began = time.perf_counter()
        try:
            return await self._attribute(jobs)
        except Exception as problem:  # the last resort: a bug must not end the worker
            names = ", ".join(f"{job.inference}/{job.ordinal}" for job in jobs)
            logger.exception("attribution failed, attempt %d: %s", jobs[0].attempts, names)
            return problem
        finally:
            for _ in jobs:
                self._metrics.attribution_seconds.observe((time.perf_counter() - began) / len(jobs))

    async def _settle(self, attribution: Attribution, stop: asyncio.Event) -> bool:
        """Post it, however long the ledger is away; False if the worker was stopped meanwhile."""
        fenced = False
        while True:
            try:
                if fenced:
                    await self._ledger.rejoin()
                await self._ledger.settle(attribution, time_ms=_now_ms())
            except KeyConflict:  # another worker settled it, with other last digits
                return True
            except (LedgerUnavailable, LedgerFrozen, LedgerFenced) as problem:
                fenced = isinstance(problem, LedgerFenced)
                logger.warning("settling %s: %s; waiting", attribution.inference, problem)
                if await pause(stop, self._retry_seconds):
                    return False
            else:
                self._metrics.observe_settled(attribution)
                return True

    async def _is_settled(self, job: AttributionJob) -> bool:
        record = await self._ledger.inference(job.inference)
        if record is None:
            return False
        return record.attributions[job.ordinal].state is not AttributionState.PENDING

    async def _finish(self, job: AttributionJob) -> None:
        """Delete the served tokens when every choice is settled, then forget the job."""
        record = await self._ledger.inference(job.inference)
        pending = AttributionState.PENDING
        if record is not None and all(a.state is not pending for a in record.attributions):
            self._forget_tokens(job)
        await self._jobs.acknowledge(job)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def work(
    settings: WorkerSettings,
    attribute: Callable[[Sequence[AttributionJob]], list[Attribution]],
    metrics: WorkerMetrics,
) -> None:
    """Work until SIGTERM or SIGINT."""
    stop, loop = until_signalled(), asyncio.get_running_loop()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="attribution") as thread:

        async def in_thread(jobs: Sequence[AttributionJob]) -> list[Attribution]:
            return await loop.run_in_executor(thread, attribute, jobs)

        with metrics_server(metrics.registry, settings.metrics_host, settings.metrics_port):
            await _work_connected(settings, in_thread, metrics, stop)


async def _work_connected(
    settings: WorkerSettings,
    attribute: Callable[[Sequence[AttributionJob]], Awaitable[list[Attribution]]],
    metrics: WorkerMetrics,
    stop: asyncio.Event,
) -> None:
    served = Home(settings.home).served
    turn = asyncio.Lock()
    plan = read_plan(Home(settings.home).audit_plan)
    audited = frozenset(plan.adapters if plan else ())
    pauses = PaymentPauses(Home(settings.home).payment)

    def paused() -> Collection[str]:
        versions = pauses.in_force().keys()
        metrics.observe_paused(versions)
        return versions

    def forget_tokens(job: AttributionJob) -> None:
        if job.adapter_version not in audited:  # else the auditor erases them
            erase_served(served, job.inference)

    async with AsyncExitStack() as opened:
        shards = await Shards.open(
            settings.redis_url,
            settings.ledgers,
            observe=metrics.observe_post,
            replicas=settings.ledger_replicas,
        )
        opened.push_async_callback(shards.close)
        queues = {}
        for name in settings.ledgers:
            queues[name] = await Jobs.open(
                settings.redis_url, consumer=settings.consumer_name, name=name, paused=paused
            )
            opened.push_async_callback(queues[name].close)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(forget_old_tokens(served, stop, settings.sweep_seconds))
            for name, ledger in shards.ledgers.items():
                jobs = queues[name]
                worker = Worker(
                    ledger, jobs, attribute, forget_tokens, metrics, turn, settings.retry_seconds
                )
                sweep = Sweep(name, ledger, jobs, metrics)
                tasks.create_task(worker.run(stop))
                tasks.create_task(sweep.run(stop, settings.sweep_seconds))


def main() -> None:
    """The program."""
    settings = settings_of("worker", WorkerSettings)
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells which builds it looks for
    share_cores()
    from serving.attributor import Attributor
    from serving.fine_tuning import be_deterministic

    be_deterministic(settings.threads)
    with ending_clearly("worker"):
        home = Home(settings.home)
        attributor = Attributor.load(home, read_release(home.release))
        asyncio.run(work(settings, attributor.attribute_all, WorkerMetrics()))


if __name__ == "__main__":
    main()
