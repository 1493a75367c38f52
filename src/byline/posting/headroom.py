"""Is there memory left in the ledger's server for another hold?"""

import asyncio
import time
from collections.abc import Callable

from byline.errors import LedgerFull
from byline.limits import MEMORY_USED_MAX
from byline.posting.redis_client import Client, answering

READING_SECONDS_MAX = 1.0  # how old a reading may be


class Headroom:
    """Looks at the server's memory when it is asked, and once a second at the most."""

    def __init__(self, redis: Client, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis
        self._clock = clock
        self._used = 0.0  # of one whole
        self._read_at: float | None = None
        self._reading = asyncio.Lock()  # one reader at a time; the others wait for what it finds

    async def require(self) -> None:
        """Raise LedgerFull where so little is left that only what is held should still be posted.

        Raises LedgerUnavailable when the server does not say.
        """
        if self._is_stale():
            async with self._reading:
                if self._is_stale():
                    await self._read()
        if self._used >= MEMORY_USED_MAX:
            raise LedgerFull(
                f"no more holds: {self._used:.0%} of the ledger's memory is used; what is held "
                "can still be captured, settled and given back"
            )

    def _is_stale(self) -> bool:
        return self._read_at is None or self._clock() - self._read_at > READING_SECONDS_MAX

    async def _read(self) -> None:
        with answering("look at the ledger's memory"):
            memory = await self._redis.info("memory")
        # Without a bound of its own the server may use what the machine has.
        bound = int(memory["maxmemory"]) or int(memory["total_system_memory"])
        self._used = int(memory["used_memory"]) / bound
        self._read_at = self._clock()
