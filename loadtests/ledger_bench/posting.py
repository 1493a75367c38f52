"""Durable posts a second: rounds of both clients in turn, against the same server."""

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.asyncio import Redis

from byline.ledger.ledger import Ledger
from loadtests.ledger_bench.clients import NAME, Naive, Ours
from loadtests.ledger_bench.figures import Round, summary
from loadtests.ledger_bench.operations import (
    APPLICATION,
    CHARGE_NANO,
    FUNDS_NANO,
    HOLD_MS,
    attributions,
    captures,
    events,
    now_ms,
)

Record = TypeVar("Record")
ROUNDS = 7
WARM_POSTS = 2_000
POSTS_MIN = 2_000


async def timed_round(
    records: Sequence[Record], callers: int, post: Callable[[Record], Awaitable[None]]
) -> Round:
    """Every record's post; each caller sends its next one when it has its answer."""
    waits: list[float] = []

    async def caller(own: Sequence[Record]) -> None:
        for record in own:
            began = time.perf_counter()
            await post(record)
            waits.append(time.perf_counter() - began)

    gc.collect()
    began = time.perf_counter()
    await asyncio.gather(*(caller(records[k::callers]) for k in range(callers)))
    return Round(time.perf_counter() - began, waits)


async def held(ledger: Ledger, count: int, callers: int) -> list[str]:
    """So many inferences with holds, which nobody times."""
    await ledger.deposit(events(1)[0], APPLICATION, FUNDS_NANO, time_ms=now_ms())
    inferences = events(count)

    async def hold(inference: str) -> None:
        now = now_ms()
        await ledger.hold(
            inference, APPLICATION, CHARGE_NANO, expires_ms=now + HOLD_MS, time_ms=now
        )

    await timed_round(inferences, callers, hold)
    return inferences


async def compared(url: str, callers: int, seconds: float) -> dict[str, Any]:
    """Both clients' captures of six legs and settlements of fifty-one, in rounds of `seconds`."""
    ledger = await Ledger.open(url, name=NAME)
    redis = Redis.from_url(url, decode_responses=True, protocol=2, max_connections=callers)
    naive = Naive(redis, ledger.epoch)
    await naive.load()
    clients: dict[str, Ours | Naive] = {"ours": Ours(ledger), "naive_redis_py": naive}
    rates = {name: await _warm(ledger, client, callers) for name, client in clients.items()}
    rounds: dict[tuple[str, str], list[Round]] = {}
    for _ in range(ROUNDS):
        for name, client in clients.items():
            posts = max(POSTS_MIN, int(rates[name] * seconds))
            inferences = await held(ledger, posts, callers)
            wide = inferences[: max(POSTS_MIN, posts // 4)]
            six = await timed_round(captures(inferences), callers, client.capture)
            fifty_one = await timed_round(attributions(wide), callers, client.settle)
            rounds.setdefault(("six_legs", name), []).append(six)
            rounds.setdefault(("fifty_one_legs", name), []).append(fifty_one)
    await redis.aclose()
    await ledger.close()
    return {
        legs: {
            **{name: summary(rounds[legs, name]) for name in clients},
            **_ratios(rounds[legs, "ours"], rounds[legs, "naive_redis_py"]),
        }
        for legs in ("six_legs", "fifty_one_legs")
    }


async def _warm(ledger: Ledger, client: Naive | Ours, callers: int) -> float:
    """Posts a second of a short round that does not count."""
    inferences = await held(ledger, WARM_POSTS, callers)
    return (await timed_round(captures(inferences), callers, client.capture)).rate


def _ratios(ours: Sequence[Round], naive: Sequence[Round]) -> dict[str, Any]:
    """Each round against the one beside it: a noisy machine is as noisy to both."""
    ratios = sorted(round(a.rate / b.rate, 2) for a, b in zip(ours, naive, strict=True))
    return {"times_naive": statistics.median(ratios), "times_naive_rounds": ratios}
