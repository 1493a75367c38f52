"""HTTP/1.1 to one engine: kept connections, one request each at a time, every wait bounded.

Knows bytes, not what they say. httptools parses; nothing is retried here.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping
from time import monotonic
from typing import Self, cast
from urllib.parse import urlsplit

import httptools

HEAD_BYTES_MAX = 65_536
AHEAD_BYTES_MAX = 262_144  # read of an answer before anyone took it; then the engine waits
# vLLM's server closes a connection that was idle for 5 seconds: let go of it first.
KEEP_ALIVE_SECONDS = 4.0
NO_BODY = frozenset({204, 304})


class Unreached(ConnectionError):
    """No connection came about: nothing was sent."""


class Disconnected(ConnectionError):
    """The engine closed the connection without a byte of an answer."""


class Garbled(ConnectionError):
    """What came is no HTTP answer, or not a whole one."""


class Connection(asyncio.Protocol):
    """One connection, and the answer that is coming on it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._began()

    def _began(self) -> None:
        """Forget the last answer: another is coming."""
        self.status = 0
        self.is_complete = False
        self.has_headers = False
        self._has_length = False
        self._is_asked = False
        self._keeps = False
        self._is_over = False  # what comes now is of no answer that was asked for
        self._head_bytes = 0
        self._pieces: deque[bytes] = deque()
        self._ahead_bytes = 0
        self._is_paused = False
        self._problem: Exception | None = None
        self._parser = httptools.HttpResponseParser(self)

    def send(self, request: bytes) -> None:
        """Ask; the connection must be free."""
        assert self.transport is not None
        self._began()
        self._is_asked = True
        self.transport.write(request)

    async def headers(self, seconds: float) -> None:
        """Wait until status and headers are there."""
        while not self.has_headers:
            await self._more(seconds)

    async def read(self, seconds: float) -> bytes:
        """What has come since the last read, at least a byte; empty at the answer's end.

        Raises TimeoutError if nothing comes for so long, Disconnected, or Garbled.
        """
        while not self._pieces and not self.is_complete:
            await self._more(seconds)
        pieces = self._pieces
        data = pieces.popleft() if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._ahead_bytes = 0
        if self._is_paused and self.transport is not None:
            self._is_paused = False
            self.transport.resume_reading()
        return data

    async def _more(self, seconds: float) -> None:
        """Wait for the next bytes."""
        if self._problem is not None:
            raise self._problem
        waiter = self._waiter = self._loop.create_future()
        timer = self._loop.call_later(seconds, _late, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    @property
    def is_reusable(self) -> bool:
        """Whether another request may go out on it."""
        transport = self.transport
        return (
            self.is_complete
            and self._keeps
            and not self._is_over
            and self._problem is None
            and transport is not None
            and not transport.is_closing()
        )

    def cut(self) -> None:
        """Close at once: an engine that is generating stops."""
        if self.transport is not None:
            self.transport.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, problem: Exception) -> None:
        self._problem = self._problem or problem
        self.cut()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(self._problem)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The engine is there."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        """Some bytes came: wake whoever waits for them."""
        if self.is_complete or not self._is_asked:  # nobody asked for these
            self._fail(Garbled("the engine sent more than its answer"))
            return
        if not self.has_headers:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as problem:
            self._fail(Garbled(f"the engine's answer is no HTTP: {type(problem).__name__}"))
            return
        if not self.has_headers and self._head_bytes > HEAD_BYTES_MAX:
            self._fail(Garbled("the engine's headers have no end"))
            return
        if self._ahead_bytes > AHEAD_BYTES_MAX and not self.is_complete and not self._is_paused:
            assert self.transport is not None
            self._is_paused = True
            self.transport.pause_reading()
        if self._pieces or self.is_complete or self.has_headers:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed; an answer without a length ends so."""
        if self.has_headers and not self._has_length and exc is None and self._problem is None:
            self.is_complete = True
            self._wake()
        elif not self.is_complete:
            if self._head_bytes:
                self._fail(Garbled("the engine closed the connection in its answer"))
            else:
                self._fail(Disconnected("the engine closed the connection"))

    # What the parser calls.

    def on_message_begin(self) -> None:
        """An answer begins: the one that was asked for, or one behind it."""
        self._is_over = self.is_complete

    def on_header(self, name: bytes, _: bytes) -> None:
        """Only what tells where the body ends is of interest."""
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._has_length = True

    def on_headers_complete(self) -> None:
        """The answer's head is there, unless it is an interim one."""
        status = self._parser.get_status_code()
        if self._is_over:
            return
        if status < 200:
            self._has_length = False
            return
        self.status = status
        self.has_headers = True
        self._has_length = self._has_length or status in NO_BODY

    def on_body(self, body: bytes) -> None:
        """Some of the body is there."""
        if self._is_over:
            return
        self._pieces.append(body)
        self._ahead_bytes += len(body)

    def on_message_complete(self) -> None:
        """The whole answer is there."""
        if self._is_over:
            self._keeps = False
        elif self.has_headers:
            self.is_complete = True
            self._keeps = self._parser.should_keep_alive()


def _late(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError("the engine sent nothing for too long"))


class Reply:
    """An answer whose head is there. Whoever has it closes it."""

    def __init__(self, connections: "Connections", connection: Connection) -> None:
        self._connections = connections
        self._connection = connection
        self._is_closed = False
        self.status = connection.status

    async def read(self, seconds: float) -> bytes:
        """See `Connection.read`."""
        return await self._connection.read(seconds)

    async def whole(self, seconds: float, bytes_max: int | None = None) -> bytes:
        """The body, or its first bytes; `seconds` is for each wait."""
        pieces, size = [], 0
        while piece := await self._connection.read(seconds):
            pieces.append(piece)
            size += len(piece)
            if bytes_max is not None and size >= bytes_max:
                break
        return b"".join(pieces)

    def close(self) -> None:
        """Keep the connection if the answer is complete, else cut it; again does nothing.

        Given back twice, one connection would carry two requests at once and mix their answers.
        """
        if not self._is_closed:
            self._is_closed = True
            self._connections.give_back(self._connection)


class Connections:
    """The connections to one engine: as many as are asked on at once, the newest idle one first."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url.rstrip("/"))
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url} is no engine's address: it begins with http:// and a host")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path
        self._host_header = parts.netloc.rpartition("@")[2]
        self._idle: list[Connection] = []
        self._is_closed = False

    @classmethod
    def to(cls, url: str) -> Self:
        """Connections to the engine at this address; none is made yet."""
        return cls(url)

    def close(self) -> None:
        """Close the idle ones; one that is in use is closed when it is given back."""
        self._is_closed = True
        for connection in self._idle:
            connection.cut()
        self._idle.clear()

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> bytes:
        """One request's bytes. Raises ValueError for a header that would end its line."""
        lines = [f"{method} {self._prefix}{path} HTTP/1.1", f"host: {self._host_header}"]
        for name, value in (headers or {}).items():
            if "\r" in value or "\n" in value:
                raise ValueError(f"the header {name} has more than a line")
            lines.append(f"{name}: {value}")
        lines.append(f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n")
        return "\r\n".join(lines).encode() + body

    def idle(self) -> Connection | None:
        """One that is open and was not idle for long, if there is any."""
        now = monotonic()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable and now - connection.idle_since < KEEP_ALIVE_SECONDS:
                return connection
            connection.cut()
        return None

    async def made(self, seconds: float) -> Connection:
        """A new one. Raises Unreached."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                _, connection = await loop.create_connection(
                    Connection, self._host, self._port, ssl=self._tls
                )
        except (OSError, TimeoutError) as problem:
            raise Unreached("the engine was not reached") from problem
        return connection

    async def ask(self, connection: Connection, request: bytes, seconds: float) -> Reply:
        """Send it, and wait so long for the head of the answer."""
        try:
            connection.send(request)
            await connection.headers(seconds)
        except BaseException:
            connection.cut()
            raise
        return Reply(self, connection)

    def give_back(self, connection: Connection) -> None:
        """It is no longer in use."""
        if connection.is_reusable and not self._is_closed:
            connection.idle_since = monotonic()
            self._idle.append(connection)
        else:
            connection.cut()
