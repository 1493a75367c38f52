"""The check after every turn, and the thorough one at the end: Redis, archive and promises."""

import asyncio
import hashlib
from pathlib import Path

from loadtests.faults.checker import Checker
from loadtests.faults.reading import Reader
from loadtests.faults.record import Record
from loadtests.faults.verdict import Verdict


class Audit:
    """Follows the journal of one run through all its servers."""

    def __init__(self, seed: int, record: Record, verdict: Verdict, folder: Path) -> None:
        self._record = record
        self._verdict = verdict
        self._folder = folder
        self.checker = Checker(seed, record, verdict)

    async def after_turn(self, url: str) -> None:
        """What was posted in this turn, and everything that can be said of a quiet ledger."""
        reader = await Reader.open(url, self._folder)
        try:
            await self._same_past(reader)
            async for seq, text in reader.texts(self.checker.seq):
                self.checker.add(seq, text)
            self.checker.check_promises()
            self.checker.check_balances(await reader.balances(), "Redis")
            self.checker.check_jobs(await reader.jobs())
            if reason := await reader.frozen():
                self._verdict.note(f"frozen: {reason}")
        finally:
            await reader.close()
        self._check_refusals()

    async def at_the_end(self, url: str) -> None:
        """Everything is posted, settled and exported: nothing may be left, nothing may differ."""
        self.checker.check_ends()
        for key in self._record.spooled:
            self._verdict.note_lost(key, "was spooled and never posted")
        reader = await Reader.open(url, self._folder)
        try:
            balances = await asyncio.to_thread(reader.archived_balances)
            self.checker.check_balances(balances, "the archive")
            await asyncio.to_thread(self._same_in_archive, reader)
            if not (books := await reader.books()).balanced:
                self._verdict.note(f"the ledger's own check says {books}")
        finally:
            await reader.close()

    async def _same_past(self, reader: Reader) -> None:
        """After a restart or a failover the journal must still have what it had."""
        if not self.checker.seq:
            return
        async for seq, text in reader.texts(self.checker.seq - 1):
            if (seq, text) != (self.checker.seq, self.checker.newest):
                self._verdict.note(
                    f"rewritten: entry {self.checker.seq} was {self.checker.newest}, "
                    f"entry {seq} is {text}"
                )
            return
        self._verdict.note(f"shortened: the journal had entry {self.checker.seq}")

    def _same_in_archive(self, reader: Reader) -> None:
        seq, chain = 0, hashlib.sha256()
        while page := reader.archived_texts(seq):
            for number, text in page:
                if number != seq + 1:
                    self._verdict.note(f"the archive has entry {number} after entry {seq}")
                seq = number
                chain.update(text.encode())
        if seq != self.checker.seq or chain.digest() != self.checker.chain.digest():
            self._verdict.note(
                f"the archive's {seq} entries are not the journal's {self.checker.seq}"
            )

    def _check_refusals(self) -> None:
        """A worker may be refused only what is settled already (and its mark forgotten)."""
        for key, refused in self._record.refused.items():
            if "/settle/" in key and key not in self.checker.seqs:
                self._verdict.note(f"refused: {key}: {refused.error}: {refused.text}")
