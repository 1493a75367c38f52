"""How fast the balances are made anew from the journal: a million entries of six legs.

    python -m loadtests.bench_rebuild [--entries 1000000] [--folder /dev/shm]

The entries are really written, in the shape of the ledger's own: for each inference a hold, a
capture with eight choices, eight settlements with five payees. The server has one core and this
process another, where there are two. Prints one JSON object.
"""

import argparse
import itertools
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import uvloop
from uuid_utils import uuid7

from byline.ledger.books import Fold, Snapshot
from byline.ledger.journal import Journal
from byline.ledger.ledger import Ledger
from byline.ledger.snapshots import Snapshots
from byline.posting.redis_client import Client
from byline.redis_server import RedisServer, running_redis

CONTRIBUTORS = 10_000
CHOICES, PAYEES = 8, 5
POOL_NANO = 500
CREDITS = {"platform": 800, "host": 1_200, "base:bench": 400, "owner:bench": 1_600}
CHARGE_NANO = sum(CREDITS.values()) + CHOICES * POOL_NANO
VERSION = "bench@0123456789ab"
WRITTEN_AT_ONCE = 2_000
TAIL_PART = 10  # a tenth of the journal lies behind the snapshot


def inference_entries(first_contributor: int) -> Iterator[tuple[str, str, int, dict[str, int]]]:
    """Inference, operation, ordinal and legs of one life."""
    inference = str(uuid7())
    hold = f"hold:{inference}"
    pools = [f"open:{inference}" + (f"/{k}" if k else "") for k in range(CHOICES)]
    yield inference, "hold", 0, {"app:bench": -CHARGE_NANO, hold: CHARGE_NANO}
    opened = dict.fromkeys(pools, POOL_NANO)
    yield inference, "capture", 0, {hold: -CHARGE_NANO, **CREDITS, **opened}
    for ordinal, pool in enumerate(pools):
        payees = (first_contributor + ordinal * PAYEES + k for k in range(PAYEES))
        paid = {f"contrib:c{payee % CONTRIBUTORS}": POOL_NANO // PAYEES for payee in payees}
        yield inference, "settle", ordinal, {pool: -POOL_NANO, **paid}


def entry_texts(entries: int) -> Iterator[tuple[int, bytes]]:
    """Sequence numbers and canonical texts."""
    lives = itertools.chain.from_iterable(
        inference_entries(n * CHOICES * PAYEES) for n in itertools.count()
    )
    for seq, (inference, operation, ordinal, legs) in enumerate(lives, 1):
        if seq > entries:
            return
        fields = {
            "adapter_version": None if operation == "hold" else VERSION,
            "charge": str(CHARGE_NANO if operation == "capture" else 0),
            "inference": inference, "key": f"{inference}/{operation}/{ordinal}",
            "kind": operation, "legs": [[name, str(nano)] for name, nano in legs.items()],
            "manifest_sha256": "0" * 64, "policy": "2026-11", "seq": seq,
            "time_ms": 1_795_000_000_000, "v": 1,
        }  # fmt: skip
        yield seq, orjson.dumps(fields)


async def fill(redis: Client, journal: str, meta: str, entries: int) -> None:
    """Write so many entries, many a round trip."""
    texts = entry_texts(entries)
    while page := list(itertools.islice(texts, WRITTEN_AT_ONCE)):
        async with redis.pipeline(transaction=False) as pipe:
            for seq, text in page:
                pipe.xadd(journal, {"e": text}, id=f"{seq}-1")
            pipe.hset(meta, "seq", page[-1][0])
            await pipe.execute()


async def folded(journal: Journal, up_to_seq: int | None = None) -> Fold:
    """The raw fold from the first entry."""
    fold = Fold()
    async for page in journal.pages(up_to_seq=up_to_seq):
        fold.add_page(page)
    return fold


async def measure(url: str, entries: int) -> dict[str, Any]:
    """Fill a ledger, then fold and rebuild it."""
    ledger = await Ledger.open(url, timeout_seconds=60)
    redis, keys = ledger.inside
    began = time.perf_counter()
    await fill(redis, keys.journal, keys.meta, entries)
    found: dict[str, Any] = {"entries": entries, "fill_seconds": _since(began)}
    found["rss_mib_before"] = _peak_mib()
    journal = Journal(redis, keys)

    began, cpu = time.perf_counter(), time.process_time()
    fold = await folded(journal)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    found |= {
        "fold_entries_per_second": round(entries / seconds),
        "fold_entries_per_cpu_second": round(entries / cpu_seconds),
        "ten_million_seconds": round(10**7 / entries * seconds, 1),
        "problems": fold.problems, "accounts": len(fold.accounts),
        "rss_mib_after_fold": _peak_mib(),
    }  # fmt: skip

    began = time.perf_counter()
    balances = await ledger.rebuild(full=True)
    found["full_rebuild_seconds"] = _since(began)

    part = await folded(journal, entries - entries // TAIL_PART)
    began = time.perf_counter()
    await Snapshots(redis, keys).write(Snapshot(part.seq, part.accounts), ledger.epoch)
    found["snapshot_seconds"] = _since(began)
    began = time.perf_counter()
    same = await ledger.rebuild() == balances
    found["snapshot_rebuild_seconds"] = _since(began)
    found["snapshot_rebuild_tail_entries"] = entries - part.seq

    began = time.perf_counter()
    books = await ledger.check()
    found["check_seconds"] = _since(began)
    found["same"], found["balanced"] = same, books.balanced
    memory = await redis.info("memory")
    found["server_bytes_per_entry"] = round(memory["used_memory"] / entries)
    await ledger.close()
    return found


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 2)


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Start a server of its own, measure, stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        os.sched_setaffinity(0, {cores[0]})
        server = RedisServer(Path(folder), unix_socket=Path(folder) / "s.sock", maxmemory="16gb")
        with running_redis(server):
            os.sched_setaffinity(0, {cores[-1]})
            found = uvloop.run(measure(server.url, options.entries))
    print(json.dumps({"machine": f"{len(cores)} cores, {platform.machine()}", **found}))


if __name__ == "__main__":
    main()
