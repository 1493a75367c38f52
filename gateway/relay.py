"""One streamed answer on its way to the client: passed on, kept, and settled however it ends."""

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from byline.errors import EngineBroke, EngineError
from gateway.charging import Charge, Ending
from gateway.engine_client import EngineStream
from gateway.errors import ClientGone, answered
from gateway.leaving import unless_gone
from gateway.observed import ENGINE, Observed
from gateway.presenting import Added, Presenter
from gateway.streaming import UNREADABLE, Tape

log = logging.getLogger("gateway")

HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


@dataclass(slots=True)
class Relay:
    """Reads the engine's stream and settles exactly once: complete, broken or abandoned."""

    upstream: EngineStream
    tape: Tape
    presenter: Presenter
    settle: Callable[[Ending], Charge]
    added: Callable[[Charge], Awaitable[Added]]  # what the client asked of Byline itself
    explained: Callable[[EngineError, bytes], EngineError]  # given what came before it broke
    seen: Observed
    piece: Callable[[], None]  # told of each piece that goes out
    settled: bool = False

    async def events(self) -> AsyncGenerator[bytes, None]:
        """What the client receives. The end comes when the charge is kept, or is late."""
        try:
            async for ready in self._passing():
                yield ready
            if not self.tape.finished:
                raise self.tape.problem or EngineBroke("The engine's answer stopped half-way.")
        except EngineError as problem:
            log.warning("an answer broke off: %s", type(problem).__name__)  # its text may be theirs
            self.seen.code = answered(problem).code
            self._settle_once(Ending.BROKEN)
            yield self.presenter.broken(self.explained(problem, self.tape.kept()))
            return
        charge = self._settle_once(Ending.COMPLETE)
        await charge.wait_kept()
        yield self._end(await self.added(charge))

    async def _passing(self) -> AsyncIterator[bytes]:
        async for data in self.upstream.reads():
            ready = self._presented(self.tape.feed(data))
            if ready:
                self.piece()
                yield ready
            if self.tape.finished or self.tape.problem:
                return

    def _presented(self, events: bytes) -> bytes:
        try:
            return self.presenter.events(events)
        except (ValueError, TypeError, KeyError, AttributeError) as problem:
            raise EngineBroke(UNREADABLE) from problem

    def _end(self, added: Added) -> bytes:
        try:
            return self.presenter.end(self.tape.last, added)
        except (ValueError, TypeError, KeyError, AttributeError):  # it came, and is charged
            return self.presenter.broken(EngineBroke(UNREADABLE))

    def close(self) -> None:
        """The client has its answer or is gone. Cuts an unfinished engine stream: it aborts."""
        self.upstream.close()
        self.seen.upstream_seconds += self.upstream.waited_seconds
        if not self.settled:
            self.seen.client_gone = True
            self._settle_once(Ending.COMPLETE if self.tape.finished else Ending.ABANDONED)

    def _settle_once(self, ending: Ending) -> Charge:
        assert not self.settled
        self.settled = True
        self.seen.parts[ENGINE].ended = time.perf_counter()
        return self.settle(ending)


class RelayResponse(Response):
    """A streamed answer, which ends when its client goes away."""

    media_type = "text/event-stream"

    def __init__(self, relay: Relay, headers: dict[str, str]) -> None:
        self._relay = relay
        self.status_code = 200
        self.init_headers({**HEADERS, **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; close the relay however that ends, even before the first event."""
        try:
            with suppress(ClientGone):
                await unless_gone(Request(scope, receive), self._send(send))
        finally:
            self._relay.close()

    async def _send(self, send: Send) -> None:
        headers = self.raw_headers
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with aclosing(self._relay.events()) as events:
            async for data in events:
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
