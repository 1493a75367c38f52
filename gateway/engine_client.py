"""One engine's HTTP interface: a connection pool, its timeouts, and its failures as our errors.

Nothing is sent twice here, except on an idle connection that the engine had closed meanwhile.
Whether another engine is asked is decided in `gateway.engines`.
"""

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace

from byline.errors import (
    AdapterUnavailable,
    EngineBroke,
    EngineBusy,
    EngineError,
    EngineRefused,
    EngineTimedOut,
    EngineUnavailable,
    GenerationFailed,
    RequestFailed,
)
from byline.limits import (
    ENGINE_ANSWER_SECONDS,
    ENGINE_CONNECT_SECONDS,
    ENGINE_FIRST_TOKEN_SECONDS,
    ENGINE_IDLE_SECONDS,
)

# vLLM's server closes a connection that was idle for 5 seconds: let go of it first.
KEEP_ALIVE_SECONDS = 4.0
PROBE_SECONDS = 2.0
LIST_SECONDS = 5.0
LOAD_SECONDS = 120.0  # the engine reads the adapter from its disk between two of its steps
ERROR_BYTES_MAX = 65_536
DISCONNECTED = (aiohttp.ServerDisconnectedError, ConnectionResetError)
UNREACHED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
LISTING = aiohttp.ClientTimeout(total=LIST_SECONDS, sock_connect=LIST_SECONDS)
LOADING = aiohttp.ClientTimeout(total=LOAD_SECONDS, sock_connect=LIST_SECONDS)
GENERATION_FAILED = "Internal server error"  # vLLM's text for one request, of which it lives on
PASSED_ON = frozenset({400, 413, 422})  # the engine's judgement of what the client asked


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long one engine may keep us waiting, in seconds."""

    connect: float = ENGINE_CONNECT_SECONDS
    first_token: float = ENGINE_FIRST_TOKEN_SECONDS  # to a stream's first byte
    idle: float = ENGINE_IDLE_SECONDS  # between two reads of a stream
    answer: float = ENGINE_ANSWER_SECONDS  # for an answer that comes whole


TIMEOUTS = Timeouts()


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to the engine."""

    path: str
    body: bytes
    inference: str
    adapter: str | None = None  # the version that has to be loaded; None: the base model answers
    tokens: int = 0  # how much work it may be, at most
    prefix: int = 0  # equal for prompts that begin alike
    trace: Mapping[str, str] = field(default_factory=dict)  # headers that name the trace it is in


@dataclass(slots=True)
class Connection:
    """What is known of the connection that one request went out on."""

    reused: bool = True


# The one that the request of this task goes out on.
SENT_ON: ContextVar[Connection] = ContextVar("sent_on")


class Connections(aiohttp.TCPConnector):
    """A pool that notes when it makes a new connection.

    aiohttp's own traces would tell too, but at the price of a dozen callbacks a request.
    """

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own signature
    ) -> ResponseHandler:
        SENT_ON.get(Connection()).reused = False
        return await super()._create_connection(req, traces, timeout)


class EngineStream:
    """An answer that is still coming. Closing it makes the engine stop generating."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        first: bytes = b"",
        *,
        ended: Callable[[EngineError | None], None] | None = None,
    ) -> None:
        self._response = response
        self.first = first  # what came with the answer's beginning
        self._ended = ended
        self._problem: EngineError | None = None
        self.waited_seconds = 0.0

    async def reads(self) -> AsyncIterator[bytes]:
        """The answer's bytes as they arrive. Raises EngineBroke if they stop in the middle."""
        if self.first:
            yield self.first
        content = self._response.content
        while True:
            started = time.perf_counter()
            try:
                data = await content.readany()
            except (aiohttp.ClientError, TimeoutError, OSError) as problem:
                self._problem = _broke(problem, "The engine stopped in the middle of an answer.")
                raise self._problem from problem
            finally:
                self.waited_seconds += time.perf_counter() - started
            if not data:
                return
            yield data

    def close(self) -> None:
        """Give the connection back if the answer is complete, else cut it."""
        self._response.close()
        if self._ended is not None:
            ended, self._ended = self._ended, None
            ended(self._problem)


class EngineClient:
    """Talks to one engine."""

    def __init__(self, session: aiohttp.ClientSession, url: str, timeouts: Timeouts) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._idle_seconds = timeouts.idle
        self._streaming = aiohttp.ClientTimeout(
            total=None, sock_connect=timeouts.connect, sock_read=timeouts.first_token
        )

    @classmethod
    def open(cls, url: str, *, timeouts: Timeouts = TIMEOUTS) -> Self:
        """A client with a pool of its own; call inside a running event loop."""
        session = aiohttp.ClientSession(
            connector=Connections(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=timeouts.connect, sock_read=timeouts.answer
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"accept-encoding": "identity", "content-type": "application/json"},
        )
        return cls(session, url, timeouts)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def ask(self, ask: Ask) -> bytes:
        """The engine's whole answer. Cancelling the call aborts the engine's work."""
        response = await self._send(ask)
        try:
            return await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            raise _broke(problem, "The engine stopped in the middle of an answer.") from problem
        finally:
            response.release()

    async def stream(
        self, ask: Ask, *, ended: Callable[[EngineError | None], None] | None = None
    ) -> EngineStream:
        """The engine's answer once its first bytes are there; the caller closes it.

        `ended` is told once, when it is closed, what broke it, if anything did.
        """
        response = await self._send(ask, self._streaming)
        try:
            first = await response.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            response.close()
            raise _broke(problem, "The engine stopped before its first token.") from problem
        except BaseException:
            response.close()
            raise
        if response.connection is not None and response.connection.protocol is not None:
            # From here on each read is waited for as long as this; until now, for a first token.
            response.connection.protocol.read_timeout = self._idle_seconds
            response.connection.protocol.start_timeout()
        return EngineStream(response, first, ended=ended)

    async def models(self) -> frozenset[str]:
        """The names that the engine answers to: its base model and the adapters it has loaded."""
        body = await self._manage("GET", "models", None, LISTING)
        try:
            return frozenset(str(model["id"]) for model in json.loads(body)["data"])
        except (ValueError, RecursionError, KeyError, TypeError) as problem:
            raise EngineBroke("The engine's list of models can't be read.") from problem

    async def load(self, version: str, folder: Path) -> None:
        """Have an adapter loaded; its folder has the same path for the engine as for us."""
        fields = {"lora_name": version, "lora_path": str(folder)}
        await self._manage("POST", "load_lora_adapter", fields, LOADING)

    async def unload(self, version: str) -> None:
        """Have the engine forget an adapter's name; its weights go when their place is needed."""
        await self._manage("POST", "unload_lora_adapter", {"lora_name": version}, LOADING)

    async def probe(self) -> None:
        """Raise EngineUnavailable unless the engine says that it is well."""
        timeout = aiohttp.ClientTimeout(total=PROBE_SECONDS)
        try:
            async with self._session.get(f"{self._url}/health", timeout=timeout) as response:
                if response.status != 200:
                    raise EngineUnavailable(f"The engine's health is {response.status}.")
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            raise EngineUnavailable("The engine was not reached.") from problem

    async def _manage(
        self, method: str, name: str, fields: object, waiting: aiohttp.ClientTimeout
    ) -> bytes:
        """One request that is no inference. Raises like `ask`."""
        try:
            async with self._session.request(
                method, f"{self._url}/v1/{name}", json=fields, timeout=waiting
            ) as response:
                if response.status != 200:
                    raise await _refusal(response)
                return await response.read()
        except UNREACHED as problem:
            raise EngineUnavailable("The engine was not reached.") from problem
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            raise _broke(problem, "The engine did not answer.") from problem

    async def _send(
        self, ask: Ask, waiting: aiohttp.ClientTimeout | None = None
    ) -> aiohttp.ClientResponse:
        connection = Connection()
        SENT_ON.set(connection)
        try:
            response = await self._post(ask, waiting)
        except EngineBroke as problem:
            if not (connection.reused and isinstance(problem.__cause__, DISCONNECTED)):
                raise
            # An idle connection that the engine closed just then. Nothing was served, and an
            # inference is charged once however often it is asked: ask once more.
            response = await self._post(ask, waiting)
        if response.status != 200:
            raise await _refusal(response)
        return response

    async def _post(
        self, ask: Ask, waiting: aiohttp.ClientTimeout | None
    ) -> aiohttp.ClientResponse:
        try:
            return await self._session.post(
                self._url + ask.path,
                data=ask.body,
                headers={"x-request-id": ask.inference, **ask.trace},
                timeout=waiting or self._session.timeout,
            )
        except UNREACHED as problem:
            raise EngineUnavailable("The engine was not reached.") from problem
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            raise _broke(problem, "The engine did not answer.") from problem


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
    if response.status == 404:  # the release knows the adapter and the engine does not (yet)
        return AdapterUnavailable(f"The engine can't take this now: {message}")
    if response.status in (429, 503):
        return EngineBusy(f"The engine can't take this now: {message}")
    if response.status == 500:
        is_generation = message == GENERATION_FAILED
        return failure_of(message) if is_generation else RequestFailed("The engine failed.")
    return EngineBroke(f"The engine failed with status {response.status}.")


def _broke(problem: BaseException, message: str) -> EngineBroke:
    """The error for an answer that stopped or never came."""
    return (EngineTimedOut if isinstance(problem, TimeoutError) else EngineBroke)(message)


def failure_of(message: str) -> EngineBroke:
    """The error for what the engine calls its own fault: of this one request, or of all."""
    kind = GenerationFailed if message == GENERATION_FAILED else EngineBroke
    return kind(f"The engine failed: {message}")


def error_in(data: bytes) -> EngineError:
    """The error that an event of a stream reports: a judgement of the request, or a failure."""
    message, param = error_of(data)
    try:
        code = json.loads(data)["error"]["code"]
    except (ValueError, RecursionError, KeyError, TypeError):
        code = None
    if code in PASSED_ON:
        return EngineRefused(message, status=code, param=param)
    return failure_of(message)


def error_of(body: bytes) -> tuple[str, str | None]:
    """The message and the parameter in an engine's error object."""
    try:
        fields = json.loads(body)
        error = fields.get("error", fields)
        param = error.get("param")
        return str(error["message"]), param if isinstance(param, str) else None
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return "The engine refused without saying why.", None
