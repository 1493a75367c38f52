"""How long an attribution takes: from completion to settled shares, and how many a second.

    python -m loadtests.bench_attribution [--workers 2] [--answers 48]

The workers are the program itself (`python -m serving.worker`), one thread each, on a real ledger.
Answers are prompts of one adapter's own rows with 64 tokens of its rows' completions after them;
their time does not depend on what they say. `settled`: one answer at a time, from the capture to
the settled attribution. `together`: all answers wait when the workers go on. Beside the wall clock
stands the processors' time, which other work on the machine moves least. One JSON object is the
last line; it exits 1 if the same answer is scored otherwise in company, and 0 however slow
anything was.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import uuid_utils

from byline.artifacts import ArtifactStore
from byline.datasets import read_dataset
from byline.home import Home
from byline.ledger.ledger import Ledger
from byline.records import (
    AdapterVersion,
    Attribution,
    AttributionState,
    Capture,
    Leg,
    ServedTokens,
    Usage,
    UsageSource,
)
from byline.redis_server import RedisServer, running_redis
from byline.registry import read_release
from byline.served import write_served
from loadtests.bench_gateway import free_ports
from loadtests.gateway_bench.entrants import stop
from serving.recipes import cores
from serving.worker import JOBS_AT_ONCE

if TYPE_CHECKING:
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


async def settled(ledger: Ledger, inference: str, workers: "Workers") -> Attribution:
    """The attribution, once it is no longer pending. SystemExit where a worker has died."""
    while True:
        workers.require_all()
        record = await ledger.inference(inference)
        if record is not None and record.attributions[0].state is not AttributionState.PENDING:
            return record.attributions[0]
        await asyncio.sleep(0.005)


class Workers:
    """The processes that attribute: stopped and let go on together."""

    def __init__(self, started: Mapping[Path, "subprocess.Popen[str]"]) -> None:
        self._started = started  # by log
        self._processes = [psutil.Process(process.pid) for process in started.values()]

    def require_all(self) -> None:
        """End with a worker's last words if one has died: nobody would settle what it claimed."""
        for log, process in self._started.items():
            if process.poll() is not None:
                sys.exit(f"a worker died ({process.returncode}): {log.read_text()[-2_000:]}")

    def stand_still(self) -> None:
        """Claim nothing more for now."""
        for process in self._processes:
            process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Go on."""
        for process in self._processes:
            process.send_signal(signal.SIGCONT)

    def cpu_seconds(self) -> float:
        """The processors' time that all of them have used."""
        used = [process.cpu_times() for process in self._processes]
        return sum(each.user + each.system for each in used)


@contextmanager
def working(home: Home, url: str, count: int) -> Iterator[Workers]:
    """So many workers on one ledger; what they say is in the home's folder."""
    with ExitStack() as started:
        processes: dict[Path, subprocess.Popen[str]] = {}
        for port in free_ports(count):
            path = home.root / f"worker-{port}.log"
            log = started.enter_context(path.open("w"))
            env = {
                "BYLINE_WORKER_HOME": str(home.root), "BYLINE_WORKER_REDIS_URL": url,
                "BYLINE_WORKER_METRICS_PORT": str(port), "BYLINE_WORKER_THREADS": "1",
            }  # fmt: skip
            argv = [sys.executable, "-m", "serving.worker"]
            process = subprocess.Popen(
                argv, env={**os.environ, **env}, stdout=log, stderr=log, text=True
            )
            started.callback(stop, process)
            processes[path] = process
        workers = Workers(processes)
        started.callback(workers.go_on)  # what stands still hears no signal to end
        yield workers


async def measured(
    home: Home, url: str, workers: Workers, adapter: AdapterVersion, rows: list["Row"]
) -> dict[str, Any]:
    """Both measurements, on one ledger."""
    ledger = await Ledger.open(url)
    await ledger.deposit(
        str(uuid_utils.uuid7()), "bench", 10**9, time_ms=time.time_ns() // 1_000_000
    )

    async def all_settled() -> list[Attribution]:
        workers.stand_still()
        waiting = [await capture(ledger, home.served, adapter, row) for row in rows]
        workers.go_on()
        return [await settled(ledger, inference, workers) for inference in waiting]

    await all_settled()  # once for every worker to have loaded what it needs
    wall, cpu = time.perf_counter(), workers.cpu_seconds()
    together = await all_settled()
    wall, cpu = time.perf_counter() - wall, workers.cpu_seconds() - cpu
    times, spent, same = [], [], True
    for row, before in zip(rows[:ALONE], together, strict=False):
        began, used = time.perf_counter(), workers.cpu_seconds()
        found = await settled(ledger, await capture(ledger, home.served, adapter, row), workers)
        times.append(time.perf_counter() - began)
        spent.append(workers.cpu_seconds() - used)
        same = same and found.scores == before.scores and found.lift_nats == before.lift_nats
    books = await ledger.check()
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
    parser.add_argument("--workers", type=int, default=cores(), help="processes, a thread each")
    parser.add_argument("--answers", type=int, default=48)
    arguments = parser.parse_args()
    release = read_release(Home(arguments.home).release)
    adapter = release.adapters[0]
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        home = borrowed(Path(name), Home(arguments.home))
        rows = answers(home, adapter, arguments.answers)
        server = RedisServer(Path(name) / "ledger", unix_socket=Path(name) / "s.sock")
        with running_redis(server), working(home, server.url, arguments.workers) as workers:
            found = asyncio.run(measured(home, server.url, workers, adapter, rows))
    result = {
        "workers": arguments.workers,
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
