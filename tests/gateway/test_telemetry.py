"""What the gateway's metrics say: own time, paces, journeys; and how many series there can be."""

import asyncio
import json
import random
import time
from typing import cast

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Histogram
from starlette.types import Message, Send

from byline.metric_labels import LABELS_MAX
from byline.records import Capture, Usage, UsageSource
from gateway.app import build_app
from gateway.engine_client import EngineClient
from gateway.engines.engine import AdapterState, Engine
from gateway.engines.metrics import EngineMetrics
from gateway.loop_metrics import LoopHistogram
from gateway.observed import NO_MODEL, OTHER, Observed
from gateway.telemetry import GAPS, Telemetry
from tests.gateway.conftest import CHAT, SHOP, STREAM, House, eventually

pytestmark = pytest.mark.anyio

ROUTE = "/v1/chat/completions"
NAMES = 10_000


@pytest.mark.parametrize("fields", [CHAT, STREAM])
async def test_own_time_leaves_out_all_waits_for_the_engine(
    house: House, fields: dict[str, object]
) -> None:
    house.engine.pause = 0.25  # before the answer, and between a stream's six events
    await house.ask(fields)
    streamed = fields is STREAM
    await eventually(lambda: house.metric("byline_own_seconds_count", route=ROUTE) == 1)
    assert house.metric("byline_own_seconds_sum", route=ROUTE) < 0.24
    upstream = house.metric("byline_upstream_seconds_sum", route=ROUTE)
    assert upstream > (1.25 if streamed else 0.25)
    assert house.metric("byline_request_seconds_sum", route=ROUTE) > upstream


async def test_own_time_leaves_out_a_client_that_sends_slowly(house: House) -> None:
    reader, writer = await asyncio.open_connection(*house.url.removeprefix("http://").split(":"))
    head = f"POST {ROUTE} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SHOP}\r\n"
    body = b'{"model":"med","messages":[{"role":"user","content":"x"}],"max_tokens":4}'
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:10])
    await asyncio.sleep(0.5)
    writer.write(body[10:])
    assert b"200 OK" in await reader.readline()
    writer.close()
    await eventually(lambda: house.metric("byline_own_seconds_count", route=ROUTE) == 1)
    assert house.metric("byline_own_seconds_sum", route=ROUTE) < 0.49
    assert house.metric("byline_request_seconds_sum", route=ROUTE) > 0.5


async def test_own_time_leaves_out_a_client_that_reads_slowly(house: House) -> None:
    async def send(_: Message) -> None:
        await asyncio.sleep(0.3)

    await asgi(house, json.dumps(CHAT).encode(), send=send)
    assert house.metric("byline_request_seconds_sum", route=ROUTE) > 0.6
    assert 0 < house.metric("byline_own_seconds_sum", route=ROUTE) < 0.3


async def test_a_streams_first_token_and_the_gaps_after_it_are_measured(house: House) -> None:
    house.engine.pause = 0.05
    await house.ask(STREAM)
    count = house.metric("byline_inter_token_seconds_count", model="med")
    assert house.metric("byline_first_token_seconds_count", model="med") == 1
    assert house.metric("byline_first_token_seconds_sum", model="med") >= 0.05
    assert count == 3  # four events with choices: a role and three tokens
    assert house.metric("byline_inter_token_seconds_sum", model="med") > 0.14
    await house.ask(CHAT)
    assert house.metric("byline_inter_token_seconds_count", model="med") == count


async def test_holds_are_captures_and_voids_by_mode(house: House) -> None:
    await house.ask(CHAT)
    await house.ask(STREAM)
    house.engine.refuses = (400, {"error": {"message": "no"}})
    await house.ask(STREAM)
    await eventually(lambda: house.metric("byline_voids_total", mode="stream") == 1)

    def counts(name: str) -> tuple[float, float]:
        full = f"byline_{name}_total"
        return house.metric(full, mode="plain"), house.metric(full, mode="stream")

    assert (counts("holds"), counts("captures")) == ((1, 2), (1, 1))
    assert (counts("voids"), counts("aborts")) == ((0, 1), (0, 0))
    assert house.metric("byline_tokens_total", model="med", kind="prompt") == 6
    assert house.metric("byline_tokens_total", model="med", kind="completion") == 6


@pytest.mark.parametrize(("fields", "mode"), [(CHAT, "plain"), (STREAM, "stream")])
async def test_a_client_that_leaves_is_an_abort_of_its_mode(
    house: House, fields: dict[str, object], mode: str
) -> None:
    house.engine.pause = 0.3
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.45 if mode == "stream" else 0.15):
            await house.ask(fields)
    await eventually(lambda: house.metric("byline_aborts_total", mode=mode) == 1)
    await eventually(lambda: house.metric("byline_captures_total", mode=mode) == 1)
    other = {"plain": "stream", "stream": "plain"}[mode]
    assert house.metric("byline_aborts_total", mode=other) == 0


async def asgi(
    house: House, body: bytes, *, send: Send | None = None, app: FastAPI | None = None
) -> None:
    """One request to the app itself, without a connection."""

    messages: list[Message] = [{"type": "http.request", "body": body}]

    async def receive() -> Message:
        if not messages:
            await asyncio.Event().wait()  # the client stays
        return messages.pop()

    async def swallow(_: Message) -> None:
        pass

    headers = [(b"authorization", f"Bearer {SHOP}".encode())]
    scope = {"type": "http", "method": "POST", "path": ROUTE, "headers": headers,
             "query_string": b"", "http_version": "1.1"}  # fmt: skip
    await (app or build_app(house.services))(scope, receive, send or swallow)


def series(telemetry: Telemetry) -> int:
    return sum(len(family.samples) for family in telemetry.registry.collect())


async def test_ten_thousand_invented_models_add_one_series_for_all_of_them(house: House) -> None:
    app, before = build_app(house.services), 0
    for number in range(NAMES):
        name = f"{random.getrandbits(64):x}-{number}".encode()
        body = b'{"model":"%s","messages":[{"role":"user","content":"x"}]}' % name
        await asgi(house, body, app=app)
        before = before or series(house.telemetry)
    assert series(house.telemetry) == before
    labels = {"route": ROUTE, "model": OTHER, "status": "404"}
    assert house.metric("byline_requests_total", **labels) == NAMES


def capture(tokens: int) -> Capture:
    usage = Usage(tokens, (tokens,), UsageSource.ENGINE)
    return Capture(
        inference="i", application="shop", held_nano=9, charge_nano=9, credits=(), pools=(),
        skipped=None, model="m", served_by="m", adapter_version=None, index=None, usage=usage,
        partial=False, tokens_sha256=None, policy="p",
    )  # fmt: skip


def test_a_model_outside_the_release_is_other_wherever_it_is_counted() -> None:
    telemetry = Telemetry()
    telemetry.serve(["med"])
    before = 0
    for number in range(NAMES):
        seen = Observed(asks_engine=True, model=f"m{number}", route=ROUTE, status=200)
        telemetry.request_ended(seen)
        telemetry.captured(seen.model, capture(1), streamed=False)
        telemetry.routed(seen.model)
        pace = telemetry.pace(seen)
        pace.piece()
        pace.piece()
        before = before or series(telemetry)
    assert series(telemetry) == before
    tokens = {"model": OTHER, "kind": "completion"}
    assert telemetry.registry.get_sample_value("byline_tokens_total", tokens) == NAMES
    assert telemetry.known("med") == "med"
    assert telemetry.known(NO_MODEL) == NO_MODEL


def test_releases_of_any_size_and_number_have_a_bounded_number_of_series() -> None:
    telemetry, before = Telemetry(), 0
    for number in range(20):
        names = [f"adapter-{number}-{adapter}" for adapter in range(100)]
        telemetry.serve(names)
        for name in names:
            telemetry.captured(name, capture(1), streamed=False)
            pace = telemetry.pace(Observed(model=name))
            pace.piece()
            pace.piece()
        before = before or series(telemetry)
    assert series(telemetry) < 2.2 * before
    labels = {"model": OTHER, "kind": "completion"}
    assert telemetry.registry.get_sample_value("byline_tokens_total", labels) == 18 * 100
    assert telemetry.known("adapter-0-7") == OTHER, "it left the release"
    telemetry.serve(["adapter-0-7"])
    assert telemetry.known("adapter-0-7") == "adapter-0-7", "and came back"


def test_adapters_above_the_bound_are_ready_together_or_not_at_all() -> None:
    registry = CollectorRegistry()
    metrics = EngineMetrics(registry)
    engine = Engine("e", cast(EngineClient, None), loras_max=4, clock=time.monotonic)
    versions = [f"a{number}@0" for number in range(LABELS_MAX + 50)]
    engine.adapters = dict.fromkeys(versions, AdapterState.READY)

    def ready(adapter: str) -> float | None:
        labels = {"engine": "e", "adapter": adapter}
        return registry.get_sample_value("byline_adapter_ready", labels)

    metrics.show(engine)
    assert (ready("a0@0"), ready(versions[-1]), ready(OTHER)) == (1, None, 1)
    engine.adapters[versions[-1]] = AdapterState.FAILED
    metrics.show(engine)
    assert (ready("a0@0"), ready(OTHER)) == (1, 0)
    engine.adapters = dict.fromkeys(versions[:2], AdapterState.READY)
    metrics.show(engine)
    assert (ready("a1@0"), ready("a2@0"), ready(OTHER)) == (1, None, None)


def test_a_loop_histogram_shows_what_the_librarys_own_shows() -> None:
    pages = []
    values = [random.Random(7).choice([*GAPS, 0.0, 0.0101, 9.0]) for _ in range(200)]
    for kind in (Histogram, LoopHistogram):
        registry = CollectorRegistry()
        histogram = kind("h", "Text.", ["a"], buckets=GAPS, registry=registry)
        for value in values:
            histogram.labels("x").observe(value)
        samples = next(iter(registry.collect())).samples
        pages.append({(s.name, *s.labels.items()): s.value for s in samples
                      if not s.name.endswith("_created")})  # fmt: skip
    assert pages[0] == pytest.approx(pages[1])


def test_a_name_is_registered_once() -> None:
    registry = CollectorRegistry()
    LoopHistogram("h", "Text.", [], buckets=GAPS, registry=registry)
    with pytest.raises(ValueError, match="Duplicated"):
        LoopHistogram("h", "Text.", [], buckets=GAPS, registry=registry)


def test_measuring_one_piece_takes_a_microsecond_or_so() -> None:
    telemetry = Telemetry()
    telemetry.serve(["med"])
    pace = telemetry.pace(Observed(model="med"))
    fastest = 1.0
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(1_000):
            pace.piece()
        fastest = min(fastest, (time.perf_counter() - started) / 1_000)
    assert fastest < 5e-6
