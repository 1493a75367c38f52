"""Gateways that share the engines' places: the cap holds for all of them together, and all go on.

On a real Redis-protocol server, and once with gateways in processes of their own.
"""

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from byline.errors import LedgerUnavailable
from byline.posting.redis_client import connect
from byline.redis_server import RedisServer, running_redis
from gateway.engine_client import EngineClient
from gateway.engines import shared_places
from gateway.engines.engine import AdapterState, Engine
from gateway.engines.engines import EngineBounds, Engines
from gateway.engines.leases import Leases
from gateway.engines.places import Places
from gateway.engines.shared_places import Granted, SharedPlaces
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import eventually, serving_engine
from tests.gateway.place_gateway import ask, release_of

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
ADAPTERS = [adapter.version for adapter in release_of(5).adapters]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    folder = tmp_path_factory.mktemp("redis")
    found = RedisServer(folder, unix_socket=folder / "s.sock")
    with running_redis(found):
        yield found


@pytest.fixture(autouse=True)
async def no_leases(server: RedisServer) -> None:
    redis = connect(server.url)
    await redis.flushall()
    await redis.aclose()


@dataclass
class Counting(FakeEngine):
    """An engine that counts how many adapters are in flight at a time."""

    in_flight: Counter[str] = field(default_factory=Counter)
    most: int = 0

    async def _plain(self, request: web.Request, fields: dict[str, object]) -> web.Response:
        model = str(fields["model"])
        self.in_flight[model] += 1
        self.most = max(self.most, len(+self.in_flight))
        try:
            return await super()._plain(request, fields)
        finally:
            self.in_flight[model] -= 1


# --- two processes -------------------------------------------------------------------------------


def start(*words: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.gateway.place_gateway", *map(str, words)]
    return subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


async def together(redis_url: str, *, cap: int, count: int, adapters: int) -> tuple[int, list[int]]:
    """Two gateways at one engine: the most adapters in flight, and what each got answered."""
    engine = Counting(pause=0.01)
    async with serving_engine(engine) as url:
        programs = [start(redis_url, url, cap, count, adapters) for _ in range(2)]
        for program in programs:
            assert program.stdout is not None
            assert await asyncio.to_thread(program.stdout.readline) == "ready\n"
        ended = (asyncio.to_thread(p.communicate, "go\n", timeout=90) for p in programs)
        outputs = await asyncio.gather(*ended)
    return engine.most, [int(output) for output, _ in outputs]


@pytest.mark.slow
async def test_two_gateways_never_have_more_adapters_in_flight_than_the_engine_mixes(
    server: RedisServer,
) -> None:
    most, answers = await together(server.url, cap=2, count=150, adapters=5)
    assert answers == [150, 150]
    assert most == 2, "the places are used, and none above them"


@pytest.mark.slow
async def test_two_gateways_that_share_nothing_exceed_the_cap() -> None:
    """What the leases are for, and that the test above can fail."""
    most, _ = await together("-", cap=2, count=150, adapters=5)
    assert most > 2


# --- the script ----------------------------------------------------------------------------------


@asynccontextmanager
async def gateways(server: RedisServer, count: int) -> AsyncIterator[list[SharedPlaces]]:
    found = [SharedPlaces.of(server.url) for _ in range(count)]
    try:
        yield found
    finally:
        for each in found:
            await each.close()


async def share(
    one: SharedPlaces, keep: str = "", want: str = "", *, wait: bool = True, places: int = 2
) -> Granted:
    return await one.share("e:1", places, keep=keep.split(), want=want.split(), wait=wait)


async def test_an_adapter_takes_one_place_however_many_gateways_have_it(
    server: RedisServer,
) -> None:
    async with gateways(server, 2) as (one, two):
        assert await share(one, want="a b c") == Granted(["a", "b"], others_wait=False)
        assert (await share(two, want="a c")).adapters == ["a"]
        assert (await share(one, keep="a b")).others_wait
        assert await share(one, keep="a", want="c") == Granted(["c"], others_wait=True)
        assert (await share(two, keep="a", want="c")).adapters == ["c"]
        assert not (await share(one, keep="a")).others_wait, "its request has a place now"


async def test_what_is_only_wished_for_presses_nobody(server: RedisServer) -> None:
    async with gateways(server, 2) as (one, two):
        await share(one, want="a b")
        assert await share(two, want="c", wait=False) == Granted([], others_wait=False)
        assert not (await share(one, keep="a b")).others_wait


async def test_a_dead_gateways_leases_end_by_themselves(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_places, "LEASE_SECONDS", 1.0)
    async with gateways(server, 2) as (dead, two):
        await share(dead, want="a b")
        assert (await share(two, want="c")).adapters == []
        await asyncio.sleep(1.05)
        assert (await share(two, want="c")).adapters == ["c"]


async def test_engines_have_places_of_their_own(server: RedisServer) -> None:
    async with gateways(server, 1) as (one,):
        await share(one, want="a b")
        granted = await one.share("e:2", 2, keep=(), want=["a", "c"], wait=True)
        assert granted.adapters == ["a", "c"]


# --- the loop ------------------------------------------------------------------------------------


@asynccontextmanager
async def engines_at(
    server: RedisServer, *urls: str, cap: int = 1, wait_seconds: float = 10.0
) -> AsyncIterator[Engines]:
    shared = SharedPlaces.of(server.url, timeout_seconds=0.3)
    engines = Engines.open(
        urls, release_of(5), Path("/store"), CollectorRegistry(),
        bounds=EngineBounds(loras_max=cap, wait_seconds=wait_seconds), shared=shared,
    )  # fmt: skip
    await engines.start()
    try:
        yield engines
    finally:
        await engines.close()


async def test_a_busy_gateway_makes_room_for_the_adapter_of_another(server: RedisServer) -> None:
    """Requests that overlap for ever would keep the place for ever: a lease is worn out."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving_engine(Counting(pause=0.05)))
        busy = await stack.enter_async_context(engines_at(server, url))
        rare = await stack.enter_async_context(engines_at(server, url))

        async def again_and_again() -> None:
            while True:
                await busy.ask(ask(ADAPTERS[0]))

        loops = [asyncio.create_task(again_and_again()) for _ in range(4)]
        await asyncio.sleep(0.3)
        began = time.monotonic()
        await rare.ask(ask(ADAPTERS[1]))
        assert time.monotonic() - began < 5.0
        await busy.ask(ask(ADAPTERS[0]))  # and the busy one goes on
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)


async def test_a_closed_gateway_leaves_its_places_to_others_at_once(server: RedisServer) -> None:
    async with serving_engine(FakeEngine()) as url:
        async with engines_at(server, url) as first:
            await first.ask(ask(ADAPTERS[0]))
        async with engines_at(server, url) as second:
            began = time.monotonic()
            await second.ask(ask(ADAPTERS[1]))
            assert time.monotonic() - began < shared_places.LEASE_SECONDS / 2


async def test_without_the_ledgers_server_a_gateway_keeps_the_cap_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = RedisServer(tmp_path / "d", unix_socket=tmp_path / "s.sock")
    engine = Counting(pause=0.02)
    async with serving_engine(engine) as url, engines_at(away, url, cap=2) as engines:
        asks = [ask(random.choice(ADAPTERS)) for _ in range(30)]
        assert all(await asyncio.gather(*map(engines.ask, asks)))
        assert engine.most <= 2
        assert caplog.text.count("places are not shared") == 1


@dataclass
class Scripted:
    """A ledger's server of which each answer is known, and that notes what it was asked."""

    grants: bool = True
    is_away: bool = False
    asked: list[tuple[str, list[str], list[str], bool]] = field(default_factory=list)

    async def share(
        self, engine: str, places: int, *, keep: list[str], want: list[str], wait: bool
    ) -> Granted:
        self.asked.append((engine, list(keep), list(want), wait))
        if self.is_away:
            raise LedgerUnavailable("away")
        return Granted(list(want) if self.grants else [], others_wait=False)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def leased(count: int, *, cap: int) -> tuple[list[Engine], Places, Scripted, Leases, Clock]:
    clock, scripted = Clock(), Scripted()
    client = cast(EngineClient, None)
    engines = [Engine(f"e{n}", client, loras_max=cap, clock=clock) for n in range(count)]
    for engine in engines:
        engine.adapters = dict.fromkeys(ADAPTERS, AdapterState.READY)
    places = Places(engines, clock=clock, wait_seconds=5.0)
    leases = Leases(engines, places, cast(SharedPlaces, scripted), clock)
    return engines, places, scripted, leases, clock


async def test_a_request_whose_adapter_has_a_lease_asks_nobody() -> None:
    _, places, scripted, leases, clock = leased(1, cap=2)
    waiting = asyncio.create_task(places.take(ask(ADAPTERS[0])))
    await asyncio.sleep(0)
    await leases.round()
    (await waiting).end()
    for _ in range(100):
        (await places.take(ask(ADAPTERS[0]))).end()
    assert scripted.asked == [("e0", [], [ADAPTERS[0]], True)]
    clock.now = 11.0
    await leases.round()  # nobody used it for ten seconds
    assert scripted.asked[1:] == [("e0", [], [], True)]
    await leases.round()
    assert len(scripted.asked) == 2, "without a lease there is nothing to renew"


async def test_an_unused_place_of_its_own_goes_to_the_next_adapter_at_once() -> None:
    _, places, scripted, leases, _ = leased(1, cap=1)
    for adapter in ADAPTERS[:3]:
        waiting = asyncio.create_task(places.take(ask(adapter)))
        await asyncio.sleep(0)
        await leases.round()
        (await waiting).end()
    assert [(keep, want) for _, keep, want, _ in scripted.asked] == [
        ([], [adapter]) for adapter in ADAPTERS[:3]
    ]


async def test_a_request_that_would_spill_wishes_for_a_lease_where_less_is_to_do() -> None:
    (home, other), places, scripted, leases, _ = leased(2, cap=2)
    waiting = asyncio.create_task(places.take(ask(ADAPTERS[0])))
    await asyncio.sleep(0)
    await leases.round()
    first = await waiting
    first.engine.in_flight_tokens += 100_000
    second = await places.take(ask(ADAPTERS[0]))
    assert second.engine is first.engine, "it does not wait for what it only wishes for"
    await leases.round()
    third = await places.take(ask(ADAPTERS[0]))
    assert third.engine in {home, other} - {first.engine}
    assert [wait for _, _, want, wait in scripted.asked if want] == [True, False]


async def test_a_place_that_the_best_engine_lacks_is_sought_at_the_others() -> None:
    engines, places, scripted, leases, _ = leased(3, cap=2)
    scripted.grants = False
    waiting = asyncio.create_task(places.take(ask(ADAPTERS[0])))
    await asyncio.sleep(0)
    await leases.round()
    assert {engine for engine, *_ in scripted.asked} == {engine.name for engine in engines}
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await eventually(lambda: places.waiting == 0)
