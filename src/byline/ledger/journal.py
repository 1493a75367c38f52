"""Reads the journal: entries by number or in order, the check of the books, and the rebuild.

The journal is the record; the balances are a cache of it that can be made again from here. What has
been trimmed off its beginning lives on in the snapshot that stands at or after that point.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

from redis.asyncio import Redis
from redis.client import NEVER_DECODE

from byline.errors import LedgerRefused
from byline.ledger.books import Fold, Page, Snapshot
from byline.ledger.freezes import REBUILDING, frozen_to_mend
from byline.ledger.snapshots import Snapshots
from byline.ledger.waiting import Waiting
from byline.posting.keys import Keys
from byline.posting.postings import parse_entry
from byline.posting.redis_client import Client, answering
from byline.posting.scripts import script_text
from byline.records import Books, JournalEntry

PAGE = 2_000  # journal entries read, or balances written, at once
ATTEMPTS = 3  # the journal may be trimmed while it is checked


class Journal:
    """One ledger's journal stream: entry `n` lies under the id `n-1` in the field `e`."""

    def __init__(self, redis: Client, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._plain = _as_answered(redis)
        self._snapshots = Snapshots(redis, keys)
        self._waiting = Waiting(redis, keys)

    async def pages(
        self, *, after_seq: int = 0, up_to_seq: int | None = None
    ) -> AsyncIterator[Page]:
        """The journal in order; the next page is read while the caller works on this one."""
        reading = asyncio.create_task(self.read(after_seq, up_to_seq, PAGE))
        try:
            while page := await reading:
                if len(page) == PAGE:
                    reading = asyncio.create_task(self.read(seq_of(page[-1][0]), up_to_seq, PAGE))
                    await asyncio.sleep(0)  # so that it is sent before the caller goes to work
                yield page
                if len(page) < PAGE:
                    return
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def read(self, after_seq: int, up_to_seq: int | None, count: int) -> Page:
        """Up to `count` entries after `after_seq`, as the server answers them."""
        end = "+" if up_to_seq is None else f"{up_to_seq}-1"
        self._plain.connection_pool = self._redis.connection_pool  # it may have been repointed
        with answering(f"read the journal after {after_seq}"):
            words = ("XRANGE", self._keys.journal, f"({after_seq}-1", end, "COUNT", count)
            page: Page = await self._plain.execute_command(*words, **{NEVER_DECODE: True})
        return page

    async def texts(
        self, *, after_seq: int = 0, up_to_seq: int | None = None
    ) -> AsyncIterator[tuple[str, str]]:
        """Stream ids and entry texts in order."""
        async for page in self.pages(after_seq=after_seq, up_to_seq=up_to_seq):
            for stream_id, (_, text) in page:
                yield stream_id.decode(), text.decode()

    async def entries_at(self, seqs: Sequence[int]) -> list[JournalEntry]:
        """The entries of these numbers, in this order; those that were trimmed are left out."""
        with answering("read journal entries"):
            async with self._redis.pipeline(transaction=False) as pipe:
                for seq in seqs:
                    pipe.xrange(self._keys.journal, f"{seq}-1", f"{seq}-1")
                pages = await pipe.execute()
        return [parse_entry(fields["e"]) for page in pages for _, fields in page]

    async def page(self, *, after_seq: int, limit: int) -> list[tuple[int, str]]:
        """Up to `limit` entries after `after_seq`: sequence number and exact text."""
        page = await self.read(after_seq, None, limit)
        return [(seq_of(stream_id), text.decode()) for stream_id, (_, text) in page]

    async def manifests(self, entries: Sequence[JournalEntry]) -> list[str | None]:
        """The text behind each entry's manifest hash, from the facts of its event."""
        with answering("read manifests"):
            async with self._redis.pipeline(transaction=False) as pipe:
                for entry in entries:
                    event, operation, ordinal = entry.key.split("/")
                    pipe.hget(self._keys.inference(event), manifest_field(operation, ordinal))
                texts: list[str | None] = await pipe.execute()
        return texts

    async def base(self, *, full: bool = False) -> Snapshot:
        """Where a fold begins: at the newest snapshot, or, where there is none, at nothing.

        `full` asks for the first entry; LedgerRefused where that has been trimmed.
        """
        trimmed = await self.trimmed()
        if full and trimmed:
            raise LedgerRefused(f"the journal is trimmed up to {trimmed}: begin at the snapshot")
        snapshot = None if full else await self._snapshots.read()
        if (snapshot.seq if snapshot else 0) < trimmed:
            raise LedgerRefused(f"the journal is trimmed up to {trimmed} and no snapshot covers it")
        return snapshot or Snapshot()

    async def trimmed(self) -> int:
        """The newest entry that is no longer in the stream."""
        with answering("ask how far the journal is trimmed"):
            return int(await self._redis.hget(self._keys.meta, "trimmed") or 0)

    async def check(self) -> Books:
        """Fold all there is and hold it against the balances, while posting goes on."""
        for _ in range(ATTEMPTS):
            base = await self.base(full=not await self.trimmed())
            with answering("read the balances"):
                async with self._redis.pipeline(transaction=True) as pipe:
                    pipe.hgetall(self._keys.balances)
                    pipe.hget(self._keys.meta, "seq")
                    pipe.xrevrange(self._keys.journal, count=1)
                    stored, seq, newest = await pipe.execute()
            last_seq = int(seq or 0)
            end = max(last_seq, *(seq_of(id_.encode()) for id_, _ in newest), 0)
            fold = await self._fold(base, up_to_seq=end)
            if await self.trimmed() <= base.seq:
                return fold.books(stored, last_seq)
        raise LedgerRefused("check: the journal is being trimmed: try again")

    async def rebuild(
        self, *, full: bool = False, base: Snapshot | None = None
    ) -> tuple[Mapping[str, int], int]:
        """Replace balances and lists by the folded journal; answers balances and raised epoch.

        Begins at `base`, or at the newest snapshot, or with `full` at the first entry. Posting is
        frozen meanwhile, and stays frozen with the reason when it is given up.
        """
        base = base or await self.base(full=full)
        async with frozen_to_mend(self._redis, self._keys):
            return await self._rebuild(base)

    async def _rebuild(self, base: Snapshot) -> tuple[Mapping[str, int], int]:
        keys = self._keys
        with answering("rebuild the balances"):
            fold = await self._fold(base)
            if fold.unbalanced or fold.gaps:
                raise LedgerRefused(
                    f"rebuild: the journal is broken: unbalanced {fold.unbalanced[:10]}, "
                    f"missing {fold.gaps[:10]}; posting stays frozen"
                )
            await self._write_folded(fold.accounts)
            await self._waiting.write_folded(fold.accounts)
            names = (
                keys.meta, keys.journal, keys.snapshot, keys.balances, keys.folded,
                keys.holds, keys.holds_folded, keys.pools, keys.pools_folded,
            )  # fmt: skip
            epoch: int = await self._redis.eval(
                script_text("adopt"), len(names), *names, str(fold.seq), REBUILDING
            )
        if not epoch:
            raise LedgerRefused(
                f"rebuild: the journal does not end at entry {fold.seq}: it grew meanwhile (is a "
                "second rebuild running?), or it has lost its end (then rebuild it in full)"
            )
        return fold.accounts, epoch

    async def _fold(self, base: Snapshot, *, up_to_seq: int | None = None) -> Fold:
        fold = Fold(base)
        async for page in self.pages(after_seq=base.seq, up_to_seq=up_to_seq):
            fold.add_page(page)
        return fold

    async def _write_folded(self, accounts: Mapping[str, int]) -> None:
        """The folded balances, aside, a page at a time."""
        await self._redis.delete(self._keys.folded)
        items = [(account, str(nano)) for account, nano in accounts.items()]
        for start in range(0, len(items), PAGE):
            page = dict(items[start : start + PAGE])
            await self._redis.hset(self._keys.folded, mapping=page)


def manifest_field(operation: str, ordinal: str) -> str:
    """The fact of an event that holds the manifest of this operation's entry."""
    return {"capture": "capture", "settle": f"attribution:{ordinal}"}.get(operation, "manifest")


def seq_of(stream_id: bytes) -> int:
    """The sequence number in a stream id."""
    return int(stream_id.partition(b"-")[0])


def _as_answered(redis: Client) -> Client:
    """The same connections; stream entries stay as the server sends them, for speed."""
    plain: Client = Redis(connection_pool=redis.connection_pool)
    plain.set_response_callback("XRANGE", lambda answer, **_: answer)
    return plain
