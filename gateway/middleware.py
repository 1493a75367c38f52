"""Plain ASGI middleware: the request's id, clock and last resort, and the size limit.

Plain, because Starlette's `BaseHTTPMiddleware` hides a client that goes away from the handlers.
"""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import uuid_utils
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import (
    CLIENT_GONE_STATUS,
    INTERNAL,
    INTERNAL_MESSAGE,
    BodyTooLarge,
    error_response,
    response_of,
)
from gateway.telemetry import UNKNOWN, Telemetry

log = logging.getLogger("gateway")

REQUEST_ID = re.compile(rb"^[A-Za-z0-9._-]{1,128}$")
OBSERVED = "byline.observed"  # the key in the ASGI scope


@dataclass(slots=True)
class Observed:
    """What is measured of one request while it is handled."""

    started: float = field(default_factory=time.perf_counter)
    upstream_seconds: float = 0.0
    asks_engine: bool = False
    model: str = UNKNOWN
    status: int = 500
    client_gone: bool = False


def observed(connection: HTTPConnection) -> Observed:
    """The measurements of the request in hand."""
    found = connection.scope[OBSERVED]
    assert isinstance(found, Observed)
    return found


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
        with self.telemetry.in_flight.track_inprogress():
            try:
                await self._answer(scope, receive, _naming(scope, seen, send))
            finally:
                self._count(scope, seen)

    async def _answer(self, scope: Scope, receive: Receive, send: "_Sender") -> None:
        try:
            await self.app(scope, receive, send)
        except Exception:  # the last resort: a bug must not show itself to a client
            log.exception("a request to %s failed", _route(scope))
            if send.started:
                raise  # half an answer is out: the server closes the connection
            response = error_response(INTERNAL, INTERNAL_MESSAGE)
            await response(scope, receive, send)

    def _count(self, scope: Scope, seen: Observed) -> None:
        route = _route(scope)
        total = time.perf_counter() - seen.started
        status = CLIENT_GONE_STATUS if seen.client_gone else seen.status
        self.telemetry.requests.labels(route, seen.model, str(status)).inc()
        self.telemetry.request_seconds.labels(route).observe(total)
        if seen.asks_engine:
            self.telemetry.upstream_seconds.labels(route).observe(seen.upstream_seconds)
            self.telemetry.own_seconds.labels(route).observe(total - seen.upstream_seconds)


class _Sender:
    """`send` with the request's id added to the answer, and a note of what was sent."""

    def __init__(self, send: Send, seen: Observed, request_id: bytes) -> None:
        self.send = send
        self.seen = seen
        self.request_id = request_id
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.seen.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self.request_id)]
        await self.send(message)


def _naming(scope: Scope, seen: Observed, send: Send) -> _Sender:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    name = given if REQUEST_ID.match(given) else str(uuid_utils.uuid7()).encode()
    return _Sender(send, seen, name)


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
