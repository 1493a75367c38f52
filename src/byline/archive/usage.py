"""What an application has used and paid: sums by day and by model, and its inferences.

Charges are exact integers of nano-USD, over all ledgers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

from sqlalchemy import ColumnElement, Connection, func, select

from byline.archive.cursor import Cursor, newest_first
from byline.archive.periods import (
    ALL_TIME,
    Period,
    days_in,
    first_seqs,
    newest_cursor,
    times_in,
)
from byline.archive.tables import account_days, accounts, entries, inferences, legs, usage_days

REFUND = "refund"
Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Used:
    """So many inferences, and what they cost."""

    inferences: int = 0
    partial: int = 0  # of them: the client or the engine went away before the end
    prompt_tokens: int = 0
    completion_tokens: int = 0
    charge_nano: int = 0

    def __add__(self, other: "Used") -> "Used":
        return Used(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Used)))


@dataclass(frozen=True, slots=True)
class Usage:
    """A period's sums; a refund counts on the day it was given."""

    total: Used
    refunded_nano: int
    by_day: Mapping[int, Used]
    refunded_by_day: Mapping[int, int]
    by_model: Mapping[tuple[str, str], Used]  # (the name asked for, what answered)


@dataclass(frozen=True, slots=True)
class UsageLine:
    """One inference."""

    ledger: str
    seq: int  # of its capture
    time_ms: int
    inference: str
    model: str
    served_by: str
    prompt_tokens: int
    completion_tokens: int
    usage_source: str
    partial: bool
    charge_nano: int
    refunded_nano: int


@dataclass(frozen=True, slots=True)
class Funds:
    """What an application has, and what its unfinished inferences have set aside."""

    balance_nano: int
    held_nano: int
    holds: int


def usage_of(connection: Connection, application: str, period: Period) -> Usage:
    """The sums of a period; all time's where it has no ends."""
    days = usage_days
    rows = connection.execute(
        select(days)
        .where(days.c.application == application, *days_in(period, days.c.day))
        .order_by(days.c.day.desc(), days.c.model, days.c.served_by)
    ).all()
    parts = [
        (row.day, (row.model, row.served_by),
         Used(row.inferences, row.partial, row.prompt_tokens, row.completion_tokens, row.charge))
        for row in rows
    ]  # fmt: skip
    refunded = _refunds_by_day(connection, application, period)
    return Usage(
        total=sum((used for _, _, used in parts), Used()),
        refunded_nano=sum(refunded.values()),
        by_day=_summed((day, used) for day, _, used in parts),
        refunded_by_day=refunded,
        by_model=_summed((model, used) for _, model, used in parts),
    )


def usage_lines(
    connection: Connection,
    application: str,
    *,
    limit: int,
    cursor: Cursor | None = None,
    period: Period = ALL_TIME,
) -> tuple[list[UsageLine], Cursor | None]:
    """A page of the application's inferences, newest first, and the cursor of the next page."""
    first = first_seqs(connection, usage_days, usage_days.c.application == application, period)

    def fetch(ledger: str, before: int, most: int) -> Sequence[UsageLine]:
        where = (
            inferences.c.application == application, inferences.c.ledger == ledger,
            inferences.c.seq < before, inferences.c.seq >= first.get(ledger, before),
            *times_in(period, inferences.c.time_ms),
        )  # fmt: skip
        return _newest_lines(connection, where, most)

    return newest_first(fetch, cursor or newest_cursor(connection), limit)


def funds_of(connection: Connection, application: str) -> Funds:
    """The application's balance, and its holds that are neither captured nor given back."""
    account = f"app:{application}"
    balance = connection.scalar(
        select(func.sum(accounts.c.nano)).where(accounts.c.account == account)
    )
    payer = legs.alias("payer")
    held, holds = connection.execute(
        select(func.sum(legs.c.nano), func.count())
        .select_from(
            accounts.join(
                legs, (legs.c.account == accounts.c.account) & (legs.c.ledger == accounts.c.ledger)
            ).join(payer, (payer.c.ledger == legs.c.ledger) & (payer.c.seq == legs.c.seq))
        )
        .where(accounts.c.account.startswith("hold:"), payer.c.account == account)
    ).one()
    return Funds(balance_nano=int(balance or 0), held_nano=int(held or 0), holds=holds)


def _newest_lines(
    connection: Connection, where: Sequence[ColumnElement[bool]], most: int
) -> list[UsageLine]:
    rows = connection.execute(
        select(inferences).where(*where).order_by(inferences.c.seq.desc()).limit(most)
    ).all()
    refunded = _refunds_of(connection, [row.inference for row in rows])
    return [
        UsageLine(
            ledger=row.ledger, seq=row.seq, time_ms=row.time_ms, inference=row.inference,
            model=row.model, served_by=row.served_by, prompt_tokens=row.prompt_tokens,
            completion_tokens=row.completion_tokens, usage_source=row.usage_source,
            partial=row.partial, charge_nano=row.charge,
            refunded_nano=refunded.get((row.ledger, row.inference), 0),
        )
        for row in rows
    ]  # fmt: skip


def _refunds_of(connection: Connection, names: Sequence[str]) -> dict[tuple[str, str], int]:
    """What was given back of each of these inferences."""
    found = connection.execute(
        select(entries.c.ledger, entries.c.inference, func.sum(legs.c.nano))
        .select_from(entries.join(legs))
        .where(
            entries.c.inference.in_(names),
            entries.c.kind == REFUND,
            legs.c.account.startswith("app:"),
        )
        .group_by(entries.c.ledger, entries.c.inference)
    )
    return {(ledger, inference): int(nano) for ledger, inference, nano in found}


def _refunds_by_day(connection: Connection, application: str, period: Period) -> dict[int, int]:
    days = account_days
    found = connection.execute(
        select(days.c.day, func.sum(days.c.nano))
        .where(
            days.c.account == f"app:{application}",
            days.c.kind == REFUND,
            *days_in(period, days.c.day),
        )
        .group_by(days.c.day)
    )
    return {day: int(nano) for day, nano in found}


def _summed(parts: Iterable[tuple[Key, Used]]) -> dict[Key, Used]:
    sums: dict[Key, Used] = {}
    for key, used in parts:
        sums[key] = sums.get(key, Used()) + used
    return sums
