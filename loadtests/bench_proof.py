"""How long after its posting an entry is proven, what a proof costs, and how fast it is verified.

    python -m loadtests.bench_proof [--rate 1000] [--seconds 30] [--lines 100000] [--folder /tmp]

A real server that syncs its append-only file before every answer, the exporter and the notary as
programs of their own; this process posts holds, captures and settlements at a steady rate, and
looks at the published tree head every 10 ms. A post counts from when it is sent. Then a second
notary integrates the same journal from its beginning, alone; and a statement of many lines is
proven and given to the verifier's own program. Prints one JSON object as its last line, and exits 1
if a bar is missed.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from byline.archive.database import Archive
from byline.errors import NotFound
from byline.home import Home
from byline.ledger.ledger import Ledger
from byline.notary.folder import KEYS, LogFolder
from byline.notary.log_keys import log_keys
from byline.notary.notary import Notary
from byline.notary.reader import LogReader
from byline.notary.source import Source
from byline.notary.state import STATE, State
from byline.redis_server import RedisServer, running_redis
from loadtests.ledger_bench.figures import disk_sync_ms
from loadtests.proof_bench import statement
from loadtests.proof_bench.posting import percentile, places, post_steadily
from tests.ports import free_port

ORIGIN = "bench.example"
BARS = {"post_to_proof_p99_seconds": 5.0, "verify_statement_seconds": 60.0}
EXPORTED_SECONDS = 300.0
SAMPLES = 200


@contextmanager
def programs(home: Home, redis_url: str) -> Iterator[None]:
    """The exporter and the notary, as they are served."""
    more = {
        "BYLINE_ARCHIVE_HOME": str(home.root), "BYLINE_ARCHIVE_REDIS_URL": redis_url,
        "BYLINE_ARCHIVE_METRICS_PORT": str(free_port()),
        "BYLINE_NOTARY_HOME": str(home.root), "BYLINE_NOTARY_REDIS_URL": redis_url,
        "BYLINE_NOTARY_METRICS_PORT": str(free_port()), "BYLINE_NOTARY_ORIGIN": ORIGIN,
    }  # fmt: skip
    running = [
        subprocess.Popen([sys.executable, "-m", module], env=os.environ | more)
        for module in ("byline.archive", "byline.notary")
    ]
    try:
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(30)


async def under_load(redis_url: str, home: Home, rate: int, seconds: float) -> dict[str, Any]:
    """Post-to-proof, and the sizes of what is published."""
    ledger = await Ledger.open(redis_url)
    folder = LogFolder(home.log_of("usd"))
    with programs(home, redis_url):
        while folder.read(KEYS) is None:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.1)
        posts = await post_steadily(ledger, folder, rate=rate, seconds=seconds)
        leaves = places(folder.root)
        waits = posts.waits(leaves)
        await _exported(home, max(leaves))
    entries = len(leaves)
    await ledger.close()
    return {
        "posts": len(waits),
        "posts_per_second": round(len(waits) / posts.seconds),
        "post_to_proof_p50_seconds": round(percentile(waits, 50), 3),
        "post_to_proof_p99_seconds": round(percentile(waits, 99), 3),
        "post_to_proof_max_seconds": round(waits[-1], 3),
        "tree_heads": len(posts.heads),
        "leaves_per_entry": round(posts.heads[-1][0] / entries, 3),
        "tile_bytes_per_million_entries": _per_million(folder.root / "tile", entries, tiles=True),
        "bundle_bytes_per_million_entries": _per_million(folder.root, entries, tiles=False),
        "state_bytes_per_million_entries": round(
            (home.openings_of("usd") / STATE).stat().st_size * 1e6 / entries
        ),
        **_proof_sizes(home, sorted(leaves)),
    }


async def _exported(home: Home, newest: int) -> None:
    """Wait until the archive has it all: proofs are made from there."""
    deadline = time.monotonic() + EXPORTED_SECONDS
    archive = Archive.open(home.archive_url)
    reader = LogReader.open(home.root, archive)
    while time.monotonic() < deadline:
        try:
            reader.entry(newest)
        except NotFound:
            await asyncio.sleep(0.5)
        else:
            break
    reader.close()
    archive.close()


def _proof_sizes(home: Home, seqs: list[int]) -> dict[str, Any]:
    """The files of lines and captures from all over the log, and how long each takes to make."""
    archive = Archive.open(home.archive_url)
    reader = LogReader.open(home.root, archive)
    lines, captures, began = [], [], time.perf_counter()
    for seq in seqs[:: max(len(seqs) // SAMPLES, 1)]:
        entry = reader.entry(seq).entry
        payees = [leg.account for leg in entry.legs if leg.account.startswith("contrib:")]
        if payees:
            lines.append(len(reader.line_proof(seq, payees[0])))
        elif entry.kind == "capture":
            accounts = [leg.account for leg in entry.legs]
            captures.append(len(reader.entry_proof(seq, accounts, with_manifest=True)))
    seconds = time.perf_counter() - began
    reader.close()
    archive.close()
    return {
        "contributor_proof_bytes_max": max(lines, default=0),
        "receipt_proof_bytes_max": max(captures, default=0),
        "proof_made_ms": round(1e3 * seconds / max(len(lines) + len(captures), 1), 2),
    }


def _per_million(folder: Path, entries: int, *, tiles: bool) -> int:
    files = [path for path in folder.rglob("*") if path.is_file()]
    mine = [
        path for path in files if ("entries" not in path.parts) is tiles and "tile" in path.parts
    ]
    return round(sum(path.stat().st_size for path in mine) * 1e6 / entries)


async def integrated(redis_url: str, home: Home, archive_url: str) -> dict[str, Any]:
    """How fast a notary that has the processor to itself takes in a journal that is there."""
    archive = Archive.open(archive_url)
    ledger = await Ledger.open(redis_url)
    openings, origin = home.openings_of("usd"), f"{ORIGIN}/usd"
    keys = log_keys(home.notary_of("usd"), openings, origin)
    state = State.open(openings, origin)
    notary = Notary(Source(ledger, archive, "usd"), state, LogFolder(home.log_of("usd")), keys)
    began = time.perf_counter()
    while await notary.once():
        pass
    seconds, entries = time.perf_counter() - began, state.standing().seq
    state.close()
    await ledger.close()
    archive.close()
    return {"entries": entries, "entries_integrated_per_second": round(entries / seconds)}


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All three parts, one after the other."""
    home, second = Home(folder / "home"), Home(folder / "second")
    for each in (home.root, second.root, folder / "many"):
        each.mkdir()
    server = RedisServer(folder / "data", unix_socket=folder / "s.sock", maxmemory="4gb")
    with running_redis(server):
        found = asyncio.run(under_load(server.url, home, options.rate, options.seconds))
        found |= asyncio.run(integrated(server.url, second, home.archive_url))
    return found | statement.measure(folder / "many", options.lines)


def main() -> None:
    """Measure, print, and hold it against the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    busy = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = measure(Path(folder), options)
        sync_ms = disk_sync_ms(Path(folder))
    missed = [name for name, bar in BARS.items() if found[name] > bar]
    cores = len(os.sched_getaffinity(0))
    machine = f"{cores} cores, {platform.machine()}"
    facts = {"machine": machine, "busy_before": busy, "disk_sync_ms": sync_ms}
    print(json.dumps({**facts, **found, "bars": BARS, "missed": missed}))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
