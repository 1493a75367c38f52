"""Periods of UTC days: as conditions of queries, and where their lines begin in each ledger."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Table, func, select

from byline.archive.cursor import Cursor
from byline.archive.tables import progress
from byline.posting.postings import DAY_MS


@dataclass(frozen=True, slots=True)
class Period:
    """From one day to another, both included, as whole days since 1970-01-01; None: no end."""

    first: int | None = None
    last: int | None = None


ALL_TIME = Period()


def days_in(period: Period, day: ColumnElement[int]) -> list[ColumnElement[bool]]:
    """The conditions under which a column of days lies in the period."""
    first = [] if period.first is None else [day >= period.first]
    return first if period.last is None else [*first, day <= period.last]


def times_in(period: Period, time_ms: ColumnElement[int]) -> list[ColumnElement[bool]]:
    """The conditions under which a column of times lies in the period."""
    first = [] if period.first is None else [time_ms >= period.first * DAY_MS]
    return first if period.last is None else [*first, time_ms < (period.last + 1) * DAY_MS]


def newest_cursor(connection: Connection) -> Cursor:
    """Where a walk begins: after the newest entry of every ledger."""
    return Cursor({ledger: seq + 1 for ledger, seq in exported(connection).items()})


def exported(connection: Connection) -> Mapping[str, int]:
    """How far each ledger is in the archive: what an answer was made from."""
    return {row.ledger: row.seq for row in connection.execute(select(progress))}


def first_seqs(
    connection: Connection, days: Table, of: ColumnElement[bool], period: Period
) -> Mapping[str, int]:
    """Where a period's lines begin, in each ledger that has some: no walk reads beyond that.

    `days` is the table of sums by day; `of` says whose.
    """
    if period == ALL_TIME:
        return dict.fromkeys(exported(connection), 1)
    first = (
        select(days.c.ledger, func.min(days.c.first_seq))
        .where(of, *days_in(period, days.c.day))
        .group_by(days.c.ledger)
    )
    return {ledger: int(seq) for ledger, seq in connection.execute(first)}
