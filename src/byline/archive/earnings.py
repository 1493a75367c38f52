"""What an account has earned: the balance and its parts, and the sums by day, adapter, dataset.

Every amount is an exact integer of nano-USD, over all ledgers. available + pending + held is the
balance; earned less paid, over all time, is the balance too.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection, Select, func, select

from byline.archive.days import first_pending_day
from byline.archive.periods import ALL_TIME, Period, days_in
from byline.archive.tables import account_days, accounts, adapters

EARNED = ("settle", "capture", "capture_late")  # what is pending at first
PAYOUT = "payout"

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Balance:
    """An account's balance by what may be done with it."""

    available_nano: int  # can be paid out
    pending_nano: int  # earned too recently: it may still be refunded
    held_nano: int  # payouts are blocked, or the account is below zero
    paid_nano: int  # has been paid out, ever

    @property
    def balance_nano(self) -> int:
        """All that is in the account."""
        return self.available_nano + self.pending_nano + self.held_nano


@dataclass(frozen=True, slots=True)
class Sum:
    """What came in, and what was paid out, under one day, adapter version or dataset."""

    earned_nano: int = 0  # corrections and refunds included
    paid_nano: int = 0
    lines: int = 0


@dataclass(frozen=True, slots=True)
class Breakdown:
    """A period's sums. The adapter version and the dataset of what has none are None."""

    by_day: Mapping[int, Sum]
    by_adapter: Mapping[str | None, Sum]
    by_dataset: Mapping[str | None, Sum]


@dataclass(frozen=True, slots=True)
class _Part:
    day: int
    adapter_version: str | None
    dataset: str | None
    sum: Sum


def balance_of(connection: Connection, account: str, *, now_ms: int, blocked: bool) -> Balance:
    """The account's balance, as payouts see it at `now_ms`."""
    total = select(func.sum(accounts.c.nano)).where(accounts.c.account == account)
    balance = _integer(connection, total)
    paid = -_sum_of(connection, account, kinds=(PAYOUT,), period=ALL_TIME)
    if blocked or balance < 0:
        return Balance(available_nano=0, pending_nano=0, held_nano=balance, paid_nano=paid)
    # Without what was refunded of it: it never says that money is available which is pending.
    young = _sum_of(connection, account, kinds=EARNED, period=Period(first_pending_day(now_ms)))
    pending = min(balance, young)
    return Balance(
        available_nano=balance - pending, pending_nano=pending, held_nano=0, paid_nano=paid
    )


def breakdown_of(connection: Connection, account: str, period: Period) -> Breakdown:
    """The sums of a period; all time's where it has no ends."""
    parts = _parts(connection, account, period)
    return Breakdown(
        by_day=_summed(parts, lambda part: part.day),
        by_adapter=_summed(parts, lambda part: part.adapter_version),
        by_dataset=_summed(parts, lambda part: part.dataset),
    )


def _sum_of(connection: Connection, account: str, *, kinds: tuple[str, ...], period: Period) -> int:
    days = account_days
    where = (days.c.account == account, days.c.kind.in_(kinds), *days_in(period, days.c.day))
    return _integer(connection, select(func.sum(days.c.nano)).where(*where))


def _integer(connection: Connection, total: Select[tuple[int]]) -> int:
    """A sum: PostgreSQL's is a Decimal without a fraction, and of no rows it is NULL."""
    return int(connection.scalar(total) or 0)


def _parts(connection: Connection, account: str, period: Period) -> list[_Part]:
    days = account_days
    found = connection.execute(
        select(days.c.day, days.c.adapter_version, adapters.c.dataset, days.c.kind, days.c.nano,
               days.c.legs)
        .select_from(days.outerjoin(adapters, adapters.c.adapter_version == days.c.adapter_version))
        .where(days.c.account == account, *days_in(period, days.c.day))
        .order_by(days.c.day.desc(), days.c.adapter_version)
    )  # fmt: skip
    return [
        _Part(
            row.day, row.adapter_version or None, row.dataset,
            Sum(0, -row.nano, row.legs) if row.kind == PAYOUT else Sum(row.nano, 0, row.legs),
        )
        for row in found
    ]  # fmt: skip


def _summed(parts: Iterable[_Part], key: Callable[[_Part], Key]) -> dict[Key, Sum]:
    sums: dict[Key, Sum] = {}
    for part in parts:
        known, more = sums.get(key(part), Sum()), part.sum
        sums[key(part)] = Sum(
            known.earned_nano + more.earned_nano,
            known.paid_nano + more.paid_nano,
            known.lines + more.lines,
        )
    return sums
