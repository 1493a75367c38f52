"""Snapshots of the balances at one position of the journal: where a fold may begin.

A snapshot is written aside, a page at a time, and takes the old one's place in one script, together
with its position and its digest. A reader that finds another digest refuses it.
"""

from collections.abc import Callable

from byline import canonical
from byline.errors import LedgerFenced, LedgerRefused
from byline.ledger.books import Snapshot, nano_stored
from byline.posting.keys import Keys
from byline.posting.redis_client import Client, answering
from byline.posting.scripts import script_text

PAGE = 1_000  # accounts read or written at once
ASIDE_SECONDS = 3_600  # what a writer that died has left aside goes by itself
ATTEMPTS = 3  # a snapshot may be replaced while it is read


class Snapshots:
    """The newest snapshot of one ledger."""

    def __init__(
        self, redis: Client, keys: Keys, step: Callable[[str], None] = lambda _: None
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._step = step

    async def read(self) -> Snapshot | None:
        """The newest snapshot, or None. Raises LedgerRefused where its digest is another."""
        with answering("read the snapshot"):
            for _ in range(ATTEMPTS):
                found = await self._described()
                if found is None:
                    return None
                snapshot = await self._read_accounts(int(found[0]))
                if digest(snapshot) == found[1]:
                    return snapshot
        raise LedgerRefused("the snapshot is not what was written: its digest is wrong")

    async def write(self, snapshot: Snapshot, epoch: int) -> None:
        """Make it the newest. LedgerFenced for a stale writer; LedgerRefused for going back."""
        # Of two writers at one position each writes the same pages: they can't mix.
        aside = f"{self._keys.snapshot}:{epoch}:{snapshot.seq}"
        accounts = {account: str(nano) for account, nano in snapshot.accounts.items()}
        with answering(f"write the snapshot at entry {snapshot.seq}"):
            await self._write_aside(aside, accounts)
            self._step("snapshot written aside")
            names = (self._keys.meta, self._keys.snapshot, aside)
            words = (str(snapshot.seq), digest(snapshot), str(epoch), str(len(accounts)))
            refusal: list[str] = await self._redis.eval(
                script_text("snapshot"), len(names), *names, *words
            )
        self._step("snapshot renamed")
        if refusal:
            error = LedgerFenced if refusal[0] == "fenced" else LedgerRefused
            raise error(f"the snapshot at entry {snapshot.seq}: {refusal[1]}")

    async def _described(self) -> tuple[str, str] | None:
        """Its position and digest."""
        seq, sha256 = await self._redis.hmget(self._keys.meta, "snapshot", "snapshot_sha256")
        return None if seq is None else (seq, sha256)

    async def _read_accounts(self, seq: int) -> Snapshot:
        accounts: dict[str, int] = {}
        cursor = 0
        while True:
            cursor, page = await self._redis.hscan(self._keys.snapshot, cursor, count=PAGE)
            for account, nano in page.items():
                accounts[account] = nano_stored(nano) or 0  # then the digest is another
            if cursor == 0:
                return Snapshot(seq, accounts)

    async def _write_aside(self, aside: str, accounts: dict[str, str]) -> None:
        names = list(accounts)
        for start in range(0, len(names), PAGE):
            page = {account: accounts[account] for account in names[start : start + PAGE]}
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(aside, mapping=page).expire(aside, ASIDE_SECONDS)
                await pipe.execute()
            self._step("snapshot page written")


def digest(snapshot: Snapshot) -> str:
    """SHA-256 of the canonical JSON of the accounts and their position."""
    accounts = {account: str(nano) for account, nano in snapshot.accounts.items()}
    return canonical.digest({"accounts": accounts, "seq": snapshot.seq})
