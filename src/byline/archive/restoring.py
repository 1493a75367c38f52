"""Puts entries back into a journal that has lost them, from the archive, byte for byte.

A stream takes nothing in its middle, so a whole one is written aside and renamed into place, under
a freeze; then a rebuild makes the balances anew and raises the epoch. What the server counts
as posted has left its marks and facts, which the same script wrote: of such entries only the text
is put back. Of those behind its count nothing is left, so their marks and facts are put back too.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence

from redis.exceptions import WatchError
from sqlalchemy import select

from byline.archive.database import Archive
from byline.archive.rows import Found, entry_from
from byline.archive.tables import entries, manifests
from byline.archive.traces import write_traces
from byline.archive.writing import exported_seq
from byline.canonical import sha256_hex
from byline.errors import ArchiveMismatch, LedgerRefused
from byline.ledger.freezes import frozen_to_mend
from byline.ledger.journal import Journal, seq_of
from byline.ledger.ledger import Ledger
from byline.posting.redis_client import answering

PAGE = 1_000  # entries read or written at once


class Restoring:
    """Mends one ledger's journal."""

    def __init__(self, ledger: Ledger, archive: Archive, *, name: str = "usd") -> None:
        self._redis, self._keys = ledger.inside
        self._archive = archive
        self._name = name
        self._journal = Journal(self._redis, self._keys)
        self._aside = f"{self._keys.journal}:restored"

    async def restore(self) -> int:
        """Put back what is lost; answers how many entries. Posting stays frozen: rebuild next.

        Raises ArchiveMismatch where the two have different entries under one number, LedgerRefused
        where an entry is in neither. Begun again after a crash, it ends what it has begun.
        """
        async with frozen_to_mend(self._redis, self._keys):
            with answering("restore the journal"):
                async with self._redis.pipeline() as pipe:
                    # A trim changes `meta` also where the entries that it takes are lost already.
                    await pipe.watch(self._keys.journal, self._keys.meta)
                    counted, lost = await self._write_aside()
                    if lost:
                        await self._put_back_traces([seq for seq in lost if seq > counted])
                        pipe.multi()
                        pipe.rename(self._aside, self._keys.journal)
                        try:
                            await pipe.execute()
                        except WatchError:
                            raise LedgerRefused(
                                "restore: the journal, or what its server says of it, changed "
                                "meanwhile: it was left as it is, run this again"
                            ) from None
                    else:
                        await self._redis.delete(self._aside)
        return len(lost)

    async def _write_aside(self) -> tuple[int, list[int]]:
        """The whole journal; answers the server's count and which entries it has lost."""
        seq, trimmed = await self._redis.hmget(self._keys.meta, "seq", "trimmed")
        newest = await self._redis.xrevrange(self._keys.journal, count=1)
        counted, first = int(seq or 0), int(trimmed or 0)
        archived = await asyncio.to_thread(self._archived_seq)
        end = max(counted, archived, *(seq_of(id_.encode()) for id_, _ in newest), 0)
        await self._redis.delete(self._aside)
        lost: list[int] = []
        for after in range(first, end, PAGE):
            up_to = min(after + PAGE, end)
            there = await asyncio.to_thread(self._texts, after, up_to)
            page = await self._journal.read(after, up_to, PAGE)
            here = {seq_of(stream_id): text.decode() for stream_id, (_, text) in page}
            async with self._redis.pipeline(transaction=False) as pipe:
                for each, text in self._merged(after, up_to, here, there):
                    pipe.xadd(self._aside, {"e": text}, id=f"{each}-1")
                await pipe.execute()
            lost += [each for each in range(after + 1, up_to + 1) if each not in here]
        return counted, lost

    def _merged(
        self, after: int, up_to: int, here: Mapping[int, str], there: Mapping[int, str]
    ) -> Iterator[tuple[int, str]]:
        """Each entry of the journal; where that has lost it, of the archive."""
        for seq in range(after + 1, up_to + 1):
            text = here.get(seq, there.get(seq))
            if text is None:
                raise LedgerRefused(f"restore: entry {seq} is neither in the journal nor archived")
            if there.get(seq, text) != text:
                raise ArchiveMismatch(
                    f"ledger {self._name}: entry {seq} is another one in the archive than in the "
                    "journal, which went on after it had lost its own: nothing is put back"
                )
            if seq not in here:
                entry_from(seq, text)
            yield seq, text

    async def _put_back_traces(self, lost: Sequence[int]) -> None:
        for start in range(0, len(lost), PAGE):
            page = lost[start : start + PAGE]
            for found in await asyncio.to_thread(self._found, page):
                await write_traces(self._redis, self._keys, found)

    def _archived_seq(self) -> int:
        with self._archive.reading() as connection:
            return exported_seq(connection, self._name)

    def _texts(self, after: int, up_to: int) -> dict[int, str]:
        asked = select(entries.c.seq, entries.c.text).where(
            entries.c.ledger == self._name, entries.c.seq > after, entries.c.seq <= up_to
        )
        with self._archive.reading() as connection:
            return {row.seq: row.text for row in connection.execute(asked)}

    def _found(self, seqs: Sequence[int]) -> list[Found]:
        """Entries with the texts behind them, whose hashes are those that the entries name."""
        asked = (
            select(entries.c.seq, entries.c.text, manifests.c.text.label("manifest"))
            .join_from(
                entries, manifests, manifests.c.sha256 == entries.c.manifest_sha256, isouter=True
            )
            .where(entries.c.ledger == self._name, entries.c.seq.in_(seqs))
            .order_by(entries.c.seq)
        )
        with self._archive.reading() as connection:
            rows = connection.execute(asked).all()
        found = [Found(entry_from(row.seq, row.text), row.text, row.manifest) for row in rows]
        for each in found:
            if each.manifest is None:
                continue
            if sha256_hex(each.manifest.encode()) != each.entry.manifest_sha256:
                raise ArchiveMismatch(
                    f"the text behind entry {each.entry.seq} is not what the entry names"
                )
        return found
