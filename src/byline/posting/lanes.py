"""The connections of one poster to its server: as many as its traffic needs, each looked at first.

A server reads some 16 KB of a connection and then goes to the next; once round, it syncs its file
for all that it has read. So what waits is spread over several connections, and shares one sync.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from byline.errors import LedgerError
from byline.posting.address import Address
from byline.posting.keys import Keys
from byline.posting.pipeline import Pipeline, packed
from byline.posting.server_state import ServerState, questions, state_from

LANES_MAX = 8  # measured: up to here the server's time for a post falls, by a seventh


@dataclass(slots=True)
class Lane:
    """One connection, what is under way on it, and the scripts it has been sent."""

    pipeline: Pipeline
    server: ServerState  # when the connection was made
    bytes_under_way: int = 0
    scripts: set[str] = field(default_factory=set)


class Lanes:
    """Up to LANES_MAX connections, opened one after another while all that are there are busy.

    `accept` is shown what a server says of itself, and raises a LedgerError to refuse it. `opened`
    is called when an attempt of `widen` has ended: with None, or with what went wrong.
    """

    def __init__(
        self,
        address: Address,
        keys: Keys,
        *,
        timeout_seconds: float,
        accept: Callable[[ServerState], None],
        opened: Callable[[LedgerError | None], None],
    ) -> None:
        self.address = address  # of the server
        self._keys = keys
        self._timeout_seconds = timeout_seconds
        self._accept = accept
        self._opened = opened
        self._lanes: list[Lane] = []
        self._widening: asyncio.Task[None] | None = None

    def least_loaded(self) -> Lane | None:
        """The lane with the least under way; None if there is none at all."""
        if any(lane.pipeline.broken for lane in self._lanes):
            self._lanes = [lane for lane in self._lanes if not lane.pipeline.broken]
        return min(self._lanes, key=_load, default=None)

    def widen(self) -> None:
        """Open one lane more, in the background, unless there are enough or one is on its way."""
        if self._widening is None and len(self._lanes) < LANES_MAX:
            self._widening = asyncio.create_task(self._widen(self.address))

    async def open(self, address: Address) -> Lane:
        """Connect to a server and look at it. Raises LedgerError."""
        pipeline = await Pipeline.open(address, timeout_seconds=self._timeout_seconds)
        try:
            server = state_from(await pipeline.exchange(*packed(questions(self._keys))))
            self._accept(server)
        except BaseException:
            pipeline.break_off("the server is not one to post to")
            raise
        return Lane(pipeline, server)

    def move(self, address: Address, lane: Lane) -> None:
        """Go on with `lane`, to the server at `address`; what is under way elsewhere is lost."""
        self.break_off("the writer joined the ledger again")
        self.address, self._lanes = address, [lane]

    def break_off(self, reason: str) -> None:
        """Close every connection."""
        for lane in self._lanes:
            lane.pipeline.break_off(reason)
        self._lanes = []

    def forget_scripts(self) -> None:
        """The server has lost its scripts: each lane sends them again."""
        for lane in self._lanes:
            lane.scripts.clear()

    async def close(self) -> None:
        """Close every connection, also one that is being made."""
        if self._widening is not None:
            self._widening.cancel()
            await asyncio.wait([self._widening])
        lanes = self._lanes
        self.break_off("the writer was closed")
        for lane in lanes:
            await lane.pipeline.closed()

    async def _widen(self, address: Address) -> None:
        problem = None
        try:
            lane = await self.open(address)
        except LedgerError as raised:
            problem = raised
        else:
            if address is self.address:
                self._lanes.append(lane)
            else:  # the ledger has moved meanwhile
                lane.pipeline.break_off("the writer joined the ledger elsewhere")
        finally:
            self._widening = None
        self._opened(problem)


def _load(lane: Lane) -> int:
    return lane.bytes_under_way
