"""How a writer joins its ledger: where the ledger lies, and which epoch it has there."""

import asyncio
from collections.abc import Awaitable, Callable

from byline.errors import LedgerFenced, LedgerMisconfigured
from byline.posting.address import Address
from byline.posting.cluster import Follower, located, primary_id
from byline.posting.keys import Keys
from byline.posting.poster import Poster
from byline.posting.redis_client import Client, answering, connect, repoint
from byline.posting.scripts import script_text


class Membership:
    """One writer's place in one ledger; it is taken again after a failover or a rebuild.

    In a cluster that happens by itself when another primary serves the ledger.
    """

    def __init__(
        self, url: str, keys: Keys, redis: Client, poster: Poster, *, timeout_seconds: float
    ) -> None:
        self._url = url
        self._keys = keys
        self._redis = redis
        self._poster = poster
        self._timeout_seconds = timeout_seconds
        self._joining = asyncio.Lock()  # two at once would take each other's connections away
        self._found = url  # where the ledger was when it was joined last
        self._follower = Follower(url, keys.tag, self._moved)

    async def close(self) -> None:
        """Stay where the ledger is."""
        await self._follower.close()

    async def join(self) -> None:
        """Look for the ledger's server, see that it is sound, and take its epoch.

        Raises LedgerMisconfigured where the server could lose money, and LedgerFenced where it is
        behind what this writer was told: an old primary, or one that has lost entries.
        """
        await self._enter(self._epoch)

    async def promote(self) -> int:
        """Raise the epoch of the ledger as it is found now, and take it."""
        await self._enter(self._raised_epoch)
        return self._poster.epoch

    async def _enter(self, epoch: Callable[[Client, str], Awaitable[int]]) -> None:
        """Find the ledger's server; go there with the epoch that is answered, or stay."""
        async with self._joining:
            url = await located(self._url, self._keys.tag)
            async with connect(url, timeout_seconds=self._timeout_seconds) as server:
                # Its name in its cluster; empty where it is in none.
                primary = await primary_id(url) if url != self._url else None
                await self._poster.join(Address.parse(url), lambda: epoch(server, primary or ""))
            await repoint(self._redis, url, timeout_seconds=self._timeout_seconds)
            self._found = url
        self._follower.start(url)

    async def _moved(self, url: str) -> None:
        if url != self._found:  # else the writer was told to join before
            await self.join()

    async def _epoch(self, server: Client, primary: str) -> int:
        with answering(f"join {self._keys.tag}"):
            keys = (self._keys.meta, self._keys.journal)
            found: str | None = await server.eval(
                script_text("open"), len(keys), *keys, str(self._poster.epoch), primary
            )
        if found is None:
            raise LedgerMisconfigured(f"{self._keys.tag} has a journal but no epoch")
        return int(found)

    async def _raised_epoch(self, server: Client, primary: str) -> int:
        with answering(f"promote {self._keys.tag}"):
            raised: str | None = await server.eval(
                script_text("promote"), 1, self._keys.meta, str(self._poster.epoch), primary
            )
        if raised is None:
            raise LedgerFenced(
                f"promote {self._keys.tag}: its server has no ledger, or an older epoch than "
                f"{self._poster.epoch}"
            )
        return int(raised)
