"""The engine's HTTP interface: one connection pool, its timeouts, and its failures as our errors.

Nothing is sent twice, except on an idle connection that the engine had closed meanwhile.
"""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Self

import aiohttp

from byline.errors import EngineBroke, EngineError, EngineRefused, EngineUnavailable
from byline.limits import ENGINE_CONNECT_SECONDS, ENGINE_IDLE_SECONDS

# vLLM's server closes a connection that was idle for 5 seconds: let go of it first.
KEEP_ALIVE_SECONDS = 4.0
PROBE_SECONDS = 2.0
ERROR_BYTES_MAX = 65_536
DISCONNECTED = (aiohttp.ServerDisconnectedError, ConnectionResetError)
PASSED_ON = frozenset({400, 413, 422})  # the engine's judgement of what the client asked


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to the engine."""

    path: str
    body: bytes
    inference: str


@dataclass(slots=True)
class Connection:
    """What is known of the connection that one request went out on."""

    reused: bool = False


class EngineStream:
    """An answer that is still coming. Closing it makes the engine stop generating."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.waited_seconds = 0.0

    async def reads(self) -> AsyncIterator[bytes]:
        """The answer's bytes as they arrive. Raises EngineBroke if they stop in the middle."""
        content = self._response.content
        while True:
            started = time.perf_counter()
            try:
                data = await content.readany()
            except (aiohttp.ClientError, TimeoutError, OSError) as problem:
                raise EngineBroke("The engine stopped in the middle of an answer.") from problem
            finally:
                self.waited_seconds += time.perf_counter() - started
            if not data:
                return
            yield data

    def close(self) -> None:
        """Give the connection back if the answer is complete, else cut it."""
        self._response.close()


class EngineClient:
    """Talks to one engine."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")

    @classmethod
    def open(cls, url: str, *, idle_seconds: float = ENGINE_IDLE_SECONDS) -> Self:
        """A client with a pool of its own; call inside a running event loop."""
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=ENGINE_CONNECT_SECONDS, sock_read=idle_seconds
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"accept-encoding": "identity", "content-type": "application/json"},
            trace_configs=[_noting_reuse()],
        )
        return cls(session, url)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def ask(self, ask: Ask) -> bytes:
        """The engine's whole answer. Cancelling the call aborts the engine's work."""
        response = await self._send(ask)
        try:
            return await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            raise EngineBroke("The engine stopped in the middle of an answer.") from problem
        finally:
            response.release()

    async def stream(self, ask: Ask) -> EngineStream:
        """The engine's answer as it is generated; the caller closes it."""
        return EngineStream(await self._send(ask))

    async def probe(self) -> None:
        """Raise EngineUnavailable unless the engine says that it is well."""
        timeout = aiohttp.ClientTimeout(total=PROBE_SECONDS)
        try:
            async with self._session.get(f"{self._url}/health", timeout=timeout) as response:
                if response.status != 200:
                    raise EngineUnavailable(f"The engine's health is {response.status}.")
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            raise EngineUnavailable("The engine was not reached.") from problem

    async def _send(self, ask: Ask) -> aiohttp.ClientResponse:
        connection = Connection()
        try:
            response = await self._post(ask, connection)
        except EngineBroke as problem:
            if not (connection.reused and isinstance(problem.__cause__, DISCONNECTED)):
                raise
            # An idle connection that the engine closed just then. Nothing was served, and an
            # inference is charged once however often it is asked: ask once more.
            response = await self._post(ask, Connection())
        if response.status != 200:
            raise await _refusal(response)
        return response

    async def _post(self, ask: Ask, connection: "Connection") -> aiohttp.ClientResponse:
        try:
            return await self._session.post(
                self._url + ask.path,
                data=ask.body,
                headers={"x-request-id": ask.inference},
                trace_request_ctx=connection,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as problem:
            raise EngineUnavailable("The engine was not reached.") from problem
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            raise EngineBroke("The engine did not answer.") from problem


def _noting_reuse() -> aiohttp.TraceConfig:
    """Tells each request's `Connection` whether it had been used before."""

    async def note(
        _: aiohttp.ClientSession,
        context: SimpleNamespace,
        __: aiohttp.TraceConnectionReuseconnParams,
    ) -> None:
        if isinstance(context.trace_request_ctx, Connection):
            context.trace_request_ctx.reused = True

    config = aiohttp.TraceConfig()
    config.on_connection_reuseconn.append(note)
    return config


async def _refusal(response: aiohttp.ClientResponse) -> EngineError:
    """The error for an answer that is none; its text comes from the engine where it has one."""
    try:
        body = await response.content.read(ERROR_BYTES_MAX)
    except (aiohttp.ClientError, TimeoutError, OSError):
        body = b""
    finally:
        response.close()
    message, param = error_of(body)
    if response.status in PASSED_ON:
        return EngineRefused(message, status=response.status, param=param)
    if response.status in (404, 429, 503):
        # 404: the registry knows the adapter and the engine does not (yet).
        return EngineUnavailable(f"The engine can't take this now: {message}")
    return EngineBroke(f"The engine failed with status {response.status}.")


def error_of(body: bytes) -> tuple[str, str | None]:
    """The message and the parameter in an engine's error object."""
    try:
        fields = json.loads(body)
        error = fields.get("error", fields)
        param = error.get("param")
        return str(error["message"]), param if isinstance(param, str) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return "The engine refused without saying why.", None
