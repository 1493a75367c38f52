"""How many durable posts a second one process takes, beside what others take on this machine.

    python -m loadtests.bench_ledger [--seconds 1.5] [--callers 100] [--folder /dev/shm]

A real server that syncs its append-only file before every answer, on one core; this process on
another, where there are two. Ours and a naive redis-py client take turns against that server, with
the same scripts and the same payloads; then the script's own ceiling by a native load tool, the
rebuild, the export, the bytes of an entry, PostgreSQL double entry, and this disk. Prints one JSON
object as its last line; what is not installed is null, and `why` says so.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from byline.ledger.ledger import Ledger
from byline.redis_server import RedisServer, running_redis
from loadtests.bench_bytes import report as bytes_report
from loadtests.ledger_bench.ceiling import TOOL, ceiling
from loadtests.ledger_bench.clients import NAME
from loadtests.ledger_bench.figures import disk_sync_ms
from loadtests.ledger_bench.postgres import double_entry
from loadtests.ledger_bench.posting import compared
from tests.byline.postgres import WHAT_TO_INSTALL, postgres_programs, running_postgres

CALLERS = 100
WEIGHED = {6: 3_000, 98: 300}  # settlements, by their legs


def server_in(folder: Path) -> RedisServer:
    """A server with room for every round, that does not rewrite its file in the middle of one."""
    return RedisServer(
        folder, unix_socket=folder / "s.sock", maxmemory="8gb",
        settings={"auto-aof-rewrite-percentage": "0"},
    )  # fmt: skip


async def rebuilt(url: str) -> dict[str, Any]:
    """How fast the journal that the rounds have left is checked and rebuilt."""
    ledger = await Ledger.open(url, name=NAME, timeout_seconds=60.0)
    books = await ledger.check()
    assert books.balanced, books
    began = time.perf_counter()
    await ledger.rebuild()
    seconds = time.perf_counter() - began
    await ledger.close()
    return {
        "entries": books.journal_entries,
        "entries_per_second": round(books.journal_entries / seconds),
    }


def against_redis(folder: Path, cores: list[int], options: argparse.Namespace) -> dict[str, Any]:
    """All that needs the ledger's server."""
    found: dict[str, Any] = {}
    os.sched_setaffinity(0, cores[:1])
    server = server_in(folder / "posting")
    with running_redis(server):
        os.sched_setaffinity(0, cores[-1:])
        found |= uvloop.run(compared(server.url, options.callers, options.seconds))
        found["rebuild"] = uvloop.run(rebuilt(server.url))
    os.sched_setaffinity(0, cores[:1])
    server = server_in(folder / "ceiling")
    with running_redis(server):
        os.sched_setaffinity(0, cores[-1:])
        assert server.unix_socket is not None
        found["script_ceiling"] = ceiling(server.url, server.unix_socket)
    return found


def against_postgresql(cores: list[int]) -> dict[str, Any] | None:
    """None where it is not installed."""
    programs = postgres_programs()
    if programs is None:
        return None
    os.sched_setaffinity(0, cores[:1])
    with running_postgres(programs) as server:
        os.sched_setaffinity(0, cores[-1:])
        return uvloop.run(double_entry(server))


def weighed(cores: list[int]) -> dict[str, Any]:
    """Bytes an entry, and rows exported a second, by the legs of a settlement."""
    os.sched_setaffinity(0, cores)
    return bytes_report(WEIGHED)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5, help="of one round")
    parser.add_argument("--callers", type=int, default=CALLERS, help="at once, in one process")
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"), "machine": f"{len(cores)} cores, {platform.machine()}",
        "callers": options.callers,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        found["disk_sync_ms"] = disk_sync_ms(Path(name))
        found |= against_redis(Path(name), cores, options)
    found["postgresql_six_legs"] = against_postgresql(cores)
    found["bytes"] = weighed(cores)
    found["why"] = {
        **({} if found["script_ceiling"] else {"script_ceiling": f"{TOOL} is not installed"}),
        **({} if found["postgresql_six_legs"] else {"postgresql_six_legs": WHAT_TO_INSTALL}),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
