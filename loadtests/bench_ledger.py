"""How many durable posts a second one ledger takes: hold, capture and settle with four payees.

    python -m loadtests.bench_ledger [--seconds 5] [--folder /dev/shm]

A real server with the append-only file synced before every answer; the server on one core and this
process on another, where there are two. Prints one JSON object.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop
from uuid_utils import uuid7

from byline.ledger import Ledger
from byline.limits import PPB
from byline.money import POLICY
from byline.records import Attribution, AttributionState, Capture, Leg, Share, Usage, UsageSource
from byline.redis_server import RedisServer, running_redis

CALLERS = (1, 50)
ROUNDS = 3
CHARGE_NANO, POOL_NANO, PAYEES = 1_000, 500, 4
HOLD_MS = 900_000
VERSION = "bench@0123456789ab"


def capture_of(inference: str) -> Capture:
    """An adapter answer of 1,000 nano with a pool of 500."""
    return Capture(
        inference=inference, application="bench", held_nano=CHARGE_NANO, charge_nano=CHARGE_NANO,
        credits=(Leg("platform", 100), Leg("host", 150), Leg("base:bench", 50),
                 Leg("owner:bench", 200)),
        pools=(POOL_NANO,), skipped=None, model="bench", served_by=VERSION,
        adapter_version=VERSION, index=VERSION, usage=Usage(2, (1,), UsageSource.ENGINE),
        partial=False, tokens_sha256="0" * 64, policy=POLICY.version,
    )  # fmt: skip


def attribution_of(inference: str) -> Attribution:
    """Its attribution to four contributors."""
    part, nano = PPB // PAYEES, POOL_NANO // PAYEES
    return Attribution(
        inference=inference, ordinal=0, state=AttributionState.DONE, adapter_version=VERSION,
        index=VERSION, pool_nano=POOL_NANO,
        shares=tuple(Share(f"contributor-{k}", 0.1, part, nano) for k in range(PAYEES)),
    )  # fmt: skip


async def flow(ledger: Ledger, until: float) -> int:
    """One caller's posts until the time is over; answers how many."""
    posts = 0
    while time.perf_counter() < until:
        inference, now = str(uuid7()), time.time_ns() // 1_000_000
        await ledger.hold(inference, "bench", CHARGE_NANO, expires_ms=now + HOLD_MS, time_ms=now)
        await ledger.capture(capture_of(inference), time_ms=now)
        await ledger.settle(attribution_of(inference), time_ms=now)
        posts += 3
    return posts


async def measure(url: str, seconds: float) -> dict[str, Any]:
    """Rates and latencies by number of callers, and the speed of the check."""
    took: list[float] = []
    ledger = await Ledger.open(url, observe=lambda _operation, _outcome, each: took.append(each))
    await ledger.deposit(str(uuid7()), "bench", 10**11, time_ms=time.time_ns() // 1_000_000)
    found: dict[str, Any] = {}
    for callers in CALLERS:
        rates = []
        took.clear()
        for _ in range(ROUNDS):
            began = time.perf_counter()
            posts = await asyncio.gather(*(flow(ledger, began + seconds) for _ in range(callers)))
            rates.append(sum(posts) / (time.perf_counter() - began))
        cuts = statistics.quantiles(took, n=100)
        found[f"callers_{callers}"] = {
            "posts_per_second": [round(rate) for rate in sorted(rates)],
            "p50_ms": round(cuts[49] * 1e3, 2),
            "p99_ms": round(cuts[98] * 1e3, 2),
        }
    began = time.perf_counter()
    books = await ledger.check()
    found["check_entries_per_second"] = round(books.journal_entries / (time.perf_counter() - began))
    found["journal_entries"], found["balanced"] = books.journal_entries, books.balanced
    await ledger.close()
    return found


def main() -> None:
    """Start a server of its own, measure, stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        os.sched_setaffinity(0, {cores[0]})
        server = RedisServer(Path(folder), unix_socket=Path(folder) / "s.sock")
        with running_redis(server):
            os.sched_setaffinity(0, {cores[-1]})
            found = uvloop.run(measure(server.url, options.seconds))
    print(json.dumps({"machine": f"{len(cores)} cores, {platform.machine()}", **found}))


if __name__ == "__main__":
    main()
