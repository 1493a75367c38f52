"""The statements that are frozen: found, listed, and read back only as they were written."""

from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, Row, Select, select

from byline.archive.database import Archive
from byline.archive.tables import statements
from byline.errors import ArchiveUnavailable, NotFound
from byline.statements.months import Month
from byline.statements.statement import sha256_of

# The columns that say again what the hashed text says.
HASHED = ("from_seq", "to_seq", "opening_nano", "closing_nano")


@dataclass(frozen=True, slots=True)
class Frozen:
    """What there is to know of a frozen statement without reading its lines."""

    ledger: str
    account: str
    month: Month
    from_seq: int
    to_seq: int
    opening_nano: int
    closing_nano: int
    sha256: str


def find(archive: Archive, ledger: str, account: str, month: Month) -> Frozen:
    """One frozen statement. Raises NotFound."""
    with archive.reading() as connection:
        row = connection.execute(
            _of(ledger).where(statements.c.account == account, statements.c.month == str(month))
        ).first()
    if row is None:
        raise NotFound(f"there is no statement of {account} for {month}: it was not frozen yet, "
                       "or the account had nothing before the month's end")  # fmt: skip
    return _frozen(row)


def newest(connection: Connection, ledger: str, account: str) -> Frozen | None:
    """The end of an account's chain, if it has begun."""
    asked = _of(ledger).where(statements.c.account == account)
    row = connection.execute(asked.order_by(statements.c.month.desc()).limit(1)).first()
    return _frozen(row) if row else None


def of_account(archive: Archive, ledger: str, account: str) -> list[Frozen]:
    """All statements of an account, the newest first."""
    asked = _of(ledger).where(statements.c.account == account)
    with archive.reading() as connection:
        rows = connection.execute(asked.order_by(statements.c.month.desc())).all()
    return [_frozen(row) for row in rows]


def of_month(archive: Archive, ledger: str, month: Month) -> list[Frozen]:
    """The statements of all accounts for a month, by account."""
    asked = _of(ledger).where(statements.c.month == str(month))
    with archive.reading() as connection:
        rows = connection.execute(asked).all()
    return sorted((_frozen(row) for row in rows), key=lambda frozen: frozen.account)


def text_of(archive: Archive, frozen: Frozen) -> str:
    """The statement's canonical JSON. Raises ArchiveUnavailable if it is not what was frozen."""
    with archive.reading() as connection:
        text: str = connection.execute(
            select(statements.c.json).where(
                statements.c.ledger == frozen.ledger,
                statements.c.account == frozen.account,
                statements.c.month == str(frozen.month),
            )
        ).scalar_one()
    said = orjson.loads(text) if sha256_of(text) == frozen.sha256 else {}
    columns = (frozen.from_seq, frozen.to_seq, frozen.opening_nano, frozen.closing_nano)
    if columns != tuple(said.get(name) for name in HASHED):
        raise ArchiveUnavailable(
            f"the statement of {frozen.account} for {frozen.month} is not the one that was frozen: "
            "restore the archive from a copy"
        )
    return text


def _of(ledger: str) -> Select[Any]:
    columns = statements.c
    return select(
        columns.ledger, columns.account, columns.month, columns.from_seq, columns.to_seq,
        columns.opening_nano, columns.closing_nano, columns.sha256,
    ).where(columns.ledger == ledger)  # fmt: skip


def _frozen(row: Row[Any]) -> Frozen:
    fields = row._asdict()
    return Frozen(**{**fields, "month": Month.parse(fields["month"])})
