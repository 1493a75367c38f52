"""One streamed answer on its way to the client: passed on, kept, and settled however it ends."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from byline.errors import EngineBroke
from gateway.charging import CAPTURE_WAIT_SECONDS
from gateway.engine_client import EngineStream
from gateway.errors import error_event
from gateway.middleware import Observed
from gateway.streaming import Tape

log = logging.getLogger("gateway")

HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


@dataclass(slots=True)
class Relay:
    """Reads the engine's stream and settles exactly once: complete, broken or abandoned."""

    upstream: EngineStream
    tape: Tape
    settle: Callable[[bool], "asyncio.Task[None]"]  # told whether the answer ended early
    seen: Observed
    first_event: Callable[[], None]
    settled: bool = False

    async def events(self) -> AsyncIterator[bytes]:
        """What the client receives. `[DONE]` comes when the capture is posted, or is late."""
        try:
            async for ready in self._passing():
                yield ready
            if not self.tape.finished:
                raise self.tape.problem or EngineBroke("The engine's answer stopped half-way.")
        except EngineBroke as problem:
            log.warning("an answer broke off: %s", problem)
            self._settle_once(ended_early=True)
            yield error_event(problem)
            return
        await asyncio.wait({self._settle_once(ended_early=False)}, timeout=CAPTURE_WAIT_SECONDS)
        yield self.tape.last

    async def _passing(self) -> AsyncIterator[bytes]:
        is_first = True
        async for data in self.upstream.reads():
            ready = self.tape.feed(data)
            if ready:
                if is_first:
                    self.first_event()
                    is_first = False
                yield ready
            if self.tape.finished or self.tape.problem:
                return

    def close(self) -> None:
        """The client has its answer or is gone. Cuts an unfinished engine stream: it aborts."""
        self.upstream.close()
        self.seen.upstream_seconds += self.upstream.waited_seconds
        if not self.settled:
            self.seen.client_gone = True
            self._settle_once(ended_early=not self.tape.finished)

    def _settle_once(self, *, ended_early: bool) -> "asyncio.Task[None]":
        assert not self.settled
        self.settled = True
        return self.settle(ended_early)


class RelayResponse(StreamingResponse):
    """A streamed answer. Starlette cancels the stream when the client disconnects."""

    def __init__(self, relay: Relay, headers: dict[str, str]) -> None:
        super().__init__(
            relay.events(), headers={**HEADERS, **headers}, media_type="text/event-stream"
        )
        self._relay = relay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; close the relay however that ends, even before the first event."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._relay.close()


def first_event_timer(observe: Callable[[float], None], started: float) -> Callable[[], None]:
    """A callback that reports the time since `started`."""
    return lambda: observe(time.perf_counter() - started)
