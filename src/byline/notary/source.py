"""Where the notary reads entries: the journal, and what was trimmed off it from the archive."""

import asyncio
from dataclasses import dataclass

from sqlalchemy import select

from byline.archive.database import Archive
from byline.archive.rows import Found, entry_from
from byline.archive.tables import entries, manifests
from byline.canonical import sha256_hex
from byline.errors import ArchiveMismatch, LogMismatch
from byline.ledger.ledger import Ledger
from byline.limits import LEGS_PER_EXPORT_MAX
from byline.records import JournalEntry


@dataclass(frozen=True, slots=True)
class Source:
    """One ledger's entries in order, each with the text behind its manifest's hash."""

    ledger: Ledger
    archive: Archive | None
    name: str

    async def page(self, seq: int, entry_sha256: str, limit: int) -> list[Found]:
        """Up to `limit` entries after `seq`, without a gap, that no failover can lose any more.

        Raises LogMismatch where entry `seq` is another one than had this hash, or is not there.
        """
        texts = await self.ledger.page(after_seq=max(seq - 1, 0), limit=limit + 1)
        first = max(seq, 1)
        is_trimmed = bool(texts) and texts[0][0] > first
        if not texts:  # also where it is trimmed to its end; one that counts less has lost entries
            is_trimmed = (await self.ledger.unfinished()).journal_entries >= first
        if is_trimmed:
            texts = await asyncio.to_thread(self.archived, first, limit + 1) or texts
        if seq and (not texts or sha256_hex(texts[0][1].encode()) != entry_sha256):
            raise LogMismatch(
                f"ledger {self.name}: entry {seq} is in the log, and in the journal there is "
                f"{'another' if texts else 'none'}. The ledger was restored from an older copy: "
                "nothing is logged until it has the same entries again"
            )
        return await self._found([each for each in texts if each[0] > seq], seq)

    async def _found(self, texts: list[tuple[int, str]], seq: int) -> list[Found]:
        page: list[tuple[JournalEntry, str]] = []
        legs = 0
        for number, text in texts:
            if number != seq + len(page) + 1:
                raise LogMismatch(f"ledger {self.name}: the journal has no entry {number - 1}")
            page.append((_entry(number, text), text))
            legs += len(page[-1][0].legs)
            if legs > LEGS_PER_EXPORT_MAX:
                break
        if not page:
            return []
        await self.ledger.confirm()
        explained = [entry for entry, _ in page if entry.manifest_sha256 is not None]
        asked = dict(
            zip(
                [entry.seq for entry in explained],
                await self.ledger.manifests(explained) if explained else [],
                strict=True,
            )
        )
        lacking = [e.manifest_sha256 for e in explained if asked[e.seq] is None]
        archived = await asyncio.to_thread(self._manifests, [s for s in lacking if s])
        return [
            Found(entry, text, asked.get(entry.seq) or archived.get(entry.manifest_sha256 or ""))
            for entry, text in page
        ]

    def archived(self, seq: int, limit: int) -> list[tuple[int, str]]:
        """Up to `limit` entries from `seq` on, number and text, from the archive."""
        if self.archive is None:
            return []
        asked = (
            select(entries.c.seq, entries.c.text)
            .where(entries.c.ledger == self.name, entries.c.seq >= seq)
            .order_by(entries.c.seq)
            .limit(limit)
        )
        with self.archive.reading() as connection:
            return [(row.seq, row.text) for row in connection.execute(asked)]

    def _manifests(self, hashes: list[str]) -> dict[str, str]:
        """Texts by their hash, where the archive has them."""
        if self.archive is None or not hashes:
            return {}
        asked = select(manifests).where(manifests.c.sha256.in_(hashes))
        with self.archive.reading() as connection:
            return {row.sha256: row.text for row in connection.execute(asked) if row.text}


def _entry(seq: int, text: str) -> JournalEntry:
    try:
        return entry_from(seq, text)
    except ArchiveMismatch as problem:
        raise LogMismatch(str(problem)) from problem
