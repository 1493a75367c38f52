"""Captures and voids on their way to the ledger: each kept until the ledger has answered it.

A posting is written into the spool before it is first sent, so that it outlives this process; where
the ledger does not answer, it is synced, and sent again in the background under the same key. What
the ledger refuses for good ends in the spool's file of refusals. Knows nothing of HTTP.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from byline.delivery.spool import Spool
from byline.delivery.spool_files import Kept
from byline.errors import (
    BylineError,
    InsufficientFunds,
    LedgerError,
    LedgerFenced,
    LedgerFrozen,
    LedgerFull,
    LedgerRefused,
    SpoolFull,
)
from byline.ledger.ledger import Ledger
from byline.posting import postings
from byline.posting.postings import Posting
from byline.program import pause
from byline.records import Capture, Posted

log = logging.getLogger("byline.delivery.delivery")

Result = TypeVar("Result")
PAUSE_SECONDS = 1.0
SENT_AT_ONCE = 64  # of what waits: the poster writes them as one, in this order
# A refusal that an operator, another primary or the next epoch ends: what waits is sent again.
PASSING = (LedgerFrozen, LedgerFenced, LedgerFull)
FINAL = (LedgerRefused, InsufficientFunds)


class Delivery:
    """Sends what must not be lost. `run` has to run for what waits to be sent again."""

    def __init__(
        self,
        ledger: Ledger,
        spool: Spool,
        *,
        pause_seconds: float = PAUSE_SECONDS,
        refused: Callable[[Posting, BylineError], None] = lambda _posting, _problem: None,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`refused` is told of what the ledger refuses when it is sent again.

        `step` is called between any two outside effects, with the name of the one just done.
        """
        self._ledger = ledger
        self._spool = spool
        self._pause = pause_seconds
        self._refused = refused
        self._step = step
        self._in_hand: set[str] = set()  # the keys being sent
        self._unkept: dict[str, Kept] = {}  # what found no room in the spool: in memory alone
        self._tasks: set[asyncio.Task[Any]] = set()
        self._rejoining: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many postings the ledger has not answered."""
        return self._spool.waiting + len(self._unkept)

    @property
    def oldest_ms(self) -> int | None:
        """Since when the oldest of them waits."""
        return self._spool.oldest_ms

    def require_room(self) -> None:
        """Raise SpoolFull unless the capture of a new answer could be kept. Call before a hold."""
        if self._unkept:
            raise SpoolFull(f"the spool is full: {self.waiting} posts wait for the ledger")
        self._spool.require_room()

    async def capture(
        self, capture: Capture, *, time_ms: int, kept: Callable[[], None] = lambda: None
    ) -> Posted | None:
        """Post the charge; None: the ledger did not answer, and it is kept and sent again.

        `kept` is called once it outlives this process. Raises LedgerRefused, KeyConflict or
        InsufficientFunds where the ledger refused for good. Goes on when the caller is cancelled.
        """
        posting = postings.capture(capture, time_ms=time_ms)
        return await asyncio.shield(self._start(self._deliver(posting, time_ms, kept)))

    async def void(self, inference: str, application: str, *, time_ms: int) -> Posted | None:
        """Give a hold back, likewise."""
        return await self.send(
            postings.void(inference, application, time_ms=time_ms), time_ms=time_ms
        )

    async def send(self, posting: Posting, *, time_ms: int) -> Posted | None:
        """Post what was drawn up, likewise."""
        return await asyncio.shield(self._start(self._deliver(posting, time_ms)))

    async def rejoined(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """What `call` answers; if it is fenced, once more when the ledger's epoch is taken again.

        All who are fenced at once share one rejoining.
        """
        try:
            return await call()
        except LedgerFenced as problem:
            log.warning("%s: taking the ledger's epoch again", problem)
            if self._rejoining is None:
                self._rejoining = self._start(self._ledger.rejoin())
                self._rejoining.add_done_callback(self._rejoining_ended)
            await asyncio.shield(self._rejoining)
            return await call()

    async def run(self, stop: asyncio.Event) -> None:
        """Send what waits, the oldest first, until `stop`; also what an earlier process left."""
        if self.waiting:
            log.warning("%d posts wait for the ledger; they are sent now", self.waiting)
        while not stop.is_set():
            await self._send_waiting(stop)
            await pause(stop, self._pause)

    async def drain(self, seconds: float) -> int:
        """Wait for the posts under way, at most so long; answers how many are left.

        The next process that opens the spool's folder sends those.
        """
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for key in self._unkept:
            log.critical("%s was not taken by the ledger and is in no spool: lost", key)
        if self.waiting:
            await self._sync()
        return self.waiting

    # --- one posting ---

    async def _deliver(
        self, posting: Posting, time_ms: int, kept: Callable[[], None] = lambda: None
    ) -> Posted | None:
        self._in_hand.add(posting.key)
        try:
            await self._keep(posting, time_ms)
            kept()
            self._step("kept")
            answer = await self._post(posting)
            if isinstance(answer, Posted):
                return answer
            log.warning("%s waits: %s", posting.key, answer)
            await self._sync()
            self._step("synced")
            return None
        finally:
            self._in_hand.discard(posting.key)

    async def _keep(self, posting: Posting, time_ms: int) -> None:
        try:
            await self._spool.write(posting, time_ms=time_ms)
        except SpoolFull as problem:
            log.critical("%s is kept in memory alone: %s", posting.key, problem)
            self._unkept[posting.key] = Kept(posting, time_ms)

    async def _post(self, posting: Posting) -> Posted | LedgerError:
        """Post it; answers why, where it waits on. Raises what it was refused for, for good."""
        try:
            posted = await self.rejoined(lambda: self._ledger.post(posting))
        except (LedgerError, InsufficientFunds) as problem:
            if isinstance(problem, PASSING) or not isinstance(problem, FINAL):
                return problem
            self._step("refused")
            log.error("%s was refused: %s", posting.key, problem)  # noqa: TRY400
            try:
                await self._spool.refuse(posting, f"{type(problem).__name__}: {problem}")
            except SpoolFull as full:
                return full
            self._step("refusal noted")
            self._unkept.pop(posting.key, None)
            raise
        assert posted is not None, f"{posting.key} was answered with nothing"
        self._step("posted")
        self._spool.done(posting.key)
        self._unkept.pop(posting.key, None)
        return posted

    async def _sync(self) -> None:
        try:
            await self._spool.sync()
        except SpoolFull as problem:
            log.critical("%d posts wait, perhaps not on the disk: %s", self.waiting, problem)

    # --- what waits ---

    async def _send_waiting(self, stop: asyncio.Event) -> None:
        """Send all that waits in order; no more than one batch while nothing is answered."""
        waiting = [*self._spool.postings(), *(kept.posting for kept in self._unkept.values())]
        idle = [posting for posting in waiting if posting.key not in self._in_hand]
        for start in range(0, len(idle), SENT_AT_ONCE):
            batch = idle[start : start + SENT_AT_ONCE]
            problems = await asyncio.gather(*(self._start(self._again(each)) for each in batch))
            if all(problems):
                log.warning("%d posts wait on: %s", self.waiting, problems[0])
            if all(problems) or stop.is_set():
                break
        try:
            await self._spool.tidy()
            await self._keep_unkept()
        except SpoolFull as problem:
            log.warning("%s", problem)

    async def _keep_unkept(self) -> None:
        """There may be room in the spool again."""
        for key, kept in list(self._unkept.items()):
            await self._spool.put(kept.posting, time_ms=kept.time_ms)
            self._unkept.pop(key, None)

    async def _again(self, posting: Posting) -> LedgerError | None:
        """Send one that waits; answers why, where it waits on."""
        self._in_hand.add(posting.key)
        try:
            answer = await self._post(posting)
        except (LedgerRefused, InsufficientFunds) as problem:
            self._refused(posting, problem)
            return None
        finally:
            self._in_hand.discard(posting.key)
        return None if isinstance(answer, Posted) else answer

    # --- tasks that nobody's cancellation reaches ---

    def _start(self, work: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if task.cancelled() or (problem := task.exception()) is None:
            return
        if not isinstance(problem, BylineError):  # whoever awaits it may be gone
            log.error("a delivery failed", exc_info=problem)

    def _rejoining_ended(self, _: "asyncio.Task[None]") -> None:
        self._rejoining = None
