"""Sends postings to the ledger's Redis scripts: all that wait together, each of them once.

Group commit: what callers ask for in one turn of the event loop travels in a few batches over a few
connections, and shares the server's sync of its file. Nothing is ever sent a second time here:
whoever had no answer sends the same posting again, under the same key.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from byline.errors import (
    BylineError,
    LedgerError,
    LedgerRefused,
    LedgerUnavailable,
    LedgerUnconfirmed,
)
from byline.limits import LEDGER_TIMEOUT_SECONDS
from byline.posting.address import Address
from byline.posting.answers import Answer, NotItsAnswer, ScriptForgotten, attempt, outcome_of
from byline.posting.batch import Batch, Flight
from byline.posting.confirmation import Confirmation
from byline.posting.keys import Keys
from byline.posting.lanes import Lane, Lanes
from byline.posting.pipeline import Reply, packed
from byline.posting.postings import Posting
from byline.posting.scripts import Script
from byline.posting.server_state import ServerState
from byline.records import Posted

Observe = Callable[[str, str, float], None]

# What a posting raises that can't be put into a command, such as a text that has no bytes.
UNSENDABLE = (BylineError, ValueError, TypeError)
BATCH_BYTES = 16_384  # what a server reads of a connection at once
# Under way at once: what a server posts in some 20 ms. What is more waits here, in order.
BYTES_UNDER_WAY_MAX = 1_048_576


class Poster:
    """Posts for one writer, which carries the epoch it was told when it joined the ledger.

    A posting ends by itself, whatever becomes of its caller, and is told to `observe`.
    """

    def __init__(
        self,
        address: Address,
        keys: Keys,
        observe: Observe | None = None,
        *,
        timeout_seconds: float = LEDGER_TIMEOUT_SECONDS,
        replicas: int = 0,
    ) -> None:
        self.epoch = 0
        self._keys = keys
        self._observe = observe
        self._confirmation = Confirmation(keys, replicas, timeout_seconds=timeout_seconds)
        self._lanes = Lanes(
            address, keys, timeout_seconds=timeout_seconds, accept=self._accept, opened=self._opened
        )
        self._scripts: dict[str, Script] = {}
        self._waiting: deque[Flight] = deque()  # not sent yet
        self._unanswered = 0  # postings, sent or not
        self._quiet = asyncio.Event()  # nothing is unanswered
        self._bytes_under_way = 0
        self._newest_seq = 0  # that this writer was told
        self._flush_is_due = False

    async def join(self, address: Address, epoch: Callable[[], Awaitable[int]]) -> None:
        """Post to the server at `address` from now on, with the epoch that `epoch` is told there.

        What is under way to another server is left without an answer. Raises LedgerMisconfigured if
        the server could lose money, LedgerFenced if it is behind what this writer was told.
        """
        lane = await self._lanes.open(address)
        try:
            self.epoch = await epoch()
        except BaseException:
            lane.pipeline.break_off("the writer could not join the ledger")
            raise
        self._lanes.move(address, lane)
        self._flush_soon()

    async def post(self, posting: Posting) -> Posted:
        """Post, exactly once. The posting goes on when the caller is cancelled."""
        posted = await self.post_if_due(posting)
        assert posted is not None, f"{posting.key} was answered with nothing"
        return posted

    async def post_if_due(self, posting: Posting) -> Posted | None:
        """The same; None where the script found nothing to post."""
        answer: asyncio.Future[Posted | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(Flight(posting, answer, time.perf_counter()))
        self._unanswered += 1
        self._flush_soon()
        return await answer  # a caller that is cancelled cancels this future, and no more

    async def confirm(self) -> None:
        """Raise LedgerUnconfirmed unless all that was answered until now is on the replicas."""
        if not self._confirmation.replicas:
            return
        lane = self._lanes.least_loaded() or await self._lanes.open(self._lanes.address)
        commands = self._confirmation.commands(has_waitaof=lane.server.has_waitaof)
        found = self._confirmation.found(await lane.pipeline.exchange(*packed(commands)))
        if found is None or found < self._confirmation.replicas:
            raise LedgerUnconfirmed(
                f"confirm the ledger: {found} of {self._confirmation.replicas} replicas have it"
            )

    async def drain(self) -> None:
        """Wait until no posting is without its answer."""
        while self._unanswered:
            self._quiet.clear()
            await self._quiet.wait()

    async def close(self) -> None:
        """Wait for what is unanswered, then close the connections."""
        await self.drain()
        await self._lanes.close()

    def _flush_soon(self) -> None:
        """Send what waits when every caller of this turn of the loop has had its say."""
        if not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        while self._waiting and self._bytes_under_way < BYTES_UNDER_WAY_MAX:
            lane = self._lanes.least_loaded()
            if lane is None or lane.bytes_under_way:
                self._lanes.widen()
            if lane is None or (lane.bytes_under_way and self._confirmation.replicas):
                return  # an answer, or a new lane, brings us here again
            self._send(lane, self._next_batch(lane))

    def _next_batch(self, lane: Lane) -> Batch:
        batch = Batch(self._keys, self.epoch, lane.scripts)
        while self._waiting and batch.size < BATCH_BYTES:
            flight = self._waiting.popleft()
            try:
                batch.add(flight, self._script(flight.posting.script))
            except UNSENDABLE as problem:  # its own trouble alone: the others are to be answered
                self._end(flight, _not_drawn_up(flight, problem))
        batch.end_with(self._confirmation.commands(has_waitaof=lane.server.has_waitaof))
        return batch

    def _script(self, name: str) -> Script:
        if name not in self._scripts:
            self._scripts[name] = Script(name)
        return self._scripts[name]

    def _send(self, lane: Lane, batch: Batch) -> None:
        try:
            commands = batch.commands()
        except UNSENDABLE as problem:
            for flight in batch.flights:
                self._end(flight, _not_drawn_up(flight, problem))
            return
        lane.bytes_under_way += batch.size
        self._bytes_under_way += batch.size
        exchange = lane.pipeline.exchange(*commands)
        exchange.add_done_callback(lambda ended: self._arrived(lane, batch, ended))

    def _arrived(self, lane: Lane, batch: Batch, ended: "asyncio.Future[list[Reply]]") -> None:
        lane.bytes_under_way -= batch.size
        self._bytes_under_way -= batch.size
        try:
            answers = batch.answers(ended.result(), self._confirmation)
        except LedgerUnavailable as problem:
            answers = _unknown(batch.flights, problem)
        except NotItsAnswer as problem:
            lane.pipeline.break_off(str(problem))
            answers = _unknown(batch.flights, problem)
        for flight, answer in zip(batch.flights, answers, strict=True):
            self._end(flight, answer)
        self._flush_soon()

    def _end(self, flight: Flight, answer: Answer) -> None:
        if isinstance(answer, ScriptForgotten) and not flight.sent_again:
            flight.sent_again = True  # nothing had run
            self._lanes.forget_scripts()
            self._waiting.append(flight)
            return
        if not flight.answer.done():
            if isinstance(answer, BylineError):
                flight.answer.set_exception(answer)
            else:
                flight.answer.set_result(answer)
        if isinstance(answer, Posted):
            self._newest_seq = max(self._newest_seq, answer.seq)
        self._unanswered -= 1
        if not self._unanswered:
            self._quiet.set()
        if self._observe is not None:
            seconds = time.perf_counter() - flight.started
            self._observe(flight.posting.operation, outcome_of(answer), seconds)

    def _accept(self, server: ServerState) -> None:
        server.require_safe()
        server.require_not_behind(self.epoch, self._newest_seq)

    def _opened(self, problem: LedgerError | None) -> None:
        """A lane was opened or not; with none at all, nothing that waits can be sent."""
        if problem is not None and self._lanes.least_loaded() is None:
            flights = list(self._waiting)
            self._waiting.clear()
            for flight, answer in zip(flights, _unknown(flights, problem), strict=True):
                self._end(flight, answer)
        self._flush_soon()


def _not_drawn_up(flight: Flight, problem: Exception) -> BylineError:
    """The error of a posting that can't be put into a command: nothing was sent."""
    if isinstance(problem, BylineError):
        return problem
    return LedgerRefused(f"{attempt(flight.posting)}: it can't be sent: {problem}")


def _unknown(flights: list[Flight], problem: Exception) -> list[Answer]:
    """No answer: the error for each, of the same kind where it is one of the ledger's."""
    kind = type(problem) if isinstance(problem, LedgerError) else LedgerUnavailable
    return [kind(f"{attempt(flight.posting)}: {problem}") for flight in flights]
