"""How a subcommand reaches a ledger: the one of a running `byline up`, or one elsewhere."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from byline.command.running import run_facts
from byline.ledger import Ledger

Result = TypeVar("Result")

RedisOption = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        envvar="BYLINE_REDIS_URL",
        help="A ledger elsewhere; without it, the one of the `byline up` in --home.",
    ),
]


def address_of(redis_url: str | None, home: Path) -> str:
    """Where the ledger is. Raises StartFailed if none was named and none runs in `home`."""
    return redis_url or str(run_facts(home)["redis_url"])


def with_ledger(address: str, do: Callable[[Ledger], Awaitable[Result]]) -> Result:
    """Open the ledger, do it, close the ledger."""

    async def run() -> Result:
        ledger = await Ledger.open(address)
        try:
            return await do(ledger)
        finally:
            await ledger.close()

    return asyncio.run(run())


def now_ms() -> int:
    """The time of what is posted."""
    return time.time_ns() // 1_000_000
