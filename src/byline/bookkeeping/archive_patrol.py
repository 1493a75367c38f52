"""Reads the archive again from its first entry, a slice a round, lap after lap.

`ArchiveBooks` compares accounts. The patrol compares what makes them up: each entry's stored text
with its rows, with the hash of its manifest, and with the journal as far back as that still goes.
Where something is wrong it stays, and reads on when that is mended.
"""

import asyncio

from byline.archive.database import Archive
from byline.bookkeeping.archive_slice import Lap, Slice, read_slice
from byline.bookkeeping.findings import Finding, Kind
from byline.ledger.journal import Journal, seq_of

LISTED_MAX = 20


class ArchivePatrol:
    """One ledger's rows in the archive."""

    def __init__(self, archive: Archive, ledger: str, journal: Journal) -> None:
        self._archive = archive
        self._ledger = ledger
        self._journal = journal
        self._lap = Lap()

    @property
    def seq(self) -> int:
        """How far this lap is."""
        return self._lap.seq

    async def round(self) -> list[Finding]:
        """Read on; answers what is wrong here."""
        lap = self._lap
        if lap.seq == lap.end:
            lap = Lap()
        part = await asyncio.to_thread(self._read, lap)
        await self._compare_with_journal(lap.seq, part)
        if not part.wrong:
            lap.take(part)
            self._lap = lap
        return [
            Finding(Kind.ARCHIVE_ROW, name, says)
            for name, says in list(part.wrong.items())[:LISTED_MAX]
        ]

    async def _compare_with_journal(self, after_seq: int, part: Slice) -> None:
        """What has been trimmed, or is not there for another reason, is found elsewhere."""
        page = await self._journal.read(after_seq, part.seq, max(1, len(part.texts)))
        for stream_id, (_, text) in page:
            seq = seq_of(stream_id)
            if seq in part.texts and part.texts[seq].encode() != text:
                part.wrong[f"entry {seq}"] = "has another text than in the journal"

    def _read(self, lap: Lap) -> Slice:
        with self._archive.reading() as connection:
            return read_slice(connection, self._ledger, lap)
