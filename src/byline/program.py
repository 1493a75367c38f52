"""A program that keeps something of each ledger: the settings that all of them have, start and end.

Archive, bookkeeper and notary are such programs; what they keep is theirs.
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from byline.errors import BylineError

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class ProgramSettings(BaseSettings):
    """What every program has. A bad value stops the start by name and is not shown."""

    model_config = SettingsConfigDict(extra="ignore", hide_input_in_errors=True)

    log_level: LogLevel = Field(
        default="INFO", description="The least severe operator log line to print."
    )


class LedgersSettings(ProgramSettings):
    """What a program has that keeps something of each ledger."""

    redis_url: str = Field(
        default="redis://127.0.0.1:8082/0",
        pattern=r"^(redis|rediss|unix|cluster)://",
        description="The Redis-protocol server, or cluster, that keeps the ledgers.",
    )
    ledgers: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("usd",),
        min_length=1,
        description="The ledgers that it keeps: their names, with commas between them.",
    )
    metrics_host: str = Field(
        default="127.0.0.1", min_length=1, description="Where /metrics and /healthz listen."
    )

    @field_validator("ledgers", mode="before")
    @classmethod
    def _names(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        return tuple(name.strip() for name in given.split(",") if name.strip())


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


def run(program: str, keeping: Coroutine[None, None, None]) -> None:
    """Run the program to its end; exits with one clear line on a known error."""
    try:
        asyncio.run(keeping)
    except* BylineError as problems:
        sys.exit(f"the {program}: {problems.exceptions[0]}")


def until_signalled() -> asyncio.Event:
    """What SIGTERM or SIGINT sets, from now on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait, but no longer than until `stop`."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
