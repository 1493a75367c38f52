"""Rounds of load, in turn over all gateways, so that a noisy minute hits all of them."""

import json
import statistics
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtests.gateway_bench import streams, wrk
from loadtests.gateway_bench.entrants import Entrant
from loadtests.gateway_bench.figures import GROWTH_REQUESTS, Figures, summary
from loadtests.gateway_bench.upstream import CHUNKS
from loadtests.ledger_bench.figures import disk_sync_ms

MANY, STREAMS = 32, 16  # connections
GROWTH_SECONDS_MAX = 300.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a comparison takes. Seconds are those of one load of one round."""

    rounds: int = 5
    one_seconds: float = 2.5
    many_seconds: float = 4.5
    burst_seconds: float = 3.5
    paced_rounds: int = 2
    paced_streams: int = 32
    growth_requests: int = GROWTH_REQUESTS
    growth_slice_seconds: float = 9.5


QUICK = Plan(
    rounds=2, one_seconds=0.5, many_seconds=1.5, burst_seconds=0.5, paced_rounds=1,
    growth_requests=2_000, growth_slice_seconds=1.5,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Growth:
    """The memory of one gateway before and after so many requests."""

    requests: int
    before_bytes: int
    after_bytes: int

    @property
    def part(self) -> float:
        """How much it grew, as a part of what it was."""
        return self.after_bytes / self.before_bytes - 1.0

    def fields(self) -> dict[str, Any]:
        """As it is printed."""
        return {**asdict(self), "growth": round(self.part, 4)}


def compared(
    entrants: Sequence[Entrant], plan: Plan, folder: Path
) -> tuple[dict[str, Any], dict[str, float]]:
    """Every gateway's figures, and this disk's."""
    found: dict[str, list[Figures]] = {entrant.name: [] for entrant in entrants}
    syncs = []
    for number in range(plan.rounds):
        syncs.append(disk_sync_ms(folder))
        for entrant in entrants:
            found[entrant.name].append(_round(entrant, plan, folder, number < plan.paced_rounds))
    sync = {name: statistics.median(each[name] for each in syncs) for name in syncs[0]}
    return {name: summary(rounds) for name, rounds in found.items()}, sync


def _round(entrant: Entrant, plan: Plan, folder: Path, paced: bool) -> Figures:
    def load(question: wrk.Question, connections: int, seconds: float, one: float) -> wrk.Load:
        times = wrk.Times.enough(seconds, connections=connections, one_answer=one)
        return wrk.run(question, times, connections=connections, folder=folder)

    one = load(entrant.plain(), 1, plan.one_seconds, 0.0)
    used = entrant.cpu_seconds()
    many = load(entrant.plain(), MANY, plan.many_seconds, one.p50_ms / 1e3)
    used_many = _spent_ms(entrant, used, many.requests)
    (alone,) = streams.ask(entrant.burst(), 1)
    used = entrant.cpu_seconds()
    burst = load(entrant.burst(), STREAMS, plan.burst_seconds, alone.seconds)
    resident = entrant.resident_bytes()
    return {
        "p50_ms_1": one.p50_ms,
        "p99_ms_1": one.p99_ms,
        "requests_per_second_32": many.rate,
        "p50_ms_32": many.p50_ms,
        "p99_ms_32": many.p99_ms,
        "cpu_ms_per_request": used_many,
        "burst_chunks_per_second": burst.rate * CHUNKS,
        "burst_cpu_ms_per_stream": _spent_ms(entrant, used, burst.requests),
        **(_paced(entrant, plan.paced_streams) if paced else {}),
        "rss_mib": resident / 2**20 if resident is not None else None,
        "failures": one.failures + many.failures + burst.failures,
    }


def _paced(entrant: Entrant, count: int) -> Figures:
    used = entrant.cpu_seconds()
    seen = streams.figures(streams.ask(entrant.paced(), count))
    chunks = seen["chunks"]
    return {
        "paced_chunks_per_second": seen["chunks_per_second"],
        "paced_broken": seen["broken"],
        "paced_first_token_ms": seen["first_token_ms"],
        "paced_late_p99_ms": seen["late_p99_ms"],
        "paced_cpu_ms_per_chunk": _spent_ms(entrant, used, chunks),
    }


def _spent_ms(entrant: Entrant, before: float | None, count: int) -> float | None:
    after = entrant.cpu_seconds()
    if before is None or after is None or not count:
        return None
    return (after - before) / count * 1e3


def growth(entrant: Entrant, plan: Plan, upstream_port: int, folder: Path) -> Growth:
    """The gateway's memory over so many plain requests; fewer where they take too long."""
    before = entrant.resident_bytes()
    first = asked(upstream_port)
    deadline = time.monotonic() + GROWTH_SECONDS_MAX
    while (done := asked(upstream_port) - first) < plan.growth_requests:
        if time.monotonic() > deadline:
            break
        times = wrk.Times(plan.growth_slice_seconds, wrk.QUIET_SECONDS_MIN)
        wrk.run(entrant.plain(), times, connections=MANY, folder=folder)
    after = entrant.resident_bytes()
    assert before is not None
    assert after is not None
    return Growth(done, before, after)


def asked(upstream_port: int) -> int:
    """How many questions the stand-in engine got on one port."""
    with urllib.request.urlopen(f"http://127.0.0.1:{upstream_port}/count", timeout=10) as answer:
        counts: dict[str, int] = json.loads(answer.read())
    return counts.get(str(upstream_port), 0)
