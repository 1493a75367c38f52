"""One pipelined connection to a Redis-protocol server: many commands under way, none sent twice.

Replies find their commands by order alone. So whatever is out of order - a reply too late, one too
many, one that makes no sense - breaks the connection, and all that is under way has no answer.
Knows nothing of money.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from hiredis import ProtocolError, Reader, ReplyError, pack_command

from byline.errors import LedgerUnavailable
from byline.posting.address import Address
from byline.posting.redis_client import refusal

Reply: TypeAlias = Any  # text, an integer, None, a ReplyError, or a list of these
# One command as bytes on the wire. (hiredis' annotation has it take a single word.)
pack = cast("Callable[[tuple[str | int, ...]], bytes]", pack_command)


@dataclass(slots=True)
class _Exchange:
    """Commands that were written together, and what was answered to them until now."""

    expected: int
    written: float  # by the loop's clock
    answer: "asyncio.Future[list[Reply]]"
    replies: list[Reply] = field(default_factory=list)


class Pipeline(asyncio.Protocol):
    """A connection that lives until `break_off`, or until something unexpected happens to it."""

    def __init__(self, timeout_seconds: float) -> None:
        self.broken: str | None = None  # why nothing more can be sent here
        self._timeout_seconds = timeout_seconds
        self._reader = Reader(encoding="utf-8", errors="replace")
        self._under_way: deque[_Exchange] = deque()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._gone = asyncio.Event()

    @classmethod
    async def open(cls, address: Address, *, timeout_seconds: float) -> "Pipeline":
        """Connect and be let in. Raises LedgerUnavailable; without rights, LedgerMisconfigured."""
        attempt = "connect to the ledger"
        try:
            async with asyncio.timeout(timeout_seconds):
                pipeline = await address.connect(lambda: cls(timeout_seconds))
        except OSError as problem:  # TimeoutError too
            text = str(problem) or "no connection in time"
            raise LedgerUnavailable(f"{attempt}: {text}") from problem
        try:
            require_no_error(attempt, await pipeline.exchange(*packed(address.greeting())))
        except BaseException:
            pipeline.break_off("it was not let in")
            raise
        return pipeline

    def exchange(self, commands: bytes, replies: int) -> "asyncio.Future[list[Reply]]":
        """Send packed commands; their replies, in order. A ReplyError among them is not raised.

        The future ends with LedgerUnavailable when the connection breaks: any of the commands may
        have been carried out, or none.
        """
        answer: asyncio.Future[list[Reply]] = self._loop.create_future()
        if self.broken is not None or self._transport is None:
            answer.set_exception(LedgerUnavailable(self.broken or "not connected"))
            return answer
        self._under_way.append(_Exchange(replies, self._loop.time(), answer))
        self._transport.write(commands)
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout_seconds, self._look_for_late_replies)
        return answer

    def break_off(self, reason: str) -> None:
        """Close the connection at once; what is under way has no answer."""
        if self.broken is not None:
            return
        self.broken = reason
        if self._transport is not None:
            self._transport.abort()
        if self._watch is not None:
            self._watch.cancel()
        for exchange in self._under_way:
            if not exchange.answer.done():
                exchange.answer.set_exception(LedgerUnavailable(reason))
        self._under_way.clear()

    async def closed(self) -> None:
        """Wait until the connection's socket is closed."""
        await self._gone.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        # By its methods alone: uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self.break_off(f"the connection was lost: {exc or 'closed by the server'}")
        self._gone.set()

    def data_received(self, data: bytes) -> None:
        """Called by the loop: hand each reply to the oldest command without one."""
        try:
            self._reader.feed(data)
            while self.broken is None and (reply := self._reader.gets()) is not False:
                self._take(reply)
        except ProtocolError as problem:
            self.break_off(f"a reply made no sense: {problem}")

    def _take(self, reply: Reply) -> None:
        if not self._under_way:
            self.break_off("a reply came that nobody waits for")
            return
        exchange = self._under_way[0]
        exchange.replies.append(reply)
        if len(exchange.replies) == exchange.expected:
            self._under_way.popleft()
            if not exchange.answer.done():
                exchange.answer.set_result(exchange.replies)

    def _look_for_late_replies(self) -> None:
        """One timer a connection: it looks at the oldest exchange, and comes again in its time."""
        self._watch = None
        if not self._under_way:
            return
        late = self._under_way[0].written + self._timeout_seconds
        if late <= self._loop.time():
            self.break_off(f"no reply within {self._timeout_seconds} s")
        else:
            self._watch = self._loop.call_at(late, self._look_for_late_replies)


def packed(commands: Sequence[tuple[str, ...]]) -> tuple[bytes, int]:
    """Commands as bytes on the wire, and how many replies they will have."""
    return b"".join([pack(command) for command in commands]), len(commands)


def require_no_error(attempt: str, replies: Sequence[Reply]) -> None:
    """Raise what the first error among the replies means."""
    for reply in replies:
        if isinstance(reply, ReplyError):
            raise refusal(attempt, str(reply))
