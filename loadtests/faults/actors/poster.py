"""The poster: what a gateway does with money, many callers at once; and an operator's work."""

import asyncio
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from random import Random
from typing import Any

from byline.delivery.delivery import Delivery
from byline.delivery.spool import Spool
from byline.errors import (
    BylineError,
    InsufficientFunds,
    LedgerFenced,
    LedgerRefused,
    LedgerUnavailable,
)
from byline.ledger.ledger import Ledger
from byline.posting import postings
from byline.records import Adjustment, Capture, Payout, Posted, Refund, UnattributedRelease
from loadtests.faults.actors.stage import PATIENCE_SECONDS, PAUSE_SECONDS, Part, Stage, act, opened
from loadtests.faults.asking import event_id
from loadtests.faults.messages import (
    Acknowledged,
    Open,
    Perform,
    Refused,
    Spooled,
    Unknown,
    Wrong,
)
from loadtests.faults.operations import (
    Deposit,
    Expect,
    Flow,
    Hold,
    Operation,
    Unbalanced,
    Void,
    key_of,
)

CALLERS = 96  # at once
NEW_KEY = "retry under a new key"


class Poster:
    """Holds, captures and voids as a gateway does: what must not be lost goes through the spool."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._spool = Spool.open(stage.part.folder / "spool")
        self._ledger: Ledger | None = None
        self._delivery: Delivery
        self._now_ms = 0

    async def open(self, command: Open) -> None:
        """Connect; the spool stays open."""
        if self._ledger is not None:
            await self._delivery.drain(PATIENCE_SECONDS)
            await self._ledger.close()
        self._ledger = await opened(command, self._stage.part)
        self._delivery = Delivery(
            self._ledger, self._spool, pause_seconds=PAUSE_SECONDS, step=self._stage.step,
            refused=lambda posting, problem: self._refused(posting.key, problem),
        )  # fmt: skip

    async def perform(self, command: Perform) -> dict[str, int]:
        """Carry the flows out, and send what the spool has from before."""
        self._now_ms = command.now_ms
        callers = asyncio.Semaphore(CALLERS)
        stop = asyncio.Event()
        delivering = asyncio.create_task(self._delivery.run(stop))

        async def caller(flow: Flow) -> None:
            async with callers:
                await self._carry_out(flow)

        async with asyncio.TaskGroup() as tasks:
            for flow in command.flows:
                tasks.create_task(caller(flow))
        for _ in range(command.tries):
            if self._delivery.waiting == 0:
                break
            await asyncio.sleep(PAUSE_SECONDS)
        stop.set()
        await delivering
        return {"waiting": self._delivery.waiting}

    async def _carry_out(self, flow: Flow) -> None:
        if flow.cancelled_after is not None:
            await self._go_away(flow)
        for operation in flow.operations:
            must_be_refused = flow.expect is Expect.REFUSED
            if not await self._until_answered(operation, must_be_refused=must_be_refused):
                return
            self._stage.step()

    async def _go_away(self, flow: Flow) -> None:
        """Ask, and be cancelled in the midst of it: the outcome is unknown to the caller."""
        asking = asyncio.create_task(self._carry_out(replace(flow, cancelled_after=None)))
        await asyncio.wait({asking}, timeout=flow.cancelled_after)
        asking.cancel()
        await asyncio.wait({asking})

    async def _until_answered(self, operation: Operation, *, must_be_refused: bool) -> bool:
        """Send under the same key until there is an answer; True where it is posted, or kept."""
        key, sent = key_of(operation), operation
        if must_be_refused:
            key = f"hostile {key}"  # another payload may have a right to that key
        for _ in range(self._stage.tries):
            try:
                posted = await self._delivery.rejoined(partial(self._send, sent))
            except (LedgerUnavailable, LedgerFenced):
                self._stage.report(Unknown(key))
                if self._stage.part.defect == NEW_KEY:
                    sent = self._under_a_new_key(sent)
                await asyncio.sleep(PAUSE_SECONDS)
            except (LedgerRefused, InsufficientFunds) as problem:
                self._refused(key, problem)
                return False
            else:
                self._answered(key, posted, must_be_refused=must_be_refused)
                return True
        return False

    def _refused(self, key: str, problem: BylineError) -> None:
        self._stage.report(Refused(key, type(problem).__name__, str(problem)))

    def _answered(self, key: str, posted: Posted | None, *, must_be_refused: bool) -> None:
        if must_be_refused:
            if posted is not None:
                self._stage.report(Wrong(f"accepted: {key}, which had to be refused: {posted}"))
        elif posted is None:
            self._stage.report(Spooled(key))
        else:
            self._stage.report(Acknowledged(key, posted.seq, posted.duplicate, posted.late))

    async def _send(self, operation: Operation) -> Posted | None:  # noqa: PLR0911 - a table
        ledger, now_ms = self._ledger, self._now_ms
        assert ledger is not None
        match operation:
            case Hold(inference, application, nano, expires_ms):
                self._delivery.require_room()
                return await ledger.hold(
                    inference, application, nano, expires_ms=expires_ms, time_ms=now_ms
                )
            case Capture():
                return await self._delivery.capture(operation, time_ms=now_ms)
            case Void(inference, application):
                return await self._delivery.void(inference, application, time_ms=now_ms)
            case Deposit(event, application, nano):
                return await ledger.deposit(event, application, nano, time_ms=now_ms)
            case Adjustment():
                return await ledger.adjust(operation, time_ms=now_ms)
            case UnattributedRelease():
                return await ledger.release(operation, time_ms=now_ms)
            case Refund():
                return await ledger.refund(operation, time_ms=now_ms)
            case Payout():
                return await ledger.payout(operation, time_ms=now_ms)
            case Unbalanced(capture):
                return await ledger.post(_unbalanced(capture, now_ms))

    def _under_a_new_key(self, operation: Operation) -> Operation:
        """What a mutant sends again: the same money under another event."""
        if isinstance(operation, Deposit | Adjustment | Refund | UnattributedRelease | Payout):
            return replace(operation, operation=event_id(self._now_ms, Random(operation.operation)))
        return operation


def _unbalanced(capture: Capture, now_ms: int) -> postings.Posting:
    """The capture with one nano more in its last leg, made after every check of the client."""
    posting = postings.capture(capture, time_ms=now_ms)
    *others, last = posting.arguments
    return replace(posting, arguments=(*others, str(int(last) + 1)))


def main(connection: "Connection[Any, Any]", part: Part) -> None:
    """Run as an actor's process."""
    act(connection, part, Poster)
