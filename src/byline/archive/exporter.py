"""Copies a ledger's journal into the archive, by sequence number, exactly once.

Nothing is ever popped. A page is read; the ledger confirms that no failover can lose it; one
transaction adds what the archive lacks; then the ledger is told. A process that dies between any
two of these steps is simply started again, and any number of them may run at once.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from byline.archive.database import Archive
from byline.archive.rows import Found, entry_from
from byline.archive.writing import Written, exported_seq, require_same_history, write_page
from byline.errors import ArchiveMismatch, ArchiveUnavailable, LedgerFenced, LedgerUnavailable
from byline.ledger.ledger import Ledger
from byline.limits import ENTRIES_PER_EXPORT_MAX, LEGS_PER_EXPORT_MAX
from byline.program import pause
from byline.records import JournalEntry

log = logging.getLogger("byline.archive")

IDLE_SECONDS = 0.2  # between two looks at a journal that has nothing new
AWAY_SECONDS = 1.0  # between two attempts to reach a ledger or an archive that is away


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the archive is, and what the journal has beyond it."""

    exported_seq: int
    entries: int
    oldest_ms: int | None  # when the oldest entry that is not exported was posted


class Exporter:
    """Exports one ledger. `observe` is told of each transaction, also if it added nothing."""

    def __init__(
        self,
        ledger: Ledger,
        archive: Archive,
        *,
        name: str = "usd",
        step: Callable[[str], None] = lambda _: None,
        observe: Callable[[Written], None] = lambda _: None,
        entries_max: int = ENTRIES_PER_EXPORT_MAX,
    ) -> None:
        self._ledger = ledger
        self._archive = archive
        self._name = name
        self._step = step
        self._observe = observe
        self._entries_max = entries_max
        self._noted: int | None = None  # how far the ledger has been told that it is exported

    async def once(self) -> int:
        """Export one page; answers how many entries it added, 0 when there is nothing new.

        Raises ArchiveMismatch where the journal does not continue the archive, LedgerUnconfirmed
        where a replica lags, and what the two stores raise when they are away.
        """
        seq, page = await self._page()
        self._step("read")
        if page and page[-1].entry.seq > seq:
            await self._ledger.confirm()  # of all posted before, so of every entry in the page
            self._step("confirmed")
            written = await asyncio.to_thread(self._write, page)
            self._step("committed")
        else:
            written = await asyncio.to_thread(self._compare, seq, page)
        self._observe(written)
        if written.seq != self._noted:
            await self._ledger.note_exported(written.seq)
            self._noted = written.seq
            self._step("noted")
        return written.entries

    async def run(self, stop: asyncio.Event) -> None:
        """Export until `stop`, waiting for a ledger or an archive that is away.

        Raises ArchiveMismatch: what is wrong then does not pass by itself.
        """
        while not stop.is_set():
            seconds = 0.0
            try:
                if not await self.once():
                    seconds = IDLE_SECONDS
            except (LedgerUnavailable, LedgerFenced) as problem:
                log.warning("ledger %s can't be exported now: %s", self._name, problem)
                seconds = AWAY_SECONDS
                with suppress(LedgerUnavailable, LedgerFenced):
                    await self._ledger.rejoin()  # after a failover or a rebuild
            except ArchiveUnavailable as problem:
                log.warning("ledger %s can't be exported now: %s", self._name, problem)
                seconds = AWAY_SECONDS
            if seconds:
                await pause(stop, seconds)

    async def lag(self) -> Lag:
        """How far the archive is behind the journal."""
        seq = await asyncio.to_thread(self._exported_seq)
        newest = (await self._ledger.unfinished()).journal_entries
        waiting = await self._ledger.page(after_seq=seq, limit=1)
        oldest_ms = entry_from(*waiting[0]).time_ms if waiting else None
        return Lag(seq, max(newest - seq, 0), oldest_ms)

    async def _page(self) -> tuple[int, list[Found]]:
        """How far the archive is; the entry there, to compare it; and what follows it."""
        seq = await asyncio.to_thread(self._exported_seq)
        texts = await self._ledger.page(after_seq=max(seq - 1, 0), limit=self._entries_max + 1)
        if seq and not texts:
            await self._require_not_shorter(seq)
        entries = _within_bounds(texts, seq)
        manifests = await self._manifests([entry for entry in entries if entry.seq > seq])
        return seq, [
            Found(entry, text, manifests.get(entry.seq))
            for entry, (_, text) in zip(entries, texts, strict=False)
        ]

    async def _manifests(self, entries: list[JournalEntry]) -> dict[int, str | None]:
        explained = [entry for entry in entries if entry.manifest_sha256 is not None]
        if not explained:
            return {}
        texts = await self._ledger.manifests(explained)
        return {entry.seq: text for entry, text in zip(explained, texts, strict=True)}

    async def _require_not_shorter(self, seq: int) -> None:
        """A journal that is trimmed to its end is empty, too; one that counts less is not ours."""
        newest = (await self._ledger.unfinished()).journal_entries
        if newest < seq:
            raise ArchiveMismatch(
                f"ledger {self._name}: the archive has entry {seq}, the journal ends at {newest}. "
                "The ledger was restored from an older copy, or it is a different ledger"
            )

    def _exported_seq(self) -> int:
        with self._archive.reading() as connection:
            return exported_seq(connection, self._name)

    def _compare(self, seq: int, page: list[Found]) -> Written:
        """Nothing is new, so nothing is written: a look at an idle ledger costs no sync."""
        with self._archive.reading() as connection:
            require_same_history(connection, self._name, seq, page)
        return Written(seq)

    def _write(self, page: list[Found]) -> Written:
        with self._archive.writing() as connection:
            return write_page(connection, self._name, page, self._step)


def _within_bounds(texts: list[tuple[int, str]], exported_seq: int) -> list[JournalEntry]:
    """The first of these entries: as many as one transaction should add."""
    entries: list[JournalEntry] = []
    legs = 0
    for seq, text in texts:
        if legs > LEGS_PER_EXPORT_MAX:
            break
        entries.append(entry_from(seq, text))
        if seq > exported_seq:
            legs += len(entries[-1].legs)
    return entries
