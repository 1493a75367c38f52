"""How a subcommand reaches a ledger: one of a running `byline up`, or one elsewhere."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from byline.command.options import DEFAULT_LEDGER
from byline.command.running import run_facts
from byline.ledger.ledger import Ledger

Result = TypeVar("Result")


def address_of(redis_url: str | None, home: Path) -> str:
    """Where the ledger is. Raises StartFailed if none was named and none runs in `home`."""
    return redis_url or str(run_facts(home)["redis_url"])


def with_ledger(
    address: str,
    do: Callable[[Ledger], Awaitable[Result]],
    *,
    name: str = DEFAULT_LEDGER,
    create: bool = False,
) -> Result:
    """Open the ledger of this name, do it, close the ledger. NotFound where there is none."""

    async def run() -> Result:
        ledger = await Ledger.open(address, name=name, create=create)
        try:
            return await do(ledger)
        finally:
            await ledger.close()

    return asyncio.run(run())


def now_ms() -> int:
    """The time of what is posted."""
    return time.time_ns() // 1_000_000
