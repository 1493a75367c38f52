"""Reads the journal: entries by number or in order, the check of the books, and the rebuild.

The journal is the record; the balances are a cache of it that can be made again from here.
"""

from collections.abc import AsyncIterator, Mapping, Sequence

from byline.books import Fold
from byline.errors import LedgerRefused
from byline.poster import Keys, script_text
from byline.postings import parse_entry
from byline.records import Books, JournalEntry
from byline.redis_client import Client, answering

PAGE = 1_000  # journal entries read, or balances written, at once
REBUILDING = "the balances are being rebuilt"


class Journal:
    """One ledger's journal stream: entry `n` lies under the id `n-1` in the field `e`."""

    def __init__(self, redis: Client, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def texts(
        self, *, after_seq: int = 0, up_to_seq: int | None = None
    ) -> AsyncIterator[tuple[str, str]]:
        """Stream ids and entry texts in order, a page at a time."""
        end = "+" if up_to_seq is None else f"{up_to_seq}-1"
        while True:
            with answering(f"read the journal after {after_seq}"):
                page: list[tuple[str, dict[str, str]]] = await self._redis.xrange(
                    self._keys.journal, f"({after_seq}-1", end, count=PAGE
                )
            for stream_id, fields in page:
                yield stream_id, fields["e"]
            if len(page) < PAGE:
                return
            after_seq = _seq_of(page[-1][0])

    async def entries_at(self, seqs: Sequence[int]) -> list[JournalEntry]:
        """The entries of these numbers, in this order."""
        with answering("read journal entries"):
            async with self._redis.pipeline(transaction=False) as pipe:
                for seq in seqs:
                    pipe.xrange(self._keys.journal, f"{seq}-1", f"{seq}-1")
                pages = await pipe.execute()
        return [parse_entry(fields["e"]) for page in pages for _, fields in page]

    async def check(self) -> Books:
        """Fold the whole journal and hold it against the balances, while posting goes on."""
        with answering("read the balances"):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hgetall(self._keys.balances)
                pipe.hget(self._keys.meta, "seq")
                pipe.xrevrange(self._keys.journal, count=1)
                stored, seq, newest = await pipe.execute()
        last_seq = int(seq or 0)
        fold = await self._fold(up_to_seq=max(last_seq, *(_seq_of(id_) for id_, _ in newest), 0))
        return fold.books({account: int(nano) for account, nano in stored.items()}, last_seq)

    async def rebuild(self) -> tuple[Mapping[str, int], int]:
        """Replace the balances by the folded journal; answers them and the raised epoch.

        Posting is frozen meanwhile, and stays frozen when the journal itself is broken.
        """
        keys = self._keys
        with answering("rebuild the balances"):
            await self._redis.hsetnx(keys.meta, "frozen", REBUILDING)
            fold = await self._fold()
            books = fold.books(fold.accounts, fold.seq)
            if not books.balanced:
                raise LedgerRefused(
                    f"rebuild: the journal is broken: unbalanced {books.unbalanced_entries[:10]}, "
                    f"missing {books.gaps[:10]}; posting stays frozen"
                )
            await self._write_folded(fold.accounts)
            names = (keys.balances, keys.folded, keys.meta, keys.journal)
            epoch: int = await self._redis.eval(
                script_text("adopt"), len(names), *names, str(fold.seq), REBUILDING
            )
        if not epoch:
            raise LedgerRefused("rebuild: the journal grew meanwhile: is a second rebuild running?")
        return fold.accounts, epoch

    async def _fold(self, *, up_to_seq: int | None = None) -> Fold:
        fold = Fold()
        async for stream_id, text in self.texts(up_to_seq=up_to_seq):
            fold.add(stream_id, text)
        return fold

    async def _write_folded(self, accounts: Mapping[str, int]) -> None:
        """The folded balances, aside, a page at a time."""
        await self._redis.delete(self._keys.folded)
        items = [(account, str(nano)) for account, nano in accounts.items()]
        for start in range(0, len(items), PAGE):
            page = dict(items[start : start + PAGE])
            await self._redis.hset(self._keys.folded, mapping=page)


def _seq_of(stream_id: str) -> int:
    return int(stream_id.partition("-")[0])
