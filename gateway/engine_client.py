"""One engine's HTTP interface: a connection pool, its timeouts, and its failures as our errors.

Nothing is sent twice here, except on an idle connection that the engine had closed meanwhile.
Whether another engine is asked is decided in `gateway.engines`.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

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
from gateway.engine_http import Connections, Disconnected, Reply, Unreached

PROBE_SECONDS = 2.0
LIST_SECONDS = 5.0
LOAD_SECONDS = 120.0  # the engine reads the adapter from its disk between two of its steps
ERROR_BYTES_MAX = 65_536
ERROR_SECONDS = 5.0
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


class EngineStream:
    """An answer that is still coming. Closing it makes the engine stop generating."""

    def __init__(
        self,
        reply: Reply,
        first: bytes,
        *,
        idle_seconds: float,
        ended: Callable[[EngineError | None], None] | None = None,
    ) -> None:
        self._reply = reply
        self.first = first  # what came with the answer's beginning
        self._idle_seconds = idle_seconds
        self._ended = ended
        self._problem: EngineError | None = None
        self._is_closed = False
        self.waited_seconds = 0.0

    async def reads(self) -> AsyncIterator[bytes]:
        """The answer's bytes as they arrive. Raises EngineBroke if they stop in the middle."""
        if self.first:
            yield self.first
        while True:
            started = time.perf_counter()
            try:
                data = await self._reply.read(self._idle_seconds)
            except OSError as problem:
                self._problem = _broke(problem, "The engine stopped in the middle of an answer.")
                raise self._problem from problem
            finally:
                self.waited_seconds += time.perf_counter() - started
            if not data:
                return
            yield data

    def close(self) -> None:
        """Give the connection back if the answer is complete, else cut it."""
        if self._is_closed:
            return
        self._is_closed = True
        self._reply.close()
        if self._ended is not None:
            self._ended(self._problem)


class EngineClient:
    """Talks to one engine."""

    def __init__(self, connections: Connections, timeouts: Timeouts) -> None:
        self._connections = connections
        self._timeouts = timeouts

    @classmethod
    def open(cls, url: str, *, timeouts: Timeouts = TIMEOUTS) -> Self:
        """A client with connections of its own. Raises ValueError for what is no address."""
        return cls(Connections(url), timeouts)

    async def close(self) -> None:
        """Close every idle connection."""
        self._connections.close()

    async def ask(self, ask: Ask) -> bytes:
        """The engine's whole answer. Cancelling the call aborts the engine's work."""
        reply = await self._send(ask, self._timeouts.answer)
        try:
            return await reply.whole(self._timeouts.answer)
        except OSError as problem:
            raise _broke(problem, "The engine stopped in the middle of an answer.") from problem
        finally:
            reply.close()

    async def stream(
        self, ask: Ask, *, ended: Callable[[EngineError | None], None] | None = None
    ) -> EngineStream:
        """The engine's answer once its first bytes are there; the caller closes it.

        `ended` is told once, when it is closed, what broke it, if anything did.
        """
        reply = await self._send(ask, self._timeouts.first_token)
        try:
            first = await reply.read(self._timeouts.first_token)
        except OSError as problem:
            reply.close()
            raise _broke(problem, "The engine stopped before its first token.") from problem
        except BaseException:
            reply.close()
            raise
        # From here on each read is waited for as long as this; until now, for a first token.
        return EngineStream(reply, first, idle_seconds=self._timeouts.idle, ended=ended)

    async def models(self) -> frozenset[str]:
        """The names that the engine answers to: its base model and the adapters it has loaded."""
        body = await self._manage("GET", "models", None, LIST_SECONDS)
        try:
            return frozenset(str(model["id"]) for model in json.loads(body)["data"])
        except (ValueError, RecursionError, KeyError, TypeError) as problem:
            raise EngineBroke("The engine's list of models can't be read.") from problem

    async def load(self, version: str, folder: Path) -> None:
        """Have an adapter loaded; its folder has the same path for the engine as for us."""
        fields = {"lora_name": version, "lora_path": str(folder)}
        await self._manage("POST", "load_lora_adapter", fields, LOAD_SECONDS)

    async def unload(self, version: str) -> None:
        """Have the engine forget an adapter's name; its weights go when their place is needed."""
        await self._manage("POST", "unload_lora_adapter", {"lora_name": version}, LOAD_SECONDS)

    async def probe(self) -> None:
        """Raise EngineUnavailable unless the engine says that it is well."""
        try:
            await self._manage("GET", "health", None, PROBE_SECONDS, under="/")
        except EngineError as problem:
            raise EngineUnavailable(f"The engine is not well: {problem}") from problem

    async def _manage(
        self, method: str, name: str, fields: object, seconds: float, *, under: str = "/v1/"
    ) -> bytes:
        """One request that is no inference, within so many seconds. Raises like `ask`."""
        body = b"" if fields is None else json.dumps(fields).encode()
        request = self._connections.request(method, under + name, body)
        try:
            async with asyncio.timeout(seconds):
                reply = await self._replied(request, seconds, min(seconds, LIST_SECONDS))
                try:
                    if reply.status != 200:
                        raise await _refusal(reply)
                    return await reply.whole(seconds)
                finally:
                    reply.close()
        except Unreached as problem:
            raise EngineUnavailable("The engine was not reached.") from problem
        except OSError as problem:
            raise _broke(problem, "The engine did not answer.") from problem

    async def _send(self, ask: Ask, seconds: float) -> Reply:
        """The answer to it, of which the head is there within so many seconds."""
        headers = {"x-request-id": ask.inference, **ask.trace}
        request = self._connections.request("POST", ask.path, ask.body, headers)
        try:
            reply = await self._replied(request, seconds, self._timeouts.connect)
        except Unreached as problem:
            raise EngineUnavailable("The engine was not reached.") from problem
        except OSError as problem:
            raise _broke(problem, "The engine did not answer.") from problem
        if reply.status != 200:
            raise await _refusal(reply)
        return reply

    async def _replied(self, request: bytes, seconds: float, connect_seconds: float) -> Reply:
        kept = self._connections.idle()
        if kept is not None:
            with suppress(Disconnected):
                return await self._connections.ask(kept, request, seconds)
            # An idle connection that the engine closed just then. Nothing was served, and an
            # inference is charged once however often it is asked: ask once more, on a new one.
        made = await self._connections.made(connect_seconds)
        return await self._connections.ask(made, request, seconds)


async def _refusal(reply: Reply) -> EngineError:
    """The error for an answer that is none; its text comes from the engine where it has one."""
    try:
        body = await reply.whole(ERROR_SECONDS, ERROR_BYTES_MAX)
    except OSError:
        body = b""
    finally:
        reply.close()
    message, param = error_of(body)
    if reply.status in PASSED_ON:
        return EngineRefused(message, status=reply.status, param=param)
    if reply.status == 404:  # the release knows the adapter and the engine does not (yet)
        return AdapterUnavailable(f"The engine can't take this now: {message}")
    if reply.status in (429, 503):
        return EngineBusy(f"The engine can't take this now: {message}")
    if reply.status == 500:
        is_generation = message == GENERATION_FAILED
        return failure_of(message) if is_generation else RequestFailed("The engine failed.")
    return EngineBroke(f"The engine failed with status {reply.status}.")


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
