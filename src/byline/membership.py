"""How a writer joins its ledger: where the ledger lies, and which epoch it has there."""

from byline.address import Address
from byline.cluster import located, primary_id
from byline.errors import LedgerFenced, LedgerMisconfigured
from byline.keys import Keys
from byline.poster import Poster
from byline.redis_client import Client, answering, repoint, without_password
from byline.scripts import script_text


class Membership:
    """One writer's place in one ledger; it is taken again after a failover or a rebuild."""

    def __init__(
        self, url: str, keys: Keys, redis: Client, poster: Poster, *, timeout_seconds: float
    ) -> None:
        self._url = url
        self._keys = keys
        self._redis = redis
        self._poster = poster
        self._timeout_seconds = timeout_seconds

    async def join(self) -> None:
        """Look for the ledger's server, see that it is sound, and take its epoch.

        Raises LedgerMisconfigured where the server could lose money, and LedgerFenced where it is
        behind what this writer was told: an old primary, or one that has lost entries.
        """
        address, primary = await self._find()

        async def epoch() -> int:
            keys = (self._keys.meta, self._keys.journal)
            with answering(f"join {self._keys.tag}"):
                found: str | None = await self._redis.eval(
                    script_text("open"), len(keys), *keys, str(self._poster.epoch), primary
                )
            if found is None:
                raise LedgerMisconfigured(f"{self._keys.tag} has a journal but no epoch")
            return int(found)

        await self._poster.join(address, epoch)

    async def promote(self) -> int:
        """Raise the epoch of the ledger as it is found now, and take it."""
        address, primary = await self._find()

        async def epoch() -> int:
            with answering(f"promote {self._keys.tag}"):
                raised: str | None = await self._redis.eval(
                    script_text("promote"), 1, self._keys.meta, str(self._poster.epoch), primary
                )
            if raised is None:
                raise LedgerFenced(
                    f"promote {self._keys.tag}: its server has no ledger, or an older epoch than "
                    f"{self._poster.epoch}"
                )
            return int(raised)

        await self._poster.join(address, epoch)
        return self._poster.epoch

    async def _find(self) -> tuple[Address, str]:
        """The server that has the ledger, and its id in its cluster (empty: it is in none)."""
        url = await located(self._url, self._keys.tag)
        with answering(f"reach the ledger at {without_password(url)}"):
            await repoint(self._redis, url, timeout_seconds=self._timeout_seconds)
            primary = await primary_id(url) if url != self._url else None
        return Address.parse(url), primary or ""
