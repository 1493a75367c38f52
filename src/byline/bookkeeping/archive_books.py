"""Holds the SQL archive against the fold: its balances, and the journal since, give the fold's.

A page of accounts a round: those the ledger's own comparison has just looked at, and, in turn, all
that the archive has.
"""

import asyncio
from collections.abc import Iterable

from sqlalchemy import select

from byline.archive.database import Archive
from byline.archive.tables import accounts, progress
from byline.bookkeeping.findings import Finding, Kind
from byline.bookkeeping.live import LiveBooks
from byline.bookkeeping.readings import Meta
from byline.ledger.books import Fold, Snapshot
from byline.ledger.journal import Journal

NAMES_A_ROUND = 500
LAG_MAX = 20_000  # entries: an archive that is further behind is compared when it has caught up
LISTED_MAX = 20


class ArchiveBooks:
    """One ledger's balances in the archive."""

    def __init__(self, archive: Archive, ledger: str, journal: Journal) -> None:
        self._archive = archive
        self._ledger = ledger
        self._journal = journal
        self.different: dict[str, str] = {}  # account -> how
        self._turn = ""  # the archive's accounts have been compared up to this one

    async def round(self, live: LiveBooks, meta: Meta) -> list[Finding]:
        """Compare some accounts; answers all that is known to differ. `meta` is of before."""
        wanted = [*self.different, *live.compared][:NAMES_A_ROUND]
        seq, stored = await asyncio.to_thread(self._read, wanted)
        if seq < max(meta.exported, meta.trimmed):
            says = f"ends at {seq}, was told to have {meta.exported}, trimmed is {meta.trimmed}"
            return [Finding(Kind.ARCHIVE, "archive", says)]
        await live.follow(seq)  # it may have been exported since the look
        if seq > live.fold.seq:
            says = (
                f"has entries up to {seq} that are lost here: `byline ledger rebuild --restore` "
                "puts them back"
            )
            return [Finding(Kind.ARCHIVE, "archive", says)]
        if live.fold.seq <= seq + LAG_MAX:
            await self._compare(live.fold, Snapshot(seq, stored), wanted)
        return [
            Finding(Kind.ARCHIVE, name, says)
            for name, says in sorted(self.different.items())[:LISTED_MAX]
        ]

    async def _compare(self, live: Fold, archived: Snapshot, wanted: Iterable[str]) -> None:
        since = Fold(archived)
        async for page in self._journal.pages(after_seq=archived.seq, up_to_seq=live.seq):
            since.add_page(page)
        for name in {*wanted, *archived.accounts}:
            self.different.pop(name, None)
            there, here = since.accounts.get(name, 0), live.accounts.get(name, 0)
            if there != here:
                self.different[name] = f"the archive comes to {there}, the journal folds to {here}"

    def _read(self, wanted: Iterable[str]) -> tuple[int, dict[str, int]]:
        """The archive's position, and of that moment the accounts wanted and the next in turn."""
        ours = select(accounts.c.account, accounts.c.nano).where(accounts.c.ledger == self._ledger)
        in_turn = (
            ours.where(accounts.c.account > self._turn, accounts.c.nano != 0)
            .order_by(accounts.c.account)
            .limit(NAMES_A_ROUND)
        )
        position = select(progress.c.seq).where(progress.c.ledger == self._ledger)
        with self._archive.reading() as connection:
            seq = connection.execute(position).scalar() or 0
            rows = connection.execute(ours.where(accounts.c.account.in_(list(wanted)))).all()
            turn = connection.execute(in_turn).all()
        self._turn = turn[-1].account if len(turn) == NAMES_A_ROUND else ""
        return seq, {row.account: row.nano for row in (*rows, *turn) if row.nano}


def archived_snapshot(archive: Archive, ledger: str) -> Snapshot:
    """What the archive has of all accounts: where a fold may begin, too."""
    position = select(progress.c.seq).where(progress.c.ledger == ledger)
    ours = select(accounts.c.account, accounts.c.nano).where(
        accounts.c.ledger == ledger, accounts.c.nano != 0
    )
    with archive.reading() as connection:
        seq = connection.execute(position).scalar() or 0
        return Snapshot(seq, {row.account: row.nano for row in connection.execute(ours)})
