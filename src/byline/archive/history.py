"""Any account's lines with its balance after each: opening + lines = closing, on every page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from byline.archive.cursor import Cursor
from byline.archive.lines import AccountLine, account_lines
from byline.archive.periods import newest_cursor
from byline.archive.tables import legs


@dataclass(frozen=True, slots=True)
class History:
    """One page, newest first. The closing balance is what the newest line of the page left."""

    account: str
    closing_nano: int
    lines: Sequence[tuple[AccountLine, int]]  # and the account's balance after it
    opening_nano: int  # before the oldest line of the page
    next: Cursor | None


def history_of(
    connection: Connection, account: str, *, limit: int, cursor: Cursor | None = None
) -> History:
    """A page of the account's history, over all ledgers."""
    start = cursor or newest_cursor(connection)
    closing = _balance_before(connection, account, start.before)
    lines, following = account_lines(connection, account, limit=limit, cursor=start)
    balances = [closing]
    for line in lines:
        balances.append(balances[-1] - line.nano)
    return History(
        account=account,
        closing_nano=closing,
        lines=list(zip(lines, balances, strict=False)),
        opening_nano=balances[-1],
        next=following,
    )


def _balance_before(connection: Connection, account: str, before: Mapping[str, int]) -> int:
    """What was in the account before these sequence numbers, summed over the ledgers."""
    return sum(
        connection.scalar(
            select(legs.c.balance)
            .where(legs.c.account == account, legs.c.ledger == ledger, legs.c.seq < seq)
            .order_by(legs.c.seq.desc())
            .limit(1)
        )
        or 0
        for ledger, seq in before.items()
    )
