"""Operator logging: one JSON object a line on stderr. Bodies and keys are never logged.

Tracebacks say where and what kind of error it was, without its message: that may quote what a
client sent, or what a model answered.
"""

import logging
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType

import orjson

from gateway.observed import Observed

log = logging.getLogger("gateway.requests")

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
FIELDS = "fields"  # the record's attribute that holds more of a line's fields

ExceptionInfo = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


class JsonLines(logging.Formatter):
    """One record as one line of JSON; a traceback is one escaped string in it."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's time, level, logger, message, its fields, and traceback if it has one."""
        moment = datetime.fromtimestamp(record.created, UTC)
        fields = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _encodable(record.getMessage()),
            **record.__dict__.get(FIELDS, {}),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(fields).decode()

    def formatException(self, ei: ExceptionInfo) -> str:  # noqa: N802 - logging's name
        """Each error's frames and kind, the cause first."""
        return "\n".join(_frames(ei[1])) if ei[1] is not None else ""


def log_to_stderr(level: str) -> None:
    """Send every logger's lines to stderr. Replaces what was configured before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)


def log_request(seen: Observed) -> None:
    """One line for one request, when its answer is out and its charge is settled."""
    if seen.route in PROBES:
        level = logging.DEBUG
    else:
        level = logging.WARNING if seen.status >= 500 or seen.broke_off else logging.INFO
    if log.isEnabledFor(level):
        # As `log.log` does it, without its walk up the stack for the caller's name.
        record = log.makeRecord(log.name, level, "", 0, "answered", (), None)
        record.__dict__[FIELDS] = _request_fields(seen)
        log.handle(record)


def _request_fields(seen: Observed) -> dict[str, object]:
    fields: dict[str, object] = {
        "request_id": seen.request_id,
        "route": seen.route,
        "method": seen.method,
        "status": seen.status,
        "total_ms": _ms(seen.ended - seen.started),
    }
    if seen.code is not None:
        fields["code"] = seen.code
    if seen.trace_id is not None:
        fields["trace_id"] = seen.trace_id
    if seen.application is not None:
        fields["application"] = seen.application
    if seen.inference is not None:
        _add_inference(fields, seen)
    return fields


def _add_inference(fields: dict[str, object], seen: Observed) -> None:
    fields["inference_id"] = seen.inference
    fields["model"] = seen.model
    fields["mode"] = "stream" if seen.streamed else "plain"
    fields["own_ms"] = _ms(seen.own_seconds)
    fields["upstream_ms"] = _ms(seen.upstream_seconds)
    if seen.first_token_seconds is not None:
        fields["first_token_ms"] = _ms(seen.first_token_seconds)
    for name, part in seen.parts.items():
        fields[f"{name}_ms"] = _ms(part.ended - part.began)
    if (capture := seen.capture) is not None:
        fields["prompt_tokens"] = capture.usage.prompt_tokens
        fields["completion_tokens"] = sum(capture.usage.completion_tokens)
        fields["usage_source"] = capture.usage.source.value
        fields["charge_nano"] = capture.charge_nano
        fields["partial"] = capture.partial


def _ms(seconds: float) -> float:
    return int(seconds * 1_000_000) / 1_000


def _encodable(text: str) -> str:
    """The text without half surrogates, which no UTF-8 can carry."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _frames(problem: BaseException) -> Iterator[str]:
    before = problem.__cause__ or (None if problem.__suppress_context__ else problem.__context__)
    if before is not None:
        yield from _frames(before)
    yield "".join(traceback.format_tb(problem.__traceback__)) + type(problem).__qualname__
    if isinstance(problem, BaseExceptionGroup):
        for part in problem.exceptions:
            yield from _frames(part)
