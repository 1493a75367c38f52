"""A gateway's engines in a process of their own: `python -m tests.gateway.place_gateway ...`.

Arguments: the ledger's address (or `-`: places are not shared), the engine's, the cap, how many
requests, and how many adapters. Says `ready`, begins with a line of input, and prints how many
requests were answered.
"""

import asyncio
import random
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from byline.errors import EngineError
from byline.records import AdapterVersion, Release
from gateway.engine_client import Ask
from gateway.engines.engines import EngineBounds, Engines
from gateway.engines.shared_places import SharedPlaces

AT_A_TIME = 8


def release_of(count: int) -> Release:
    """A release of this many adapters."""
    adapters = tuple(
        AdapterVersion(
            adapter=f"a{n}", version=f"a{n}@000000000000", path=f"adapters/a{n}", owner="o",
            base_model="tiny", dataset="d@000000000000", index="i@000000000000",
        )
        for n in range(count)
    )  # fmt: skip
    return Release("tiny", "base/tiny@000000000000", 2_048, adapters, "router@000000000000")


def ask(version: str) -> Ask:
    """One plain question to an adapter."""
    body = b'{"model":"%s","stream":false}' % version.encode()
    return Ask("/v1/completions", body, "an-inference", adapter=version, tokens=9)


async def answered(engines: Engines, versions: list[str], count: int, seed: int) -> int:
    """Ask `count` times, some at a time; how many answers came."""
    dice, gate, done = random.Random(seed), asyncio.Semaphore(AT_A_TIME), 0

    async def one(version: str) -> None:
        nonlocal done
        async with gate:
            try:
                await engines.ask(ask(version))
            except EngineError as problem:
                print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
                return
        done += 1

    await asyncio.gather(*(one(dice.choice(versions)) for _ in range(count)))
    return done


async def main(redis_url: str, engine_url: str, cap: int, count: int, adapters: int) -> None:
    """Be a gateway for so many requests."""
    shared = None if redis_url == "-" else SharedPlaces.of(redis_url)
    release, bounds = release_of(adapters), EngineBounds(loras_max=cap, wait_seconds=30.0)
    engines = Engines.open(
        [engine_url], release, Path("/store"), CollectorRegistry(), bounds=bounds, shared=shared
    )
    await engines.start()
    versions = [adapter.version for adapter in release.adapters]
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)  # so that all gateways begin together
    print(await answered(engines, versions, count, seed=id(engines)))
    await engines.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])))
