"""OpenTelemetry traces: one span an inference, and under it its hold, its engine, its capture.

Attributes follow OpenTelemetry's conventions for generative AI; prompts, answers and keys are never
among them. The exporter is imported only where tracing is on. Spans are drawn up after the answer
is out, from what was measured anyway; only what the engine has to be told of is begun before.
"""

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Self

from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, format_trace_id
from opentelemetry.trace import set_span_in_context as within
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.observed import ENGINE, Observed
from gateway.wire import Endpoint, Question

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

CLOSE_SECONDS = 2.0  # for the last spans; a collector that is away must not hold up the end
NANO = 1_000_000_000
SCHEMA = "https://opentelemetry.io/schemas/1.41.0"
OPERATIONS = {Endpoint.CHAT: "chat", Endpoint.COMPLETION: "text_completion"}
PROVIDER = "byline"
# The client's settings that are numbers; its `stop` is text, and stays out.
NUMBERS = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "seed": "gen_ai.request.seed",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
}
PROPAGATOR = TraceContextTextMapPropagator()  # `traceparent` and `tracestate`; no baggage

Attribute = str | bool | int | float


class Tracing:
    """Begins traces, and sends finished ones to a collector in the background."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("byline.gateway", schema_url=SCHEMA)

    @classmethod
    def open(cls) -> Self:
        """Export by OTLP over HTTP. All `OTEL_*` variables of the SDK and its exporter hold."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        named = Resource.create({"service.name": "byline-gateway"})
        provider = TracerProvider(
            resource=named.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    def begin(
        self, seen: Observed, question: Question, served_by: str, given: Mapping[str, str]
    ) -> "InferenceSpan":
        """The span of the inference in `seen`; `given` are the request's headers."""
        operation = OPERATIONS[question.endpoint]
        span = self._tracer.start_span(
            f"{operation} {question.model}",
            context=PROPAGATOR.extract(given),
            kind=SpanKind.SERVER,  # the application has the client's span, the engine's is below
            start_time=_epoch_ns(seen.started),
            attributes={
                "gen_ai.operation.name": operation,
                "gen_ai.response.model": served_by,
                **dict(_asked(question)),
            },
        )
        return InferenceSpan(self._tracer, span)

    async def close(self) -> None:
        """Send the last spans; what a collector does not take in time is dropped."""
        # A daemon: a thread of the loop's pool would be waited for when the program ends.
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, CLOSE_SECONDS)


class InferenceSpan:
    """The trace of one inference."""

    def __init__(self, tracer: Tracer, span: OtelSpan) -> None:
        self.trace_id = format_trace_id(span.get_span_context().trace_id)
        self._tracer = tracer
        self._span = span
        self._engine: OtelSpan | None = None

    def headers(self) -> dict[str, str]:
        """Begin the engine's part: the headers that hang the engine's own span below it."""
        self._engine = self._tracer.start_span(
            ENGINE, context=within(self._span), kind=SpanKind.CLIENT
        )
        carrier: dict[str, str] = {}
        PROPAGATOR.inject(carrier, context=within(self._engine))
        return carrier

    def end(self, seen: Observed) -> None:
        """Draw up the parts, say what came of it all, and hand the trace on."""
        if not self._span.is_recording():  # not sampled
            return
        for name, part in seen.parts.items():
            child = self._engine if name == ENGINE else None
            if child is None:
                child = self._tracer.start_span(
                    name, context=within(self._span), start_time=_epoch_ns(part.began)
                )
            child.end(_epoch_ns(part.ended))
        self._span.set_attributes(dict(_answered(seen)))
        if seen.code is not None:
            self._span.set_attribute("error.type", seen.code)
            self._span.set_status(Status(StatusCode.ERROR))
        # A charge may be posted after the answer is out: its span lies within this one.
        ends = (seen.ended, *(part.ended for part in seen.parts.values()))
        self._span.end(_epoch_ns(max(ends)))


def _asked(question: Question) -> Iterator[tuple[str, Attribute]]:
    fields = question.fields
    yield "gen_ai.provider.name", PROVIDER
    yield "gen_ai.request.model", question.model
    yield "gen_ai.request.stream", question.stream
    yield "gen_ai.output.type", "json" if _asks_for_json(fields) else "text"
    if question.choices != 1:
        yield "gen_ai.request.choice.count", question.choices
    if question.completion_tokens_max is not None:
        yield "gen_ai.request.max_tokens", question.completion_tokens_max
    for name, attribute in NUMBERS.items():
        value = fields.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield attribute, value


def _asks_for_json(fields: Mapping[str, object]) -> bool:
    wanted = fields.get("response_format")
    return isinstance(wanted, dict) and wanted.get("type") in ("json_object", "json_schema")


def _answered(seen: Observed) -> Iterator[tuple[str, Attribute]]:
    yield "http.route", seen.route
    yield "http.request.method", seen.method
    yield "http.response.status_code", seen.status
    if seen.inference is not None:
        yield "gen_ai.response.id", seen.inference
    if seen.application is not None:
        yield "byline.application", seen.application
    if seen.first_token_seconds is not None:
        yield "gen_ai.response.time_to_first_chunk", seen.first_token_seconds
    if (capture := seen.capture) is not None:
        yield "gen_ai.usage.input_tokens", capture.usage.prompt_tokens
        yield "gen_ai.usage.output_tokens", sum(capture.usage.completion_tokens)
        yield "byline.charge.nano", capture.charge_nano
        yield "byline.usage.source", str(capture.usage.source)
        yield "byline.partial", capture.partial


def _epoch_ns(moment: float) -> int:
    """When it was, in nanoseconds since 1970, what `time.perf_counter()` showed then."""
    return time.time_ns() - int((time.perf_counter() - moment) * NANO)
