"""The worker's promises: each job is settled exactly once or fails visibly, whatever breaks.

A job leaves the queue only after its settlement; an outage loses nothing; what keeps failing ends
as `failed`, its pool unattributed; served tokens go when every choice of the inference is settled.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from byline.attribution import Measurement, attribute
from byline.errors import (
    AttributionFailed,
    KeyConflict,
    LedgerFenced,
    LedgerFrozen,
    LedgerRefused,
    LedgerUnavailable,
)
from byline.limits import JOB_ATTEMPTS_MAX
from byline.records import (
    Attribution,
    AttributionJob,
    AttributionState,
    Capture,
    InferenceRecord,
    Posted,
    ServedTokens,
    Usage,
    UsageSource,
)
from byline.served import erase_served, served_inferences, write_served
from serving.telemetry import WorkerMetrics
from serving.worker import JOBS_AT_ONCE, Worker

pytestmark = pytest.mark.anyio

INFERENCE = "0192f000-0000-7000-8000-000000000001"
VERSION = "healthcare@0123456789ab"
JOB = AttributionJob(
    inference=INFERENCE, ordinal=0, application="clinic", adapter_version=VERSION,
    index="healthcare@ba9876543210", tokens_sha256="0" * 64, pool_nano=100, enqueued_ms=1,
)  # fmt: skip
CAPTURE = Capture(
    inference=INFERENCE, application="clinic", held_nano=200, charge_nano=200, credits=(),
    pools=(100, 100), skipped=None, model="healthcare", served_by=VERSION,
    adapter_version=VERSION, index=JOB.index, partial=False, tokens_sha256="0" * 64,
    usage=Usage(3, (2, 2), UsageSource.ENGINE), policy="2026-11",
)  # fmt: skip


class LedgerInMemory:
    """Settles each choice once; raises what it was told to, one error a call."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.settled: dict[int, Attribution] = {}
        self.rejoined = 0

    async def settle(self, attribution: Attribution, *, time_ms: int) -> Posted:
        assert time_ms > 0
        if self.failures:
            raise self.failures.pop(0)
        if self.settled.setdefault(attribution.ordinal, attribution) != attribution:
            raise KeyConflict("another payload")
        return Posted(1)

    async def rejoin(self) -> None:
        self.rejoined += 1

    async def inference(self, inference: str) -> InferenceRecord | None:
        pending = AttributionState.PENDING
        states = tuple(
            self.settled.get(ordinal, Attribution(inference, ordinal, pending))
            for ordinal in range(2)
        )
        return InferenceRecord(CAPTURE, 1, {}, states)


class JobsInMemory:
    """Gives its jobs one by one, then sets `stop`; remembers what was acknowledged."""

    def __init__(self, stop: asyncio.Event, *claims: list[AttributionJob] | Exception) -> None:
        self.stop = stop
        self.claims = list(claims)
        self.acknowledged: list[AttributionJob] = []
        self.waited: Callable[[], None] = lambda: None  # is told when a job is waited for

    async def claim(self, *, count: int, block_ms: int) -> list[AttributionJob]:
        assert (count, block_ms) == (JOBS_AT_ONCE, 0)
        if len(self.claims) == 1:
            self.stop.set()
        claim = self.claims.pop(0)
        if isinstance(claim, Exception):
            raise claim
        return claim

    async def arrival(self, *, block_ms: int) -> None:
        assert block_ms == 1_000
        self.waited()

    async def acknowledge(self, job: AttributionJob) -> None:
        self.acknowledged.append(job)


class Bench:
    """A worker with everything it touches."""

    def __init__(self, served: Path, *failures: Exception) -> None:
        self.served = served
        self.stop = asyncio.Event()
        self.metrics = WorkerMetrics()
        self.ledger = LedgerInMemory(*failures)
        self.jobs = JobsInMemory(self.stop)
        self.problem: Exception | None = None
        self.bad: AttributionJob | None = None  # no batch with it succeeds
        self.attributed = 0
        self.together: list[int] = []  # how many jobs were given to the model at a time
        self.note: Callable[[], None] = lambda: None  # is told of each attribution

    def forget_tokens(self, job: AttributionJob) -> None:
        erase_served(self.served, job.inference)

    async def attribute(self, jobs: Sequence[AttributionJob]) -> list[Attribution]:
        self.attributed += len(jobs)
        self.together.append(len(jobs))
        self.note()
        await asyncio.sleep(0)  # as a model's thread does: others come to ask for their turn
        if self.problem is not None or self.bad in jobs:
            raise self.problem or RuntimeError("this job is bad")
        measured = Measurement(lift_nats=2.0, scores={"ann": 1.0}, examples=())
        return [attribute(job, measured) for job in jobs]

    async def work(
        self, *claims: list[AttributionJob] | Exception, turn: asyncio.Lock | None = None
    ) -> None:
        self.stop.clear()
        self.jobs.claims = list(claims)
        worker = Worker(
            self.ledger, self.jobs, self.attribute, self.forget_tokens, self.metrics,
            turn or asyncio.Lock(), 0.01,
        )  # fmt: skip
        await worker.run(self.stop)

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    write_served(tmp_path, ServedTokens(INFERENCE, (1,), ((2,), (3,))))
    return Bench(tmp_path)


async def test_a_job_is_settled_then_acknowledged_and_counted(bench: Bench) -> None:
    await bench.work([JOB])
    assert bench.ledger.settled[0].shares[0].nano == 100
    assert bench.jobs.acknowledged == [JOB]
    assert bench.sample("byline_attributions_total", adapter="healthcare", state="done") == 1
    paid = bench.sample("byline_pool_nano_total", adapter="healthcare", to="contributors")
    assert paid == 100
    assert bench.sample("byline_attribution_seconds_count") == 1
    assert bench.sample("byline_attribution_lift_nats_count") == 1


async def test_tokens_stay_until_every_choice_is_settled(bench: Bench) -> None:
    await bench.work([JOB])
    assert served_inferences(bench.served)
    await bench.work([replace(JOB, ordinal=1)])
    assert not served_inferences(bench.served)


async def test_a_ledger_that_is_away_is_waited_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LedgerUnavailable("no answer"), LedgerFrozen("a drill"))
    await bench.work([JOB], [])
    assert bench.jobs.acknowledged == [JOB]
    assert bench.attributed == 1


async def test_a_queue_that_is_away_is_asked_again(bench: Bench) -> None:
    await bench.work(LedgerUnavailable("no answer"), [], [JOB])
    assert bench.jobs.acknowledged == [JOB]


async def test_a_worker_stopped_while_the_ledger_is_away_leaves_its_job(tmp_path: Path) -> None:
    bench = Bench(tmp_path, *[LedgerUnavailable("no answer")] * 100)
    await bench.work([JOB])
    assert bench.jobs.acknowledged == []
    assert bench.ledger.settled == {}


async def test_what_another_worker_settled_is_only_acknowledged(tmp_path: Path) -> None:
    bench = Bench(tmp_path, KeyConflict("settled with other last digits"))
    await bench.work([JOB])
    assert bench.jobs.acknowledged == [JOB]
    assert bench.sample("byline_attributions_total", adapter="healthcare", state="done") is None


async def test_jobs_that_wait_are_attributed_together_and_settled_each(bench: Bench) -> None:
    both = [JOB, replace(JOB, ordinal=1)]
    await bench.work(both)
    assert bench.together == [2]
    assert set(bench.ledger.settled) == {0, 1}
    assert bench.jobs.acknowledged == both
    assert bench.sample("byline_attribution_seconds_count") == 2


async def test_a_bad_job_takes_nobody_with_it(bench: Bench) -> None:
    bench.bad = replace(JOB, ordinal=1)
    await bench.work([JOB, bench.bad])
    assert bench.together == [2, 1, 1]
    assert bench.jobs.acknowledged == [JOB]
    assert set(bench.ledger.settled) == {0}


async def test_a_job_that_was_tried_before_is_tried_alone(bench: Bench) -> None:
    await bench.work([JOB, replace(JOB, ordinal=1, attempts=2)])
    assert bench.together == [1, 1]
    assert set(bench.ledger.settled) == {0, 1}


async def test_a_redelivered_job_that_is_settled_is_not_attributed_again(bench: Bench) -> None:
    await bench.work([JOB])
    again = replace(JOB, attempts=2)
    await bench.work([again])
    assert bench.attributed == 1
    assert bench.jobs.acknowledged == [JOB, again]


async def test_a_redelivered_job_that_is_open_is_attributed(bench: Bench) -> None:
    await bench.work([replace(JOB, attempts=2)])
    assert bench.attributed == 1
    assert 0 in bench.ledger.settled


async def test_a_failing_attribution_is_left_for_another_attempt(bench: Bench) -> None:
    bench.problem = RuntimeError("out of memory")
    await bench.work([JOB])
    assert bench.jobs.acknowledged == []
    assert bench.ledger.settled == {}


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (AttributionFailed("no prompt tokens"), "no prompt tokens"),
        (RuntimeError("/a/path of ours"), "internal error: RuntimeError"),
    ],
)
async def test_the_last_attempt_ends_in_a_visible_failure(
    bench: Bench, problem: Exception, reason: str
) -> None:
    bench.problem = problem
    await bench.work([replace(JOB, attempts=JOB_ATTEMPTS_MAX)])
    settled = bench.ledger.settled[0]
    assert (settled.state, settled.reason) == (AttributionState.FAILED, reason)
    assert settled.unattributed_nano == JOB.pool_nano
    assert len(bench.jobs.acknowledged) == 1
    unattributed = bench.sample("byline_pool_nano_total", adapter="healthcare", to="unattributed")
    assert unattributed == 100


async def test_a_job_that_kills_its_workers_is_given_up_untried(bench: Bench) -> None:
    await bench.work([replace(JOB, attempts=JOB_ATTEMPTS_MAX + 1)])
    assert bench.attributed == 0
    assert bench.ledger.settled[0].reason == "given up after 5 attempts"


async def test_a_refused_settlement_stays_in_the_queue(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LedgerRefused("no such pool"))
    await bench.work([JOB])
    assert bench.jobs.acknowledged == []


async def test_a_fenced_worker_rejoins_and_settles_what_it_has_attributed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LedgerFenced("the epoch is 2"))
    await bench.work([JOB], [])
    assert bench.jobs.acknowledged == [JOB]
    assert (bench.ledger.rejoined, bench.attributed) == (1, 1)


async def test_a_ledger_that_is_away_keeps_no_other_waiting(tmp_path: Path) -> None:
    stuck, other = Bench(tmp_path, *[LedgerUnavailable("no answer")] * 1_000), Bench(tmp_path)
    turn = asyncio.Lock()
    waiting = asyncio.create_task(stuck.work([JOB], [], turn=turn))
    await asyncio.sleep(0.02)
    async with asyncio.timeout(5):
        await other.work([JOB], [replace(JOB, ordinal=1)], [], turn=turn)
    assert len(other.jobs.acknowledged) == 2
    assert not stuck.jobs.acknowledged
    stuck.stop.set()
    await waiting


async def test_ledgers_take_turns_and_claim_no_sooner(tmp_path: Path) -> None:
    order: list[tuple[str, bool]] = []
    turn = asyncio.Lock()
    running = []

    def note(name: str) -> None:
        order.append((name, turn.locked()))

    for name in ("a", "b"):
        bench = Bench(tmp_path)
        bench.note = partial(note, name)
        running.append(bench.work([JOB], [JOB], [JOB], [], turn=turn))
    await asyncio.gather(*running)
    assert order == [("a", True), ("b", True)] * 3


async def test_a_job_is_waited_for_outside_the_turn(tmp_path: Path) -> None:
    bench, turn = Bench(tmp_path), asyncio.Lock()
    locked: list[bool] = []
    bench.jobs.waited = lambda: locked.append(turn.locked())
    await bench.work([], LedgerUnavailable("no answer"), [JOB], [], turn=turn)
    assert locked == [False, False]
    assert bench.jobs.acknowledged == [JOB]
