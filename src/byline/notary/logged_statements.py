"""Gives each frozen statement its leaf, once all the entries that it covers have theirs."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from byline.archive.tables import entries, legs, statements
from byline.notary.source import Source
from byline.notary.state import Addition, NewLeaf, State
from byline.posting.postings import parse_entry
from byline.transparency.leaves import (
    NO_LEG,
    Salts,
    StatementOpening,
    entry_leaf,
    statement_leaf,
    statement_text,
)

STATEMENTS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class StatementLeaves:
    """The statements of one ledger's archive."""

    source: Source
    state: State
    salts: Salts

    def add_new(self) -> int:
        """Add the leaves of statements that have none; answers how many."""
        archive = self.source.archive
        if archive is None:
            return 0
        standing = self.state.standing()
        logged = self.state.logged_statements()
        columns = statements.c
        asked = (
            select(
                columns.account, columns.month, columns.from_seq, columns.to_seq,
                columns.opening_nano, columns.closing_nano, columns.sha256,
            )
            .where(columns.ledger == self.source.name, columns.to_seq <= standing.seq)
            .order_by(columns.month, columns.account)
        )  # fmt: skip
        addition, openings = Addition(standing.size), []
        with archive.reading() as connection:
            for row in connection.execute(asked).all():
                if (row.account, row.month) in logged:
                    continue
                before_n, before = self._chain(connection, row.account, row.from_seq - 1)
                last_n, head = self._chain(connection, row.account, row.to_seq)
                opening = StatementOpening(
                    row.account, row.month, before_n + 1, last_n, before, head,
                    row.opening_nano, row.closing_nano, row.sha256,
                )  # fmt: skip
                text = statement_text(opening, self.salts)
                openings.append((row.account, row.month, addition.next_leaf, text))
                addition.leaves.append(NewLeaf(statement_leaf(row.month, text)))
                if len(openings) == STATEMENTS_AT_ONCE:
                    break
        if openings:
            self.state.add(addition, statements=openings)
        return len(openings)

    def _chain(self, connection: Connection, account: str, seq: int) -> tuple[int, bytes]:
        """How many legs the account had at that entry, and the hash of the newest of them."""
        mine = (legs.c.ledger == self.source.name, legs.c.account == account, legs.c.seq <= seq)
        n, newest = connection.execute(
            select(func.count(), func.max(legs.c.seq)).where(*mine)
        ).one()
        if not n:
            return 0, NO_LEG
        text = connection.execute(
            select(entries.c.text).where(
                entries.c.ledger == self.source.name, entries.c.seq == newest
            )
        ).scalar_one()
        entry = parse_entry(text)
        at = self.state.entry(newest)
        leaf = entry_leaf(entry, at.places, at.salts)  # its legs are what counts here
        accounts = [leg.account for leg in entry.legs]
        return n, leaf.nodes[accounts.index(account)].hash
