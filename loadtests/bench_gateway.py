"""The gateway's speed beside its peers, in one run, with money on.

    python -m loadtests.bench_gateway [--quick] [--only portkey,...] [--folder /path/on/a/disk]

Each gateway has one core; the stand-in engine, the ledger's server and the load tool share another.
Ours runs as it is served: keys, holds on the disk before the engine is asked, captures that outlive
the program before an answer is out, kept tokens, metrics. The others do none of that. Loads take
turns over all gateways, round by round. Prints one JSON object as its last line, with the bars;
what is not installed is in `why`. Exits 1 if our books don't balance, whatever the speed.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import uvloop

from byline.redis_server import running_redis
from loadtests.gateway_bench import measuring, ours, peers, wrk
from loadtests.gateway_bench.entrants import Entrant, NotStarted, answers, running, spawn, stop
from loadtests.gateway_bench.figures import DIRECT, OURS, added_p50_ms, bars, rounded
from loadtests.gateway_bench.peers import Command, Peer
from loadtests.gateway_bench.streams import ask
from loadtests.gateway_bench.upstream import CHUNKS

QUICK_PEERS = ("portkey", "litellm")  # the first that is there
NOT_INSTALLED = "not installed: `make peers`"


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything of one run is."""

    folder: Path
    gateway_core: int
    load_core: int
    upstream_ports: Mapping[str, int]  # by gateway: each one's questions are counted by themselves


def main() -> int:
    """Measure, look at the books, print."""
    options = _options()
    if wrk.tool() is None:
        print("the load tool is not installed: `make peers`, or apt-get install wrk")
        return 2
    chosen, why = chosen_peers(options.only, quick=options.quick)
    cores = sorted(os.sched_getaffinity(0))
    head = {
        "date": time.strftime("%Y-%m-%d"), "machine": f"{len(cores)} cores, {platform.machine()}",
        "busy_before": psutil.cpu_percent(1.0) / 100,  # by others: what was measured beside
    }  # fmt: skip
    os.sched_setaffinity(0, cores[-1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = [DIRECT, OURS, *(peer.name for peer in chosen)]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        stage = Stage(Path(folder), cores[0], cores[-1], ports)
        plan = measuring.QUICK if options.quick else measuring.Plan()
        try:
            found = measured(stage, chosen, plan, why)
        except NotStarted as problem:
            print(problem)
            return 2
    print(json.dumps(head | found | {"why": why}))
    return 0 if found["books"]["whole"] else 1


def chosen_peers(only: Sequence[str] | None, *, quick: bool) -> tuple[list[Peer], dict[str, str]]:
    """The peers of this run, and why the others are not in it."""
    why = {peer.name: NOT_INSTALLED for peer in peers.ALL if peer.program() is None}
    chosen = [peer for peer in peers.ALL if peer.name not in why]
    if only is None and quick:
        only = [name for name in QUICK_PEERS if name not in why][:1]
    if only is not None:
        why |= {peer.name: "not asked for" for peer in chosen if peer.name not in only}
        chosen = [peer for peer in chosen if peer.name in only]
    return chosen, why


def measured(
    stage: Stage, chosen: Sequence[Peer], plan: measuring.Plan, why: dict[str, str]
) -> dict[str, Any]:
    """Start everything, measure, stop, and read the books."""
    (redis_port,) = free_ports(1)
    server = ours.redis_server(stage.folder / "ledger", redis_port)
    with upstream(stage), running_redis(server):
        with contextlib.ExitStack() as started:
            own = started.enter_context(our_gateway(stage, server.url))
            others = list(running_peers(stage, chosen, why, started))
            gateways, sync = measuring.compared([_direct(stage), own, *others], plan, stage.folder)
            grown = measuring.growth(own, plan, stage.upstream_ports[OURS], stage.folder)
        asked = measuring.asked(stage.upstream_ports[OURS])
        books = uvloop.run(ours.account(server.url, asked))
    for name, figures in gateways.items():
        figures["added_p50_ms"] = rounded(added_p50_ms(gateways, name))
    return {
        "disk_sync_ms": sync,
        "gateways": gateways,
        "rss": grown.fields(),
        "bars": bars(
            gateways, sync_ms=sync["p50"], growth=grown.part, grown_over=grown.requests
        ),
        "books": {**asdict(books), "whole": books.whole},
    }  # fmt: skip


@contextlib.contextmanager
def upstream(stage: Stage) -> Iterator[None]:
    """The stand-in engine, beside the load."""
    argv = [sys.executable, "-m", "loadtests.gateway_bench.upstream"]
    ports = [str(port) for port in stage.upstream_ports.values()]
    process = spawn([*argv, *ports], {}, stage.load_core, stage.folder / "upstream.log")
    try:
        while not answers(_direct(stage).plain()):
            if process.poll() is not None:
                raise NotStarted((stage.folder / "upstream.log").read_text()[-300:])
            time.sleep(0.05)
        yield
    finally:
        stop(process)


def _direct(stage: Stage) -> Entrant:
    url = f"http://127.0.0.1:{stage.upstream_ports[DIRECT]}"
    return Entrant(DIRECT, url, Command([]), None)


@contextlib.contextmanager
def our_gateway(stage: Stage, redis_url: str) -> Iterator[Entrant]:
    """Our gateway, with an application that has money."""
    home = stage.folder / "home"
    home.mkdir()
    ours.write_home(home)
    secret = uvloop.run(ours.opened(redis_url))
    (port,) = free_ports(1)
    command = ours.command(home, port, stage.upstream_ports[OURS], redis_url, secret)
    with running(OURS, command, port=port, core=stage.gateway_core, folder=stage.folder) as own:
        yield own


def running_peers(
    stage: Stage, chosen: Sequence[Peer], why: dict[str, str], started: contextlib.ExitStack
) -> Iterator[Entrant]:
    """Those that start, and pass a whole stream on."""
    for peer in chosen:
        program = peer.program()
        assert program is not None
        folder = stage.folder / peer.name
        folder.mkdir()
        (port,) = free_ports(1)
        command = peer.command(program, folder, port, stage.upstream_ports[peer.name])
        place = running(peer.name, command, port=port, core=stage.gateway_core, folder=folder)
        try:
            entrant = started.enter_context(place)
        except NotStarted as problem:
            why[peer.name] = str(problem)
            continue
        (seen,) = ask(entrant.burst(), 1)
        if not seen.whole:
            why[peer.name] = f"passes {seen.chunks} of {CHUNKS} chunks on"
            continue
        yield entrant


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    with contextlib.ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute: one peer, short rounds")
    parser.add_argument("--only", type=lambda text: text.split(","), help="peers, with commas")
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
