"""Freezes statements: each account's months in order, each once, for ever.

A month without lines is frozen too, from the account's first line on, so that the chain of hashes
has no gap. Freezing again, or in two processes at once, gives the bytes
that were first.
"""

from collections.abc import Callable, Iterator

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import IntegrityError

from byline.archive.database import Archive
from byline.archive.tables import accounts, adapters, closed_months, entries, legs, statements
from byline.errors import ArchiveUnavailable
from byline.statements import frozen as store
from byline.statements.closing import ClosedMonth, close_months
from byline.statements.frozen import Frozen
from byline.statements.months import Month
from byline.statements.statement import (
    TOTAL_OF_KIND,
    Line,
    Statement,
    is_payee,
    sha256_of,
    statement_text,
)

ROWS_AT_ONCE = 10_000


class Freezer:
    """Freezes the statements of one ledger's payees."""

    def __init__(
        self, archive: Archive, *, ledger: str = "usd", step: Callable[[str], None] = lambda _: None
    ) -> None:
        self._archive = archive
        self._ledger = ledger
        self._step = step

    def freeze(self, account: str, month: Month, *, now_ms: int) -> Frozen:
        """One account's statement of `month`, and every one before it that is missing.

        Raises MonthOpen before the month can be frozen, NotFound for an account without a line
        until then, ArchiveUnavailable where its lines don't come to the balance that they carry.
        """
        close_months(self._archive, self._ledger, month, now_ms=now_ms)
        self._step("closed the months")
        self._freeze_missing(account, month)
        return store.find(self._archive, self._ledger, account, month)

    def freeze_all(self, month: Month, *, now_ms: int) -> list[Frozen]:
        """The same for every payee; answers the statements of `month`."""
        close_months(self._archive, self._ledger, month, now_ms=now_ms)
        self._step("closed the months")
        for account in self._payees():
            self._freeze_missing(account, month)
        return store.of_month(self._archive, self._ledger, month)

    def _payees(self) -> list[str]:
        asked = select(accounts.c.account).where(accounts.c.ledger == self._ledger)
        with self._archive.reading() as connection:
            return sorted(name for name in connection.scalars(asked) if is_payee(name))

    def _freeze_missing(self, account: str, month: Month) -> None:
        while (statement := self._next(account, month)) is not None:
            try:
                with self._archive.writing() as connection:
                    connection.execute(insert(statements).values(_row(statement)))
            except IntegrityError:  # somebody else was first, and theirs stands
                continue
            self._step(f"froze {account} for {statement.month}")

    def _next(self, account: str, month: Month) -> Statement | None:
        """The statement that follows the account's newest one; None once `month` is frozen."""
        with self._archive.reading() as connection:
            newest = store.newest(connection, self._ledger, account)
            due = self._due(connection, account, newest, month)
            if due is None:
                return None
            statement = Statement(
                ledger=self._ledger,
                account=account,
                month=due.month,
                from_seq=due.from_seq,
                to_seq=due.to_seq,
                opening_nano=newest.closing_nano if newest else 0,
                lines=tuple(self._lines(connection, account, due)),
                previous_sha256=newest.sha256 if newest else None,
            )
            self._require_closing(connection, statement)
            return statement

    def _require_closing(self, connection: Connection, statement: Statement) -> None:
        """The newest leg until then carries the balance that the statement comes to."""
        carried: int | None = connection.scalar(
            select(legs.c.balance)
            .where(legs.c.account == statement.account, legs.c.ledger == self._ledger)
            .where(legs.c.seq <= statement.to_seq)
            .order_by(legs.c.seq.desc())
            .limit(1)
        )
        if carried != statement.closing_nano:
            raise ArchiveUnavailable(
                f"the statement of {statement.account} for {statement.month} is not frozen: its "
                f"lines come to {statement.closing_nano} nano-USD, its newest leg carries a "
                f"balance of {carried}. A row of the archive was changed: see what the bookkeeper "
                "says of it, and restore the archive from a copy"
            )

    def _due(
        self, connection: Connection, account: str, newest: Frozen | None, month: Month
    ) -> ClosedMonth | None:
        """The first closed month that the account's statements lack, if it is not past `month`."""
        months = closed_months.c
        if newest is not None:
            lacking = months.month > str(newest.month)
        else:
            first_line = select(func.min(legs.c.seq)).where(
                legs.c.account == account, legs.c.ledger == self._ledger
            )
            lacking = months.to_seq >= first_line.scalar_subquery()
        row = connection.execute(
            select(months.month, months.from_seq, months.to_seq)
            .where(months.ledger == self._ledger, months.month <= str(month), lacking)
            .order_by(months.month)
            .limit(1)
        ).first()
        return ClosedMonth(Month.parse(row.month), row.from_seq, row.to_seq) if row else None

    def _lines(self, connection: Connection, account: str, due: ClosedMonth) -> Iterator[Line]:
        known = connection.execute(select(adapters.c.adapter_version, adapters.c.dataset))
        datasets = {row.adapter_version: row.dataset for row in known}
        asked = (
            select(
                legs.c.seq, entries.c.key, entries.c.kind, entries.c.time_ms, entries.c.inference,
                entries.c.adapter_version, legs.c.nano,
            )
            .join(entries, (entries.c.ledger == legs.c.ledger) & (entries.c.seq == legs.c.seq))
            .where(legs.c.account == account, legs.c.ledger == self._ledger)
            .where(legs.c.seq.between(due.from_seq, due.to_seq))
            .order_by(legs.c.seq)
            .execution_options(yield_per=ROWS_AT_ONCE)
        )  # fmt: skip
        with connection.execute(asked) as rows:
            for row in rows:
                if row.kind not in TOTAL_OF_KIND:
                    raise ArchiveUnavailable(
                        f"entry {row.seq} of {account} is a '{row.kind}', which no statement "
                        "knows: freeze with the release that wrote it"
                    )
                yield Line(
                    **row._asdict(),
                    dataset=datasets.get(row.adapter_version),
                    late=row.time_ms < due.month.start_ms,
                )


def _row(statement: Statement) -> dict[str, object]:
    text = statement_text(statement)
    return {
        "ledger": statement.ledger,
        "account": statement.account,
        "month": str(statement.month),
        "from_seq": statement.from_seq,
        "to_seq": statement.to_seq,
        "opening_nano": statement.opening_nano,
        "closing_nano": statement.closing_nano,
        "json": text,
        "sha256": sha256_of(text),
    }
