"""Plain ASGI middleware: the request's id, clock and last resort, and the size limit.

Plain, because Starlette's `BaseHTTPMiddleware` hides a client that goes away from the handlers.
"""

import logging
import re
import time
from collections.abc import Callable

import uuid_utils
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import (
    CLIENT_GONE_STATUS,
    INTERNAL,
    INTERNAL_MESSAGE,
    BodyTooLarge,
    error_response,
    response_of,
)
from gateway.observed import OBSERVED, Observed
from gateway.operator_log import log_request
from gateway.telemetry import Telemetry

log = logging.getLogger("gateway")

REQUEST_ID = re.compile(rb"^[A-Za-z0-9._-]{1,128}\Z")
# W3C's `traceparent`, version 00; an all-zero trace is none.
TRACEPARENT = re.compile(rb"^00-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}\Z")


class ObserveRequests:
    """Outermost: gives each request an id, measures it, and turns a bug into a plain 500."""

    def __init__(self, app: ASGIApp, *, telemetry: Telemetry) -> None:
        self.app = app
        self.telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; other kinds of connection pass through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        seen = Observed()
        scope[OBSERVED] = seen
        self.telemetry.requests_in_flight += 1
        try:
            await self._answer(scope, receive, _naming(scope, seen, send))
        finally:
            self.telemetry.requests_in_flight -= 1
            self._ended(scope, seen)

    async def _answer(self, scope: Scope, receive: Receive, send: "_Sender") -> None:
        try:
            await self.app(scope, receive, send)
        except Exception:  # the last resort: a bug must not show itself to a client
            log.exception("a request to %s failed", _route(scope))
            send.seen.code = INTERNAL.code
            if send.started:
                raise  # half an answer is out: the server closes the connection
            response = error_response(INTERNAL, INTERNAL_MESSAGE)
            await response(scope, receive, send)

    def _ended(self, scope: Scope, seen: Observed) -> None:
        seen.ended = time.perf_counter()
        seen.route = _route(scope)
        seen.method = scope["method"]
        if seen.client_gone:
            seen.status, seen.code = CLIENT_GONE_STATUS, "client_gone"
        self.telemetry.request_ended(seen)
        if seen.settling is None or seen.settling.done():
            _report(seen)
        else:  # who left early, or whose ledger is late, is charged after the answer
            seen.settling.add_done_callback(lambda _: _report(seen))


def _report(seen: Observed) -> None:
    """Draw up what is told of one request once all is known."""
    if seen.span is not None:
        seen.trace_id = seen.span.trace_id
        seen.span.end(seen)
    log_request(seen)


class _Sender:
    """`send` with the request's id added to the answer, and a note of what was sent."""

    def __init__(self, send: Send, seen: Observed) -> None:
        self.send = send
        self.seen = seen
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.seen.status = message["status"]
            more = [(name.encode(), value.encode()) for name, value in self.seen.headers.items()]
            given = message.get("headers", ())
            message["headers"] = [*given, *more, (b"x-request-id", self.seen.request_id.encode())]
        began = time.perf_counter()
        await self.send(message)  # returns late where the client reads slowly
        self.seen.elsewhere_seconds += time.perf_counter() - began


def _naming(scope: Scope, seen: Observed, send: Send) -> _Sender:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.match(value):
            seen.request_id = value.decode()
        elif name == b"traceparent" and (found := TRACEPARENT.match(value)):
            seen.trace_id = found[1].decode()
    seen.request_id = seen.request_id or str(uuid_utils.uuid7())
    return _Sender(send, seen)


def _route(scope: Scope) -> str:
    """The route's template: a closed set, unlike the paths clients ask for."""
    path: str = getattr(scope.get("route"), "path", "unmatched")
    return path


class LimitBody:
    """Refuses a request body above `bytes_max`, whether or not its length was announced."""

    def __init__(self, app: ASGIApp, *, bytes_max: int) -> None:
        self.app = app
        self.bytes_max = bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, counting its body's bytes."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        if len(announced) > 18 or not announced.isdigit() or int(announced) > self.bytes_max:
            await response_of(self._too_large())(scope, receive, send)
            return
        await self.app(scope, _counting(receive, self.bytes_max, self._too_large), send)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The request body may have {self.bytes_max} bytes at most.")


def _counting(receive: Receive, bytes_max: int, refuse: Callable[[], BodyTooLarge]) -> Receive:
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > bytes_max:
            raise refuse()
        return message

    return counted
