"""Traces: one span an inference, its parts below it; from the client through to the engine."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import ValidationError

from gateway.observed import Observed
from gateway.settings import GatewaySettings
from gateway.tracing import Tracing
from gateway.wire import Endpoint, read_question
from tests.gateway.conftest import CHAT, STREAM, House, eventually

pytestmark = pytest.mark.anyio

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
EXPORTER = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> Tracing:
    """Traces into memory."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracing(provider)


async def spans_of(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """The finished spans by name, once the inference's own is among them."""
    await eventually(lambda: any(not s.parent or s.parent.is_remote for s in finished(exporter)))
    return {span.name: span for span in finished(exporter)}


def finished(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    return list(exporter.get_finished_spans())


async def test_an_inference_is_a_span_with_the_conventions_attributes(
    house: House, exporter: InMemorySpanExporter
) -> None:
    asked = {
        **CHAT,
        "n": 1,
        "temperature": 0.5,
        "seed": 7,
        "response_format": {"type": "json_object"},
    }
    answer = await house.ask(asked)
    span = (await spans_of(exporter))["chat med"]
    capture = house.ledger.captures[answer.headers["x-byline-inference-id"]]
    assert span.kind is SpanKind.SERVER
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "byline",
        "gen_ai.request.model": "med",
        "gen_ai.request.stream": False,
        "gen_ai.request.max_tokens": 8,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 7,
        "gen_ai.output.type": "json",
        "gen_ai.response.model": "med@0123456789ab",
        "gen_ai.response.id": answer.headers["x-byline-inference-id"],
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 3,
        "http.route": "/v1/chat/completions",
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "byline.application": "shop",
        "byline.charge.nano": capture.charge_nano,
        "byline.usage.source": "engine",
        "byline.partial": False,
    }
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("fields", [CHAT, STREAM])
async def test_hold_engine_and_capture_lie_below_it_in_their_order(
    house: House, exporter: InMemorySpanExporter, fields: dict[str, object]
) -> None:
    house.engine.pause = 0.03
    began = time.time_ns()
    await house.ask(fields)
    spans = await spans_of(exporter)
    assert spans.keys() == {"chat med", "hold", "engine", "capture"}
    root = spans["chat med"]
    parts = [spans[name] for name in ("hold", "engine", "capture")]
    within = [edge for part in parts for edge in (part.start_time, part.end_time)]
    edges = [root.start_time, *within]
    assert edges == sorted(edge for edge in edges if edge is not None)
    capture = spans["capture"]  # which the answer need not wait for
    assert (capture.start_time or 0) <= (root.end_time or 0)
    assert (edges[0] or 0) > began - 1_000_000
    engine = spans["engine"]
    least = 30_000_000 * (5 if fields is STREAM else 1)
    assert (engine.end_time or 0) - (engine.start_time or 0) >= least
    assert all(part.parent and part.parent.span_id == root.context.span_id for part in parts)
    first = "gen_ai.response.time_to_first_chunk"
    assert ((root.attributes or {}).get(first, 0) > 0.03) == (fields is STREAM)  # type: ignore[operator]


async def test_a_traceparent_is_continued_and_goes_on_to_the_engine(
    house: House, exporter: InMemorySpanExporter
) -> None:
    await house.ask(STREAM, headers=GIVEN)
    spans = await spans_of(exporter)
    root = spans["chat med"]
    assert f"{root.context.trace_id:032x}" == TRACE
    assert root.parent is not None
    assert f"{root.parent.span_id:016x}" == PARENT
    sent = house.engine.asked[0][1]
    assert sent["traceparent"] == f"00-{TRACE}-{spans['engine'].context.span_id:016x}-01"
    assert sent["tracestate"] == "vendor=1"


@pytest.mark.parametrize("given", ["", "00-zz-zz-01", f"00-{'0' * 32}-{PARENT}-01", "x" * 5_000])
async def test_a_traceparent_that_is_none_begins_a_new_trace(
    house: House, exporter: InMemorySpanExporter, given: str
) -> None:
    answer = await house.ask(CHAT, headers={"traceparent": given})
    assert answer.status == 200
    root = (await spans_of(exporter))["chat med"]
    assert root.parent is None
    assert house.engine.asked[0][1]["traceparent"].split("-")[1] == f"{root.context.trace_id:032x}"


async def test_an_error_is_marked_with_its_code_and_without_its_text(
    house: House, exporter: InMemorySpanExporter
) -> None:
    house.engine.refuses = (400, {"error": {"message": "you wrote What helps?"}})
    await house.ask(CHAT)
    spans = await spans_of(exporter)
    root = spans["chat med"]
    assert spans.keys() == {"chat med", "hold", "engine", "void"}
    assert (root.attributes or {})["error.type"] == "engine_refused"
    assert (root.attributes or {})["http.response.status_code"] == 400
    assert (root.status.status_code, root.status.description) == (StatusCode.ERROR, None)
    assert not root.events


async def test_a_client_that_leaves_has_its_span_with_what_it_paid(
    house: House, exporter: InMemorySpanExporter
) -> None:
    house.engine.hang_after = 3  # the role and two tokens
    await house.leave_after(STREAM, b"w102")
    spans = await spans_of(exporter)
    attributes = spans["chat med"].attributes or {}
    assert attributes["error.type"] == "client_gone"
    assert attributes["http.response.status_code"] == 499
    assert attributes["byline.partial"]
    assert attributes["gen_ai.usage.output_tokens"] == 2
    assert "capture" in spans


async def test_a_request_without_a_model_has_no_span(
    house: House, exporter: InMemorySpanExporter
) -> None:
    assert (await house.ask({**CHAT, "model": "none"})).status == 404
    await house.get("/v1/models")
    assert finished(exporter) == []


async def test_what_is_not_sampled_is_not_exported_and_says_so_to_the_engine() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    seen, question = Observed(), read_question(Endpoint.CHAT, json.dumps(CHAT).encode())
    span = Tracing(provider).begin(seen, question, "med", {})
    flags = int(span.headers()["traceparent"][-2:], 16)
    assert not flags & 1
    span.end(seen)
    assert finished(exporter) == []


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, list[tuple[str, bytes]]]]:
    """A stand-in for an OTLP collector: what it was sent, by path."""
    received: list[tuple[str, bytes]] = []

    async def take(request: web.Request) -> web.Response:
        received.append((request.path, await request.read()))
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/{path:.*}", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}", received
    await runner.cleanup()


async def test_spans_reach_a_collector_by_otlp(monkeypatch: pytest.MonkeyPatch) -> None:
    async with collector() as (url, received):
        monkeypatch.setenv(EXPORTER, url)
        tracing = Tracing.open()
        seen, question = Observed(), read_question(Endpoint.CHAT, json.dumps(CHAT).encode())
        span = tracing.begin(seen, question, "med@1", GIVEN)
        span.headers()
        seen.part("engine")
        span.end(seen)
        await tracing.close()
    assert [path for path, _ in received] == ["/v1/traces"]
    sent = ExportTraceServiceRequest.FromString(received[0][1]).resource_spans[0]
    resource = {pair.key: pair.value.string_value for pair in sent.resource.attributes}
    assert resource["service.name"] == "byline-gateway"
    spans = sent.scope_spans[0].spans
    assert {span.name for span in spans} == {"chat med", "engine"}
    assert {span.trace_id.hex() for span in spans} == {TRACE}


def test_traces_are_off_unless_the_standard_variable_names_a_collector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(EXPORTER, raising=False)
    assert not GatewaySettings().otel_exporter_otlp_endpoint
    monkeypatch.setenv(EXPORTER, "http://collector:4318")
    assert GatewaySettings().otel_exporter_otlp_endpoint == "http://collector:4318"
    monkeypatch.setenv(EXPORTER, "collector")
    with pytest.raises(ValidationError, match=EXPORTER):
        GatewaySettings()


def test_the_exporter_is_not_loaded_where_traces_are_off() -> None:
    code = "import sys, gateway.app; assert 'opentelemetry.exporter' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2],
                   env={"PYTHONPATH": "src:."})  # fmt: skip


async def test_a_collector_that_is_away_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv(EXPORTER, f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3")
        tracing = Tracing.open()
        seen, question = Observed(), read_question(Endpoint.CHAT, json.dumps(CHAT).encode())
        tracing.begin(seen, question, "med", {}).end(seen)
        started = time.monotonic()
        await tracing.close()
        assert time.monotonic() - started < 2.5
