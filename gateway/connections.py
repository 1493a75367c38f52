"""One client's connection: what it may send before it is answered, and how long it may take.

uvicorn's protocol bounds neither, and nobody has shown an API key yet. A request's body has its own
bound in `gateway.middleware`.
"""

import asyncio
import json
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.errors import Answered, error_fields
from gateway.leaving import PRESENCE, Presence

HEAD_BYTES_MAX = 65_536  # the request line with the headers; of a chunked body, what is not body
HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0  # between two reads of a body
AHEAD_BYTES_MAX = 65_536  # sent behind requests while none of them was answered ...
AHEAD_MAX = 64  # ... and requests that wait for those before them

TOO_LARGE = Answered(431, "invalid_request_error", "headers_too_large")
TOO_LARGE_MESSAGE = f"A request's headers may have {HEAD_BYTES_MAX} bytes at most."
NO_HTTP = Answered(400, "invalid_request_error", "invalid_http")
TOO_SLOW = Answered(408, "invalid_request_error", "request_timeout")
TOO_SLOW_MESSAGE = "The request did not come in time."
REASONS = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's protocol with bounds, and with an open eye on clients that leave."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._no_body_bytes = 0  # read since the last that was of a body
        self._ahead_bytes = 0
        self._is_head = True  # a head is what comes next, or goes on
        self._overtaken: list[RequestResponseCycle] = []  # unanswered when the next one came
        self._timer: asyncio.TimerHandle | None = None
        self._presence = Presence()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there; its first request has to come."""
        super().connection_made(transport)
        self._allow(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: also for the requests that others were sent behind."""
        self._disarm()
        super().connection_lost(exc)
        for cycle in self._overtaken:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self._presence.end()

    def data_received(self, data: bytes) -> None:
        """Take what was read, unless it is too much."""
        self._ahead_bytes = self._ahead_bytes + len(data) if self._is_answering else 0
        if self._ahead_bytes > AHEAD_BYTES_MAX or len(self.pipeline) > AHEAD_MAX:
            self.transport.abort()
            return
        was_head = self._is_head
        self._no_body_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            self._disarm()
        elif self._no_body_bytes > HEAD_BYTES_MAX:
            self._refuse(TOO_LARGE, TOO_LARGE_MESSAGE)
        elif self._is_answering:
            self._disarm()
            # What a client sent ahead must not keep us from seeing it leave.
            self.flow.resume_reading()
        elif not (self._is_head and was_head):  # the time of a head begins with its first byte
            self._allow(HEAD_SECONDS if self._is_head else BODY_SECONDS)
        elif self._timer is None:
            self._allow(HEAD_SECONDS)

    def on_headers_complete(self) -> None:
        """A request's head is there."""
        earlier = self.cycle
        self._is_head = False
        self._no_body_bytes = 0
        super().on_headers_complete()
        cast(dict[str, object], self.scope)[PRESENCE] = self._presence
        self._overtaken = [cycle for cycle in self._overtaken if not cycle.response_complete]
        if self.pipeline and earlier is not None:
            self._overtaken.append(earlier)

    def on_body(self, body: bytes) -> None:
        """Some of its body is there."""
        self._no_body_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The whole request is there."""
        self._is_head = True
        self._no_body_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A request is answered."""
        self._ahead_bytes = 0
        super().on_response_complete()
        if self.cycle.more_body and not self.cycle.response_complete:  # it had been sent ahead
            self._allow(BODY_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP in the shape of every other error, and never within an answer."""
        self._refuse(NO_HTTP, msg)

    @property
    def _is_answering(self) -> bool:
        """Whether all that was begun is there, and some of it has no answer yet."""
        cycle = self.cycle
        if self.pipeline:
            return True
        return cycle is not None and not cycle.more_body and not cycle.response_complete

    def _allow(self, seconds: float) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self._late, seconds)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self, seconds: float) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self.flow.read_paused:  # it is not the client who keeps us waiting
            self._allow(seconds)
        elif self._is_head and self._no_body_bytes == 0:
            self.transport.close()  # it has asked for nothing
        else:
            self._refuse(TOO_SLOW, TOO_SLOW_MESSAGE)

    def _refuse(self, row: Answered, message: str) -> None:
        """Say why, where nothing else is being said, and close."""
        self._disarm()
        cycle = self.cycle
        is_free = cycle is None or cycle.response_complete or not cycle.response_started
        if is_free and not self.pipeline:
            body = json.dumps(error_fields(row, message)).encode()
            head = (
                f"HTTP/1.1 {row.status} {REASONS[row.status]}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()
