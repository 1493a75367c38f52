"""How long an attribution takes: from completion to settled shares, and how many a second.

    python -m loadtests.bench_attribution [--threads 2] [--answers 32]

Answers are prompts of one adapter's own rows with 64 tokens of its rows' completions after them;
their time does not depend on what they say. `settled`: a real ledger and the worker as it is
served, one answer at a time, from the capture to the settled attribution. `together`: all answers
wait when the worker begins. Beside the wall clock stands the processor's time, which other work on
the machine moves least. One JSON object is the last line; it exits 1 if the same answer is scored
otherwise in company, and 0 however slow anything was.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uuid_utils

from byline.artifacts import ArtifactStore
from byline.datasets import read_dataset
from byline.home import Home
from byline.jobs import Jobs
from byline.ledger.ledger import Ledger
from byline.records import (
    AdapterVersion,
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
from byline.registry import read_release
from byline.served import erase_served, write_served
from serving.recipes import cores, share_cores
from serving.telemetry import WorkerMetrics
from serving.worker import JOBS_AT_ONCE, Worker

if TYPE_CHECKING:
    from serving.attributor import Attributor
    from serving.rows import Row

ANSWER_TOKENS = 64
ALONE = 8  # answers that are waited for one by one
SETTLED_SECONDS_MAX = 1.5
PER_SECOND_MIN = 3.0


def borrowed(folder: Path, home: Home) -> Home:
    """A home with another's artifacts and release, and its own served tokens."""
    own = Home(folder)
    own.artifacts.mkdir()
    for each in home.artifacts.iterdir():
        if each.name != home.served.name:
            (own.artifacts / each.name).symlink_to(each.resolve())
    own.release.write_bytes(home.release.read_bytes())
    return own


def answers(home: Home, adapter: AdapterVersion, count: int) -> list["Row"]:
    """So many rows: real prompts, and 64 tokens of completions after each."""
    from serving.checkpoints import load_tokenizer
    from serving.rows import Row, encode

    base = home.artifacts / read_release(home.release).base_path
    dataset = ArtifactStore(home.artifacts).open("datasets", adapter.dataset)
    rows = encode(load_tokenizer(base), read_dataset(dataset).canonical)
    tokens = [token for row in rows for token in row.completion] * 2
    asked = [rows[place % len(rows)] for place in range(count)]
    starts = [place * ANSWER_TOKENS % (len(tokens) // 2) for place in range(count)]
    return [
        Row(row.prompt, tuple(tokens[start : start + ANSWER_TOKENS]))
        for row, start in zip(asked, starts, strict=True)
    ]


async def capture(ledger: Ledger, served: Path, adapter: AdapterVersion, row: "Row") -> str:
    """One answer, held and captured: its attribution waits."""
    inference, now_ms = str(uuid_utils.uuid7()), time.time_ns() // 1_000_000
    hashed = write_served(served, ServedTokens(inference, row.prompt, (row.completion,)))
    expires = now_ms + 600_000
    await ledger.hold(inference, "bench", 1_000, expires_ms=expires, time_ms=now_ms)
    captured = Capture(
        inference=inference, application="bench", held_nano=1_000, charge_nano=1_000,
        credits=(Leg("platform", 500),), pools=(500,), skipped=None, model=adapter.adapter,
        served_by=adapter.version, adapter_version=adapter.version, index=adapter.index,
        usage=Usage(len(row.prompt), (ANSWER_TOKENS,), UsageSource.ENGINE), partial=False,
        tokens_sha256=hashed, policy="2026-11",
    )  # fmt: skip
    await ledger.capture(captured, time_ms=now_ms)
    return inference


async def settled(ledger: Ledger, inference: str) -> Attribution:
    """The attribution, once it is no longer pending."""
    while True:
        record = await ledger.inference(inference)
        if record is not None and record.attributions[0].state is not AttributionState.PENDING:
            return record.attributions[0]
        await asyncio.sleep(0.005)


@contextmanager
def in_thread(
    attribute: Callable[[Sequence[AttributionJob]], list[Attribution]],
) -> Iterator[Callable[[Sequence[AttributionJob]], Awaitable[list[Attribution]]]]:
    """As the worker's program does it: the model in a thread of its own."""
    with ThreadPoolExecutor(max_workers=1) as thread:

        async def asked(jobs: Sequence[AttributionJob]) -> list[Attribution]:
            return await asyncio.get_running_loop().run_in_executor(thread, attribute, jobs)

        yield asked


async def measured(
    home: Home, url: str, attributor: "Attributor", adapter: AdapterVersion, rows: list["Row"]
) -> dict[str, Any]:
    """Both measurements, with one worker on one ledger."""
    ledger, jobs = await Ledger.open(url), await Jobs.open(url, consumer="bench")
    stop = asyncio.Event()

    def forget(job: AttributionJob) -> None:
        erase_served(home.served, job.inference)

    with in_thread(attributor.attribute_all) as attribute:
        await ledger.deposit(
            str(uuid_utils.uuid7()), "bench", 10**9, time_ms=time.time_ns() // 1_000_000
        )
        worker = Worker(ledger, jobs, attribute, forget, WorkerMetrics(), asyncio.Lock())
        waiting = [await capture(ledger, home.served, adapter, row) for row in rows]
        wall, cpu = time.perf_counter(), time.process_time()
        task = asyncio.create_task(worker.run(stop))
        together = [await settled(ledger, inference) for inference in waiting]
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        times, spent, same = [], [], True
        for row, before in zip(rows[:ALONE], together, strict=False):
            began, used = time.perf_counter(), time.process_time()
            found = await settled(ledger, await capture(ledger, home.served, adapter, row))
            times.append(time.perf_counter() - began)
            spent.append(time.process_time() - used)
            same = same and found.scores == before.scores and found.lift_nats == before.lift_nats
        stop.set()
        await task
    books = await ledger.check()
    await jobs.close()
    await ledger.close()
    return {
        "settled_seconds_p50": round(statistics.median(times), 3),
        "settled_seconds_max": round(max(times), 3),
        "settled_cpu_seconds_p50": round(statistics.median(spent), 3),
        "together_per_second": round(len(rows) / wall, 2),
        "together_cpu_seconds_each": round(cpu / len(rows), 3),
        "same_scores_alone": same,
        "balanced": books.balanced,
    }


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Measure the attribution worker.")
    parser.add_argument("--home", type=Path, default=Path(".byline"), help="has a release")
    parser.add_argument("--threads", type=int, default=cores(), help="torch threads")
    parser.add_argument("--answers", type=int, default=32)
    arguments = parser.parse_args()
    share_cores()
    from serving.attributor import Attributor, Taught
    from serving.fine_tuning import be_deterministic

    be_deterministic(arguments.threads)
    release = read_release(Home(arguments.home).release)
    adapter = release.adapters[0]
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        home = borrowed(Path(name), Home(arguments.home))
        attributor = Attributor.load(home, release)
        rows = answers(home, adapter, arguments.answers)
        taught = Taught(adapter.version, adapter.index)
        attributor.measure(ServedTokens("", rows[0].prompt, (rows[0].completion,)), 0, taught)
        server = RedisServer(Path(name) / "ledger", unix_socket=Path(name) / "s.sock")
        with running_redis(server):
            found = asyncio.run(measured(home, server.url, attributor, adapter, rows))
    result = {
        "threads": arguments.threads,
        "at_once": JOBS_AT_ONCE,
        "answers": len(rows),
        "tokens_p50": statistics.median(len(row.ids) for row in rows),
        "busy": round(busy, 1),
        **found,
        "settled_in_time": found["settled_seconds_p50"] <= SETTLED_SECONDS_MAX,
        "enough_per_second": found["together_per_second"] >= PER_SECOND_MIN,
    }
    print(json.dumps(result))
    sys.exit(0 if found["same_scores_alone"] and found["balanced"] else 1)


if __name__ == "__main__":
    main()
