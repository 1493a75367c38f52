"""Pays what a month's frozen statements say and the ledger still has, in whole cents.

A payout's operation is derived from ledger, account and month. So the payouts of a month may be run
twice, by two operators at once, or again after a crash at any place: each account is paid once.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from sqlalchemy import Connection, func, select

from byline.archive.database import Archive
from byline.archive.days import first_pending_day
from byline.archive.earnings import EARNED
from byline.archive.tables import account_days
from byline.archive.writing import exported_seq
from byline.errors import (
    ArchiveUnavailable,
    InsufficientFunds,
    KeyConflict,
    LedgerFenced,
    LedgerFrozen,
    LedgerRefused,
    NotFound,
)
from byline.ledger.ledger import Ledger
from byline.limits import CENT_NANO
from byline.records import Payout, Posted
from byline.statements import frozen as store
from byline.statements.frozen import Frozen
from byline.statements.months import Month
from byline.statements.paid import Paid, payouts_of
from byline.statements.planning import Standing, plan

MINIMUM_NANO = 100 * CENT_NANO
CATCH_UP_SECONDS = 10.0  # how long the archive may take for what was just posted
LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one account."""

    account: str
    payable_nano: int  # whole cents
    paid_nano: int  # by this run
    left_nano: int  # what the account then holds, with all that is pending
    reason: str  # why nothing more was paid; empty where all that is payable was


@dataclass(frozen=True, slots=True)
class Ready:
    """What the ledger says at the moment of the run."""

    balances: Mapping[str, int]
    blocks: Mapping[str, str]
    now_ms: int


class PayoutRun:
    """Pays one month's statements of one ledger."""

    def __init__(
        self,
        ledger: Ledger,
        archive: Archive,
        *,
        name: str = "usd",
        minimum_nano: int = MINIMUM_NANO,
        catch_up_seconds: float = CATCH_UP_SECONDS,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._ledger = ledger
        self._archive = archive
        self._name = name
        self._minimum_nano = minimum_nano
        self._catch_up_seconds = catch_up_seconds
        self._step = step

    async def run(self, month: Month, *, now_ms: int, dry_run: bool = False) -> list[Outcome]:
        """Pay every account with a statement of `month`, unless it has been paid already.

        Raises NotFound where nothing was frozen, ArchiveUnavailable where the archive lags.
        """
        statements = await asyncio.to_thread(store.of_month, self._archive, self._name, month)
        if not statements:
            raise NotFound(
                f"no statement of {month} was frozen: run "
                f"`byline statements freeze --month {month}`"
            )
        ready = await self._ready(now_ms)
        return [await self._settled(frozen, ready, dry_run) for frozen in statements]

    async def _ready(self, now_ms: int) -> Ready:
        """The balances, once the archive has every entry that they are made of."""
        ready = Ready(await self._ledger.balances(), await self._ledger.payout_blocks(), now_ms)
        seq = (await self._ledger.unfinished()).journal_entries
        for _ in range(max(1, round(self._catch_up_seconds / LOOK_SECONDS))):
            exported = await asyncio.to_thread(self._exported)
            if exported >= seq:
                return ready
            await asyncio.sleep(LOOK_SECONDS)
        raise ArchiveUnavailable(
            f"the archive has {exported} of {seq} entries of the ledger '{self._name}', so nobody "
            "can say what is pending or paid: start `python -m byline.archive` and run this again"
        )

    def _exported(self) -> int:
        with self._archive.reading() as connection:
            return exported_seq(connection, self._name)

    async def _settled(self, frozen: Frozen, ready: Ready, dry_run: bool) -> Outcome:
        """Pay one account, in as many parts as it takes."""
        await asyncio.to_thread(store.text_of, self._archive, frozen)  # it is what was frozen
        standing = await asyncio.to_thread(self._standing, frozen.account, ready)
        due = plan(frozen, standing, minimum_nano=self._minimum_nano)
        outcome = Outcome(frozen.account, due.payable_nano, 0, standing.balance_nano, due.reason)
        while due.payout is not None and not dry_run:
            posted = await self._post(due.payout, ready.now_ms)
            if isinstance(posted, str):
                return replace(outcome, reason=posted)
            nano = due.payout.nano
            standing = replace(
                standing,
                balance_nano=standing.balance_nano - nano,
                paid=[*standing.paid, Paid(posted.seq, ready.now_ms, due.payout)],
            )
            due = plan(frozen, standing, minimum_nano=self._minimum_nano)
            before = f"paid before, in entry {posted.seq}" if posted.duplicate else ""
            outcome = replace(
                outcome,
                paid_nano=outcome.paid_nano + (0 if posted.duplicate else nano),
                left_nano=outcome.left_nano - nano,
                reason=due.reason if due.payable_nano else before,  # something is left: say why
            )
        return outcome

    async def _post(self, payout: Payout, now_ms: int) -> Posted | str:
        """Where the payout stands in the journal, or why the ledger did not take it."""
        try:
            posted = await self._ledger.payout(payout, time_ms=now_ms)
        except (LedgerFrozen, LedgerFenced):
            raise
        except KeyConflict:
            return "another run has paid it meanwhile: see `byline payouts list`"
        except (LedgerRefused, InsufficientFunds) as refused:  # a block, or a debit, is new
            return f"the ledger refused it: {refused}"
        self._step(f"paid {payout.statement}")
        return posted

    def _standing(self, account: str, ready: Ready) -> Standing:
        with self._archive.reading() as connection:
            return Standing(
                balance_nano=ready.balances.get(account, 0),
                pending_nano=_pending_nano(connection, self._name, account, ready.now_ms),
                blocked=ready.blocks.get(account),
                paid=payouts_of(connection, self._name, account),
            )


def _pending_nano(connection: Connection, ledger: str, account: str, now_ms: int) -> int:
    """What the account has earned so lately that it may still be refunded."""
    days = account_days.c
    pending: int | None = connection.scalar(
        select(func.sum(days.nano))
        .where(days.account == account, days.ledger == ledger, days.kind.in_(EARNED))
        .where(days.day >= first_pending_day(now_ms))
    )
    return int(pending or 0)
