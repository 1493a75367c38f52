"""Closes months: decides once, for all accounts, where in the journal a month ends.

A month ends before the first entry whose own time lies past it. The spool may still send an older
entry later; so what is in a month is decided by sequence number, and no line is ever in two months
or in none.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import IntegrityError

from byline.archive.database import Archive
from byline.archive.tables import account_days, closed_months, entries
from byline.archive.writing import exported_seq
from byline.errors import MonthOpen, NotFound
from byline.limits import MONTH_GRACE_SECONDS
from byline.posting.postings import DAY_MS
from byline.statements.months import Month, time_text


@dataclass(frozen=True, slots=True)
class ClosedMonth:
    """A month and its part of the journal, both ends included; empty where `from` is past `to`."""

    month: Month
    from_seq: int
    to_seq: int


def close_months(archive: Archive, ledger: str, month: Month, *, now_ms: int) -> None:
    """Close `month` and every one before it that is still open, in order.

    Raises MonthOpen unless the month is over and the archive has passed its end: it has an entry
    of a later month, or `now_ms` is an hour past it.
    """
    if now_ms < month.end_ms:
        raise MonthOpen(f"{month} is not over: it can be frozen from {time_text(month.end_ms)} on")
    for due in _open_months(archive, ledger, month):
        try:
            with archive.writing() as connection:
                _close(connection, ledger, due, now_ms=now_ms)
        except IntegrityError:  # somebody else has closed it meanwhile, and that is where it ends
            continue


def closed(connection: Connection, ledger: str, month: Month) -> ClosedMonth | None:
    """Where a month begins and ends, if it has been closed."""
    row = connection.execute(
        select(closed_months.c.from_seq, closed_months.c.to_seq).where(
            closed_months.c.ledger == ledger, closed_months.c.month == str(month)
        )
    ).first()
    return ClosedMonth(month, *row) if row else None


def _open_months(archive: Archive, ledger: str, month: Month) -> Iterator[Month]:
    with archive.reading() as connection:
        newest = _newest_closed(connection, ledger)
        first_ms = connection.scalar(
            select(entries.c.time_ms)
            .where(entries.c.ledger == ledger)
            .order_by(entries.c.seq)
            .limit(1)
        )
    if first_ms is None:
        raise NotFound(
            f"the archive has nothing of the ledger '{ledger}': is `python -m byline.archive` "
            "running, and is that the ledger's name?"
        )
    due = newest.month.next if newest else Month.of(first_ms)
    while due <= month:
        yield due
        due = due.next


def _close(connection: Connection, ledger: str, due: Month, *, now_ms: int) -> None:
    newest = _newest_closed(connection, ledger)
    to_seq = _last_seq(connection, ledger, due, now_ms=now_ms)
    connection.execute(
        insert(closed_months).values(
            ledger=ledger,
            month=str(due),
            from_seq=newest.to_seq + 1 if newest else 1,
            to_seq=to_seq,
        )
    )


def _last_seq(connection: Connection, ledger: str, due: Month, *, now_ms: int) -> int:
    # The sums by day know every entry but those that touch holds and pools alone: these are on
    # nobody's statement.
    beyond: int | None = connection.scalar(
        select(func.min(account_days.c.first_seq)).where(
            account_days.c.ledger == ledger, account_days.c.day >= due.end_ms // DAY_MS
        )
    )
    if beyond is not None:
        return beyond - 1
    if now_ms < due.end_ms + MONTH_GRACE_SECONDS * 1_000:
        raise MonthOpen(
            f"the archive has not seen the end of {due}: freeze it when the next month's first "
            f"entry has been exported, or after "
            f"{time_text(due.end_ms + MONTH_GRACE_SECONDS * 1_000)}"
        )
    return exported_seq(connection, ledger)


def _newest_closed(connection: Connection, ledger: str) -> ClosedMonth | None:
    newest = connection.scalar(
        select(func.max(closed_months.c.month)).where(closed_months.c.ledger == ledger)
    )
    return closed(connection, ledger, Month.parse(newest)) if newest else None
