"""How a subcommand reaches a ledger: one of a running `byline up`, or one elsewhere."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError

from byline.command.running import run_facts
from byline.errors import InvalidInput
from byline.ledger.ledger import Ledger
from byline.ledger.ledger_names import LedgerName

Result = TypeVar("Result")

RedisOption = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        envvar="BYLINE_REDIS_URL",
        help="A ledger elsewhere; without it, the one of the `byline up` in --home.",
    ),
]


def _ledger_name(name: str) -> str:
    """The name itself, or InvalidInput: it becomes part of every key."""
    try:
        TypeAdapter(LedgerName).validate_python(name)
    except ValidationError as problem:
        raise InvalidInput(
            f"'{name}' is no ledger's name: letters, digits, _ and - only, 64 at most",
            param="ledger",
        ) from problem
    return name


DEFAULT_LEDGER = "usd"
LedgerOption = Annotated[
    str,
    typer.Option(
        "--ledger", envvar="BYLINE_LEDGER", help="The ledger's name.", callback=_ledger_name
    ),
]


def address_of(redis_url: str | None, home: Path) -> str:
    """Where the ledger is. Raises StartFailed if none was named and none runs in `home`."""
    return redis_url or str(run_facts(home)["redis_url"])


def with_ledger(
    address: str, do: Callable[[Ledger], Awaitable[Result]], *, name: str = DEFAULT_LEDGER
) -> Result:
    """Open the ledger of this name, do it, close the ledger."""

    async def run() -> Result:
        ledger = await Ledger.open(address, name=name)
        try:
            return await do(ledger)
        finally:
            await ledger.close()

    return asyncio.run(run())


def now_ms() -> int:
    """The time of what is posted."""
    return time.time_ns() // 1_000_000
