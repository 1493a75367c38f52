"""Reads what the checker needs, not through any door: journal, balances, jobs and archive."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from sqlalchemy import select

from byline.archive.database import Archive
from byline.archive.tables import accounts, entries
from byline.ledger.ledger import Ledger
from byline.posting.keys import Keys
from byline.posting.redis_client import answering, connect
from byline.records import Books
from byline.records_json import job_from

PAGE = 2_000
LEDGER = "usd"


class Reader:
    """One look at the primary and at the archive."""

    def __init__(self, ledger: Ledger, archive: Archive, url: str) -> None:
        self._ledger = ledger
        self._archive = archive
        self._url = url

    @classmethod
    async def open(cls, url: str, archive_folder: Path) -> "Reader":
        """Connect to both."""
        ledger = await Ledger.open(url)
        return cls(ledger, Archive.open(f"sqlite:///{archive_folder / 'archive.sqlite'}"), url)

    async def close(self) -> None:
        """Close both."""
        await self._ledger.close()
        self._archive.close()

    async def texts(self, after_seq: int) -> AsyncIterator[tuple[int, str]]:
        """The journal in order: what has been trimmed comes from the archive."""
        trimmed = await self._trimmed()
        while after_seq < trimmed:
            page = await asyncio.to_thread(self._archived, after_seq, trimmed)
            if not page:
                break
            for seq, text in page:
                yield seq, text
            after_seq = page[-1][0]
        while page := await self._ledger.page(after_seq=after_seq, limit=PAGE):
            for seq, text in page:
                yield seq, text
            after_seq = page[-1][0]

    async def balances(self) -> dict[str, int]:
        """Every account that is not zero."""
        return dict(await self._ledger.balances())

    async def jobs(self) -> set[tuple[str, int]]:
        """Every choice that has a job, claimed or not."""
        client = connect(self._url)
        try:
            with answering("read the jobs"):
                found = await client.xrange(Keys(LEDGER).jobs)
        finally:
            await client.aclose()
        return {_choice(fields["job"]) for _, fields in found}

    async def frozen(self) -> str | None:
        """Why posting is stopped, if it is."""
        return (await self._ledger.unfinished()).frozen

    async def books(self) -> Books:
        """The ledger's own check of itself."""
        return await self._ledger.check()

    def archived_balances(self) -> dict[str, int]:
        """What the archive says the balances are."""
        query = select(accounts.c.account, accounts.c.nano).where(
            accounts.c.ledger == LEDGER, accounts.c.nano != 0
        )
        with self._archive.reading() as connection:
            return {row.account: row.nano for row in connection.execute(query)}

    def archived_texts(self, after_seq: int) -> list[tuple[int, str]]:
        """A page of the archive's entries."""
        return self._archived(after_seq, after_seq + PAGE)

    def _archived(self, after_seq: int, up_to_seq: int) -> list[tuple[int, str]]:
        query = (
            select(entries.c.seq, entries.c.text)
            .where(entries.c.ledger == LEDGER, entries.c.seq > after_seq)
            .where(entries.c.seq <= up_to_seq)
            .order_by(entries.c.seq)
            .limit(PAGE)
        )
        with self._archive.reading() as connection:
            return [(seq, text) for seq, text in connection.execute(query)]

    async def _trimmed(self) -> int:
        client = connect(self._url)
        try:
            with answering("read how much of the journal is trimmed"):
                return int(await client.hget(Keys(LEDGER).meta, "trimmed") or 0)
        finally:
            await client.aclose()


def _choice(job: str) -> tuple[str, int]:
    read = job_from(job, attempts=1, message_id="")
    return read.inference, read.ordinal
