"""What an entry takes: bytes in the ledger's memory, on its disk and in the archive; server time.

    python -m loadtests.bench_bytes [--inferences 5000] [--wide 500]

Posts answers whose settlement has 6 legs, then, on a fresh server, answers whose settlement has 98;
a hold has 2 legs and a capture 6 in both. Exports each journal into SQLite and, where it is
installed, PostgreSQL. Prints one JSON object.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import tempfile
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import text
from uuid_utils import uuid7

from byline.archive.database import Archive
from byline.archive.exporter import Exporter
from byline.attribution import integer_scores
from byline.ledger.ledger import Ledger
from byline.limits import PPB
from byline.money import POLICY
from byline.posting.keys import Keys
from byline.posting.postings import parse_entry
from byline.posting.redis_client import Client, connect
from byline.records import (
    Attribution,
    AttributionState,
    Capture,
    ExampleInfluence,
    Leg,
    Share,
    Usage,
    UsageSource,
)
from byline.redis_server import RedisServer, running_redis
from tests.byline.postgres import WHAT_TO_INSTALL, postgres_programs, running_postgres

AT_ONCE = 200  # posts in flight
SETTLE_LEGS = (6, 98)
CHARGE_NANO, POOL_NANO = 250_000, 125_000
HOLD_MS = 900_000
EXAMPLES = 5
VERSION = "healthcare@3f2a5c7b9d01"
NAME = "usd"
COLD_ENTRIES = 1_000  # of one file in cold storage
SAMPLED = 200  # events whose facts are weighed one by one


class Inferences:
    """What is posted, with names, scores and texts as long as real ones."""

    def __init__(self, count: int, settle_legs: int, rng: random.Random) -> None:
        self.ids = [str(uuid7()) for _ in range(count)]
        self.now_ms = time.time_ns() // 1_000_000
        self._payees = settle_legs - 2  # the pool and `unattributed` are legs too
        self._rng = rng

    def capture(self, inference: str) -> Capture:
        """An adapter's answer: four credits and one pool."""
        return Capture(
            inference=inference, application="clinic-frontdesk", held_nano=2 * CHARGE_NANO,
            charge_nano=CHARGE_NANO,
            credits=(Leg("platform", 25_000), Leg("host", 37_500),
                     Leg("base:smollm2-135m", 12_500), Leg("owner:healthcare", 50_000)),
            pools=(POOL_NANO,), skipped=None, model="auto", served_by=VERSION,
            adapter_version=VERSION, index="healthcare-index@9c1d0a7e4b52",
            usage=Usage(212, (148,), UsageSource.ENGINE), partial=False,
            tokens_sha256=self._rng.randbytes(32).hex(), policy=POLICY.version,
        )  # fmt: skip

    def attribution(self, inference: str) -> Attribution:
        """Every payee a share, five examples, and a rest that nobody is shown to deserve."""
        names = [f"contributor-{number:04}" for number in range(self._payees)]
        scores = {name: self._rng.random() for name in names}
        part = PPB // (self._payees + 1)
        nano = POOL_NANO // (self._payees + 1)
        return Attribution(
            inference=inference, ordinal=0, state=AttributionState.DONE, adapter_version=VERSION,
            index="healthcare-index@9c1d0a7e4b52", lift_nats=self._rng.random(),
            pool_nano=POOL_NANO, unattributed_nano=POOL_NANO - nano * self._payees,
            unattributed_ppb=PPB - part * self._payees,
            shares=tuple(Share(name, scores[name], part, nano) for name in names),
            examples=tuple(
                ExampleInfluence(f"healthcare-{number:04}", names[number % len(names)],
                                 self._rng.random())
                for number in range(EXAMPLES)
            ),
            scores=integer_scores(scores),
        )  # fmt: skip


async def in_turn(ids: Sequence[str], post: Callable[[str], Awaitable[object]]) -> None:
    """Every id's post, so many at once."""
    for start in range(0, len(ids), AT_ONCE):
        await asyncio.gather(*(post(each) for each in ids[start : start + AT_ONCE]))


class Scales:
    """What the server's memory, its append-only file and its main thread's time have grown by."""

    def __init__(self, redis: Client, folder: Path) -> None:
        self._redis = redis
        self._folder = folder
        self._last = {"memory_bytes": 0.0, "aof_bytes": 0.0, "server_microseconds": 0.0}

    async def grown(self, count: int) -> dict[str, float]:
        """By how much for each of `count` posts, since the last time this was asked."""
        info = await self._redis.info()
        seconds = info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"]
        files = (self._folder / "appendonlydir").iterdir()
        now = {
            "memory_bytes": info["used_memory"],
            "aof_bytes": sum(each.stat().st_size for each in files),
            "server_microseconds": seconds * 1_000_000,
        }
        grown = {what: round((now[what] - self._last[what]) / count, 1) for what in now}
        self._last = now
        return grown


async def posted(ledger: Ledger, inferences: Inferences, scales: Scales) -> dict[str, Any]:
    """Post every inference's hold, then every capture, then every settlement: bytes of each."""
    now, ids = inferences.now_ms, inferences.ids
    warm = str(uuid7())  # scripts, the first pages of every key
    await ledger.deposit(warm, "clinic-frontdesk", 10**12 - 1, time_ms=now)
    await scales.grown(1)

    def hold(inference: str) -> Awaitable[object]:
        return ledger.hold(
            inference, "clinic-frontdesk", 2 * CHARGE_NANO, expires_ms=now + HOLD_MS, time_ms=now
        )

    def capture(inference: str) -> Awaitable[object]:
        return ledger.capture(inferences.capture(inference), time_ms=now)

    def settle(inference: str) -> Awaitable[object]:
        return ledger.settle(inferences.attribution(inference), time_ms=now)

    found = {}
    for operation, post in (("hold", hold), ("capture", capture), ("settle", settle)):
        await in_turn(ids, post)
        found[operation] = await scales.grown(len(ids))
    return found


async def weighed(redis: Client, ids: Sequence[str]) -> dict[str, float]:
    """Bytes an inference of each kind of key, when nothing is open any more."""
    keys = Keys(NAME)

    async def weight(*names: str) -> float:
        each = [await redis.memory_usage(name, samples=0) or 0 for name in names]
        return float(sum(each))

    marks = [name async for name in redis.scan_iter(match=f"{keys.tag}:marks:*")]
    sampled = ids[:: max(1, len(ids) // SAMPLED)]
    facts = await weight(*(keys.inference(each) for each in sampled)) / len(sampled)
    found = {
        "journal": await weight(keys.journal) / len(ids),
        "marks": await weight(*marks) / len(ids),
        "facts": facts,
        "job_until_acknowledged": await weight(keys.jobs) / len(ids),
    }
    return {what: round(each, 1) for what, each in found.items()}


async def exported(ledger: Ledger, url: str, size: Callable[[Archive], int]) -> dict[str, float]:
    """Rows a second and bytes an entry, of the archive at `url`."""
    archive = await asyncio.to_thread(Archive.open, url)
    try:
        before = await asyncio.to_thread(size, archive)
        exporter = Exporter(ledger, archive, name=NAME)
        began, entries = time.perf_counter(), 0
        while new := await exporter.once():
            entries += new
        seconds = time.perf_counter() - began
        grown = await asyncio.to_thread(size, archive) - before
    finally:
        archive.close()
    return {
        "entries": entries,
        "entries_per_second": round(entries / seconds),
        "bytes_per_entry": round(grown / entries, 1),
    }


async def cold(ledger: Ledger) -> dict[str, float]:
    """Bytes an entry, with the text behind its hash, in files of so many entries, deflated."""
    page = await ledger.page(after_seq=0, limit=10**9)
    plain = packed = 0
    for start in range(0, len(page), COLD_ENTRIES):
        texts = [entry for _, entry in page[start : start + COLD_ENTRIES]]
        manifests = await ledger.manifests([parse_entry(each) for each in texts])
        lines = "\n".join([*texts, *filter(None, manifests)]).encode()
        plain, packed = plain + len(lines), packed + len(zlib.compress(lines))
    return {"plain": round(plain / len(page), 1), "deflated": round(packed / len(page), 1)}


def sqlite_size(archive: Archive) -> int:
    """Of all pages, once the write-ahead log is in the file."""
    with archive.engine.connect() as connection:
        connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        return int(pages) * int(connection.execute(text("PRAGMA page_size")).scalar_one())


def postgresql_size(archive: Archive) -> int:
    """Of all tables with their indexes."""
    with archive.engine.connect() as connection:
        size = connection.execute(text("SELECT pg_database_size(current_database())"))
        return int(size.scalar_one())


async def archived(ledger: Ledger, folder: Path, postgres: str | None) -> dict[str, Any]:
    """The journal in either database."""
    sqlite = await exported(ledger, f"sqlite:///{folder}/archive.sqlite", sqlite_size)
    found = {"text_bytes_per_entry": await cold(ledger), "sqlite": sqlite}
    if postgres is None:
        return {**found, "postgresql": WHAT_TO_INSTALL}
    return {**found, "postgresql": await exported(ledger, postgres, postgresql_size)}


async def measure(
    count: int, settle_legs: int, folder: Path, postgres: str | None
) -> dict[str, Any]:
    """All bytes of answers that are settled with so many legs."""
    server = RedisServer(
        folder, unix_socket=folder / "s.sock", maxmemory="8gb",
        settings={"auto-aof-rewrite-percentage": "0"},
    )  # fmt: skip
    inferences = Inferences(count, settle_legs, random.Random(1))
    with running_redis(server):
        ledger, redis = await Ledger.open(server.url, name=NAME), connect(server.url)
        by_operation = await posted(ledger, inferences, Scales(redis, folder))
        by_key = await weighed(redis, inferences.ids)
        archives = await archived(ledger, folder, postgres)
        assert (await ledger.check()).balanced
        await ledger.close()
        await redis.aclose()
    return {
        "inferences": count,
        "per_post": by_operation,
        "memory_bytes_per_inference": by_key,
        "archive": archives,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inferences", type=int, default=5_000, help="with 6-leg settlements")
    parser.add_argument("--wide", type=int, default=500, help="with 98-leg settlements")
    arguments = parser.parse_args()
    counts = dict(zip(SETTLE_LEGS, (arguments.inferences, arguments.wide), strict=True))
    print(json.dumps(report(counts)))


def report(counts: Mapping[int, int]) -> dict[str, Any]:
    """Everything, by the number of legs of a settlement."""
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"), "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
    }  # fmt: skip
    programs = postgres_programs()
    with running_postgres(programs) if programs else nullcontext() as postgres:
        for legs, count in counts.items():
            database = postgres.new_database() if postgres else None
            with tempfile.TemporaryDirectory() as folder:
                measured = asyncio.run(measure(count, legs, Path(folder), database))
            found[f"settle_legs_{legs}"] = measured
    return found


if __name__ == "__main__":
    main()
