"""The settings of `python -m byline.notary`: the only place of it that reads the environment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from byline.home import Home

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class NotarySettings(BaseSettings):
    """Each field is read from `BYLINE_NOTARY_<NAME>`; a bad value stops the start by name."""

    model_config = SettingsConfigDict(
        env_prefix="BYLINE_NOTARY_", extra="ignore", hide_input_in_errors=True
    )

    home: Path = Field(
        default=Path(".byline"),
        description="The home folder: the log is published in log/, its keys lie in notary/.",
    )
    redis_url: str = Field(
        default="redis://127.0.0.1:8082/0",
        pattern=r"^(redis|rediss|unix|cluster)://",
        description="The Redis-protocol server, or cluster, that keeps the ledgers.",
    )
    ledgers: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("usd",),
        min_length=1,
        description="The ledgers to log, each in a log of its own: names, with commas between.",
    )
    replicas: int = Field(
        default=0,
        ge=0,
        le=16,
        description="How many replicas must have an entry before it is logged.",
    )
    archive_url: str = Field(
        default="",
        description="The archive: trimmed entries and statements are read there. "
        "Empty: archive.sqlite in the home folder.",
    )
    origin: str = Field(
        default="byline.local",
        pattern=r"^[^\s+]+$",
        description="What the logs are called in their tree heads; `/<ledger>` is added. "
        "A log keeps its name for ever.",
    )
    policy: Path | None = Field(
        default=None,
        description="A policy file (C2SP tlog-policy): which witnesses are asked, and how many of "
        "them must cosign before a head is published. None: no witness is asked.",
    )
    metrics_host: str = Field(
        default="127.0.0.1", min_length=1, description="Where /metrics and /healthz listen."
    )
    metrics_port: int = Field(
        default=8086, ge=1, le=65_535, description="The TCP port of /metrics and /healthz."
    )
    log_level: LogLevel = Field(
        default="INFO", description="The least severe operator log line to print."
    )

    @field_validator("ledgers", mode="before")
    @classmethod
    def _names(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        return tuple(name.strip() for name in given.split(",") if name.strip())

    @property
    def archive(self) -> str:
        """Where the archive is."""
        return self.archive_url or Home(self.home).archive_url

    def origin_of(self, ledger: str) -> str:
        """What the log of this ledger is called."""
        return f"{self.origin}/{ledger}"
