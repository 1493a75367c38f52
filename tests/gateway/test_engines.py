"""Several engines on loopback ports: loaded, checked, asked, and asked again when one fails."""

import asyncio
import json
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from byline.errors import (
    AdapterUnavailable,
    EngineBroke,
    EngineError,
    EngineRefused,
    EngineTimedOut,
    EngineUnavailable,
    GenerationFailed,
)
from byline.redis_server import RedisServer, running_redis
from gateway.engine_client import GENERATION_FAILED, Ask, EngineClient, Timeouts
from gateway.engines.canary import changes_answers, difference_nats
from gateway.engines.engine import AdapterState
from gateway.engines.engines import EngineBounds, Engines
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import CHAT, CYBER, MED, RELEASE, House, eventually, serving_engine
from tests.gateway.real_ledger import ask as ask_gateway
from tests.gateway.real_ledger import deposit, gateway_over, kinds_of, services_over

pytestmark = pytest.mark.anyio
BOUNDS = EngineBounds(
    wait_seconds=1.0,
    look_seconds=0.05,
    drain_seconds=0.2,
    timeouts=Timeouts(first_token=0.3, idle=0.3, answer=2.0),
)


@dataclass
class Row:
    """Some engines, and the gateway's side of them."""

    fakes: list[FakeEngine]
    engines: Engines
    registry: CollectorRegistry

    def states(self) -> list[dict[str, str]]:
        described = self.engines.described().values()
        return [engine["adapters"] for engine in described]  # type: ignore[index]

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def row_of(
    *fakes: FakeEngine, away: int = 0, bounds: EngineBounds = BOUNDS
) -> AsyncIterator[Row]:
    """These engines, and `away` addresses where nobody listens."""
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(serving_engine(fake)) for fake in fakes]
        urls += [f"http://127.0.0.1:{port}" for port in range(1, away + 1)]
        registry = CollectorRegistry()
        engines = Engines.open(urls, RELEASE, Path("/store"), registry, bounds=bounds)
        stack.push_async_callback(engines.close)
        await engines.start()
        yield Row(list(fakes), engines, registry)


def ask(adapter: str | None = MED.version, *, stream: bool = False, prefix: int = 0) -> Ask:
    fields = b'{"model":"%s","stream":%s}' % (
        (adapter or "tiny").encode(), b"true" if stream else b"false",
    )  # fmt: skip
    return Ask("/v1/completions", fields, "an-inference", adapter=adapter, tokens=9, prefix=prefix)


async def whole(engines: Engines, adapter: str | None = MED.version) -> bytes:
    stream = await engines.stream(ask(adapter, stream=True))
    try:
        return b"".join([data async for data in stream.reads()])
    finally:
        stream.close()


# --- desired and actual --------------------------------------------------------------------------


async def test_an_engine_without_adapters_gets_them_from_their_own_folder() -> None:
    async with row_of(FakeEngine(), FakeEngine()) as row:
        for fake in row.fakes:
            assert sorted(fake.loads) == [
                (CYBER.version, f"/store/{CYBER.path}"), (MED.version, f"/store/{MED.path}"),
            ]  # fmt: skip
        assert row.states() == [{MED.version: "ready", CYBER.version: "ready"}] * 2


async def test_what_an_engine_has_already_is_checked_and_not_loaded_again() -> None:
    fake = FakeEngine(adapters={MED.version: "x", CYBER.version: "y", "theirs@000000000000": "z"})
    async with row_of(fake) as row:
        assert not fake.loads
        assert set(fake.probed) == {"tiny", MED.version, CYBER.version}
        await asyncio.sleep(0.2)
        assert "theirs@000000000000" in fake.adapters, "another's adapter was taken away"
        assert len(fake.probed) == 4, "the canary costs two requests an adapter, once"
        assert row.engines.serves(MED.version)


async def test_a_restarted_engine_gets_its_adapters_by_itself() -> None:
    async with row_of(FakeEngine()) as row:
        (fake,) = row.fakes
        fake.adapters.clear()
        await eventually(lambda: len(fake.loads) == 4)
        await eventually(lambda: row.engines.serves(MED.version))
        assert await row.engines.ask(ask())


async def test_an_adapter_that_another_gateway_loads_meanwhile_is_served() -> None:
    fake = FakeEngine(load_refused=(400, "The lora adapter 'x' has already been loaded."))
    async with row_of(fake) as row:
        assert not row.engines.serves(MED.version)
        fake.adapters = {MED.version: "x", CYBER.version: "y"}
        await eventually(lambda: row.engines.serves(MED.version))


async def test_an_adapter_that_fails_to_load_is_refused_and_the_others_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake = FakeEngine(load_refused=(500, "rank"), adapters={CYBER.version: "y"})
    async with row_of(fake) as row:
        assert row.states() == [{MED.version: "failed", CYBER.version: "ready"}]
        with pytest.raises(AdapterUnavailable, match=MED.version):
            await row.engines.ask(ask())
        assert await row.engines.ask(ask(CYBER.version))
        assert f"can't serve {MED.version}" in caplog.text
        await asyncio.sleep(0.2)
        assert len(fake.loads) == 1, "it is not tried over and over"


async def test_an_adapter_no_longer_wanted_is_drained_then_unloaded() -> None:
    fake = FakeEngine(hang_after=1)
    async with row_of(fake) as row:
        stream = await row.engines.stream(ask(stream=True))
        row.engines.want([CYBER])
        (await row.engines.stream(ask(stream=True))).close()  # it was chosen before the switch
        await asyncio.sleep(0.25)
        assert MED.version in fake.adapters, "its last answer is under way"
        stream.close()
        await eventually(lambda: MED.version not in fake.adapters)
        await eventually(lambda: row.states() == [{CYBER.version: "ready"}])
        with pytest.raises(AdapterUnavailable):
            await row.engines.ask(ask())
        labels = {"engine": next(iter(row.engines.described())), "adapter": MED.version}
        shown = row.registry.get_sample_value
        await eventually(lambda: shown("byline_adapter_ready", labels) is None)


async def test_an_adapter_wanted_again_while_it_drains_is_ready_at_once() -> None:
    async with row_of(FakeEngine()) as row:
        row.engines.want([CYBER])
        row.engines.want([CYBER, MED])
        assert row.engines.states(MED.version) == {AdapterState.READY}
        await asyncio.sleep(0.4)
        assert await row.engines.ask(ask())
        assert len(row.fakes[0].loads) == 2


async def test_an_adapter_that_was_never_ready_leaves_at_once() -> None:
    fake = FakeEngine(ignored={MED.version})
    async with row_of(fake, bounds=replace(BOUNDS, drain_seconds=60.0)) as row:
        row.engines.want([CYBER])
        await eventually(lambda: MED.version not in fake.adapters)
        fake.ignored.clear()
        row.engines.want([CYBER, MED])
        await eventually(lambda: row.engines.serves(MED.version))


# --- the canary ----------------------------------------------------------------------------------


async def test_an_adapter_that_changes_nothing_is_not_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake = FakeEngine(ignored={MED.version})
    async with row_of(fake) as row:
        assert row.states() == [{MED.version: "not_applied", CYBER.version: "ready"}]
        with pytest.raises(AdapterUnavailable):
            await row.engines.ask(ask())
        assert not fake.asked
        (name,) = row.engines.described()
        assert row.metric("byline_adapter_ready", engine=name, adapter=MED.version) == 0
        assert row.metric("byline_adapter_ready", engine=name, adapter=CYBER.version) == 1
        assert row.metric("byline_adapter_loads_total", engine=name, outcome="not_applied") == 1
        assert [r.levelno for r in caplog.records if MED.version in r.message] == [logging.CRITICAL]


def test_a_token_that_one_side_does_not_name_counts_by_the_others_least() -> None:
    assert difference_nats({"a": -1.0, "b": -2.0}, {"a": -1.0, "b": -2.0}) == 0.0
    assert difference_nats({"a": -1.0, "b": -2.0}, {"a": -1.0, "c": -2.5}) == 0.5


@dataclass
class Scripted:
    """An engine client that answers probes with these log-probabilities, in this order."""

    nats: list[float]

    async def ask(self, _: Ask) -> bytes:
        top = {" the": self.nats.pop(0)}
        return json.dumps({"choices": [{"logprobs": {"top_logprobs": [top]}}]}).encode()


@pytest.mark.parametrize(
    ("base", "adapter", "base_again", "applied"),
    [
        (-1.0, -1.0, None, False),
        (-1.0, -1.5, None, True),
        (-1.0, -1.02, -1.0, True),  # little, and the base model answers as before
        (-1.0, -1.02, -1.02, False),  # so little that the base model differs from itself as much
    ],
)
async def test_noise_of_the_batch_is_not_taken_for_an_adapter(
    base: float, adapter: float, base_again: float | None, applied: bool
) -> None:
    scripted = Scripted([base, adapter, *([base_again] if base_again else [])])
    client = cast(EngineClient, scripted)
    assert await changes_answers(client, MED.version, "tiny") is applied
    assert not scripted.nats


@pytest.mark.parametrize("answer", [b"{", b"[]", b'{"choices":[{"logprobs":null}]}'])
async def test_a_probe_that_can_not_be_read_is_no_yes(answer: bytes) -> None:
    class Garbled(Scripted):
        async def ask(self, _: Ask) -> bytes:
            return answer

    with pytest.raises(EngineBroke):
        await changes_answers(cast(EngineClient, Garbled([])), MED.version, "tiny")


# --- asking --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_is_gone_is_passed_over(stream: bool) -> None:
    async with row_of(FakeEngine(), away=1) as row:
        for prefix in range(20):
            if stream:
                (await row.engines.stream(ask(None, stream=True, prefix=prefix))).close()
            else:
                assert await row.engines.ask(ask(None, prefix=prefix))
        assert len(row.fakes[0].asked) == 20
        assert 1 <= row.metric("byline_engine_repeats_total") <= 3, "then it is left alone"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_dies_before_its_first_byte_is_replaced(stream: bool) -> None:
    dying, well = FakeEngine(stop_after=0), FakeEngine()
    async with row_of(dying, well) as row:
        for _ in range(10):
            assert (await whole(row.engines)) if stream else (await row.engines.ask(ask()))
        assert len(dying.asked) <= 6, "three times, each of them again on a new connection"
        assert len(well.asked) == 10


async def test_an_answer_that_began_is_not_asked_for_again() -> None:
    fakes = FakeEngine(stop_after=2), FakeEngine(stop_after=2)
    async with row_of(*fakes) as row:
        with pytest.raises(EngineBroke):
            await whole(row.engines)
        assert sum(len(fake.asked) for fake in fakes) == 1


async def test_a_request_that_kills_engines_reaches_two_at_most() -> None:
    fakes = [FakeEngine(stop_after=0) for _ in range(4)]
    async with row_of(*fakes) as row:
        with pytest.raises(EngineBroke):
            await row.engines.ask(ask())
        assert sum(bool(fake.asked) for fake in fakes) == 2


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (500, GENERATION_FAILED, GenerationFailed), (400, "no", EngineRefused),
        (413, "no", EngineRefused),
    ],
)  # fmt: skip
async def test_what_the_request_itself_causes_is_not_repeated(
    status: int, message: str, error: type[EngineError]
) -> None:
    fakes = [FakeEngine(refuses=(status, {"error": {"message": message}})) for _ in range(2)]
    async with row_of(*fakes) as row:
        with pytest.raises(error):
            await row.engines.ask(ask())
        assert sum(len(fake.asked) for fake in fakes) == 1


async def test_a_full_engine_hands_over_and_is_not_left_alone() -> None:
    full = FakeEngine(refuses=(503, {"error": {"message": "queue"}}))
    async with row_of(full, FakeEngine()) as row:
        for prefix in range(10):
            assert await row.engines.ask(ask(prefix=prefix))
        assert not any(e["breaker_open"] for e in row.engines.described().values())  # type: ignore[index]


async def test_first_token_and_idle_have_their_own_patience() -> None:
    slow = FakeEngine(hang_after=0)
    async with row_of(slow) as row:
        with pytest.raises(EngineTimedOut):
            await row.engines.stream(ask(stream=True))
        assert len(slow.asked) == 1, "it is at work: another would do the same again"
    stuck = FakeEngine(hang_after=2)
    patient = Timeouts(first_token=30.0, idle=0.2, answer=30.0)
    async with row_of(stuck, bounds=replace(BOUNDS, timeouts=patient)) as row:
        with pytest.raises(EngineTimedOut):
            async with asyncio.timeout(5):
                await whole(row.engines)
    plain = FakeEngine(pause=0.5)  # nothing of it comes before all of it
    async with row_of(plain) as row:
        assert await row.engines.ask(ask())


async def test_an_engine_that_accepts_no_connection_is_given_up_after_the_connect_time() -> None:
    """A host that is gone answers nothing at all: here, a listener whose queue is full."""
    with socket.socket() as listening, ExitStack() as filling:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = filling.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        url = "http://{}:{}".format(*listening.getsockname())
        client = EngineClient.open(url, timeouts=Timeouts(connect=0.2))
        try:
            async with asyncio.timeout(10):
                with pytest.raises(EngineUnavailable):
                    await client.ask(ask(None))
        finally:
            await client.close()


async def test_all_work_is_given_back_however_it_ends() -> None:
    fake = FakeEngine(hang_after=1)
    async with row_of(fake) as row:
        (name,) = row.engines.described()
        stream = await row.engines.stream(ask(stream=True))
        assert row.metric("byline_engine_tokens_in_flight", engine=name) == 9
        stream.close()
        stream.close()
        fake.pause = 5.0
        waiting = asyncio.create_task(row.engines.ask(ask()))
        await eventually(lambda: len(fake.asked) == 2)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.wait_for(fake.aborted.wait(), 4)
        assert row.metric("byline_engine_tokens_in_flight", engine=name) == 0
        assert row.metric("byline_engine_requests_in_flight", engine=name) == 0


async def test_ready_is_one_engine_that_is_well_and_looked_over() -> None:
    async with row_of(FakeEngine(healthy=False), FakeEngine(), away=1) as row:
        await row.engines.probe()
        row.fakes[1].healthy = False
        with pytest.raises(EngineUnavailable):
            await row.engines.probe()
    async with row_of(away=1) as row:
        with pytest.raises(EngineUnavailable):
            await row.engines.probe()

    class Silent(FakeEngine):
        async def _models(self, _: web.Request) -> web.Response:
            return web.Response(status=500)

    async with row_of(Silent()) as row:
        with pytest.raises(EngineUnavailable, match="adapters yet"):
            await row.engines.probe()


async def test_an_engine_that_went_away_has_nothing_loaded() -> None:
    async with serving_engine(FakeEngine()) as url:
        engines = Engines.open([url], RELEASE, Path("/store"), CollectorRegistry(), bounds=BOUNDS)
        await engines.start()
        assert engines.serves(MED.version)
    try:
        await eventually(lambda: not engines.serves(MED.version))
        with pytest.raises(AdapterUnavailable):
            await engines.ask(ask())
    finally:
        await engines.close()


# --- through the gateway -------------------------------------------------------------------------


async def test_an_adapter_that_is_not_loaded_answers_503_and_costs_nothing(house: House) -> None:
    house.engine.load_refused = (500, "no")
    house.engine.adapters.clear()
    refused = await house.ask(CHAT)
    assert (refused.status, refused.fields["error"]["code"]) == (503, "adapter_unavailable")
    assert refused.headers["retry-after"] == "1"
    assert not house.engine.asked, "the base model must not answer in its place"
    assert (await house.ask({**CHAT, "model": "tiny"})).status == 200
    assert len(house.ledger.captures) == 1
    assert len(house.ledger.voids) == 1


@pytest.mark.parametrize("stops_after", [0, 2], ids=["before the first byte", "in the middle"])
async def test_an_inference_is_charged_once_however_many_engines_it_took(
    tmp_path: Path, stops_after: int
) -> None:
    """Real ledger, two engines of which one always breaks: each answer has one hold and one end."""
    server = RedisServer(tmp_path / "data", unix_socket=tmp_path / "s.sock")
    breaking, well = FakeEngine(stop_after=stops_after), FakeEngine()
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(serving_engine(e)) for e in (breaking, well)]
        stack.enter_context(running_redis(server))
        await deposit(server)
        services = await services_over(server.url, ",".join(urls), tmp_path)
        async with gateway_over(services) as url:
            for number in range(24):  # the base model: each question has a home of its own
                text = [{"role": "user", "content": f"question {number}"}]
                fields = {"model": "tiny", "messages": text, "stream": number % 2 == 0}
                status, _ = await ask_gateway(url, fields)
                assert status == 200
        kinds = Counter(await kinds_of(server, count=49))
        assert breaking.asked, "the test needs one that broke"
        assert kinds == {"deposit": 1, "hold": 24, "capture": 24}
