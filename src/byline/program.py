"""What programs have alike: settings, start and end. Most work on ledgers: archive, bookkeeper and
notary, and beside the model the worker and the auditor; what they do there is theirs."""

import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from byline.errors import BylineError
from byline.ledger.ledger_names import LedgerNames

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class ProgramSettings(BaseSettings):
    """What every program has. A bad value stops the start by name and is not shown."""

    model_config = SettingsConfigDict(extra="ignore", hide_input_in_errors=True)

    log_level: LogLevel = Field(
        default="INFO", description="The least severe operator log line to print."
    )


class LedgersSettings(ProgramSettings):
    """What a program has that works on each ledger."""

    redis_url: str = Field(
        default="redis://127.0.0.1:8082/0",
        pattern=r"^(redis|rediss|unix|cluster)://",
        description="The Redis-protocol server, or cluster, that keeps the ledgers.",
    )
    ledgers: LedgerNames = Field(
        default=("usd",),
        description="The ledgers that it works on: their names, with commas between them.",
    )
    metrics_host: str = Field(
        default="127.0.0.1", min_length=1, description="Where /metrics and /healthz listen."
    )


Settings = TypeVar("Settings", bound=ProgramSettings)


def settings_of(program: str, kind: type[Settings]) -> Settings:
    """The settings in the environment, and the operator log by them; exits where one is wrong."""
    try:
        settings = kind()
    except ValidationError as problem:
        prefix = kind.model_config.get("env_prefix", "")
        sys.exit(f"the {program}'s settings ({prefix}...): {problem}")
    logging.basicConfig(level=settings.log_level, format="%(levelname)s %(name)s %(message)s")
    return settings


def run(program: str, work: Coroutine[None, None, None]) -> None:
    """Run the program to its end."""
    with ending_clearly(program):
        asyncio.run(work)


@contextmanager
def ending_clearly(program: str) -> Iterator[None]:
    """Exits with one clear line on a known error."""
    try:
        yield
    except* BylineError as problems:
        sys.exit(f"the {program}: {problems.exceptions[0]}")


def until_signalled() -> asyncio.Event:
    """What SIGTERM or SIGINT sets, from now on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def pause(stop: asyncio.Event, seconds: float) -> bool:
    """Wait, but no longer than until `stop`; answers whether that has come."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
    return stop.is_set()
