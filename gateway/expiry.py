"""Gives holds back whose time is over: what a gateway that was killed has left behind.

Every gateway does this. Two at once do no harm: a hold is given back at most once.
"""

import asyncio
import logging
from collections.abc import Callable

from byline.errors import LedgerError
from byline.ledger import Ledger

log = logging.getLogger("gateway")

EXPIRY_SECONDS = 15.0  # between two looks; a hold's own time is minutes


async def expire_holds(
    ledger: Ledger, clock_ms: Callable[[], int], *, every_seconds: float = EXPIRY_SECONDS
) -> None:
    """Expire what is due, again and again, until cancelled."""
    while True:
        try:
            await _expire_due(ledger, clock_ms())
        except LedgerError as problem:
            log.warning("holds were not expired: %s", problem)
        await asyncio.sleep(every_seconds)


async def _expire_due(ledger: Ledger, now_ms: int) -> None:
    for inference in await ledger.expired_holds(now_ms=now_ms):
        if await ledger.expire(inference, time_ms=now_ms) is not None:
            log.info("the hold of %s has expired", inference)
