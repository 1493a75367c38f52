"""The settings of `python -m byline.archive`: the only place of it that reads the environment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from byline.home import Home

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class ArchiveSettings(BaseSettings):
    """Each field is read from `BYLINE_ARCHIVE_<NAME>`; a bad value stops the start by name."""

    model_config = SettingsConfigDict(
        env_prefix="BYLINE_ARCHIVE_", extra="ignore", hide_input_in_errors=True
    )

    home: Path = Field(
        default=Path(".byline"),
        description="The home folder: release.json says which dataset taught each adapter.",
    )
    redis_url: str = Field(
        default="redis://127.0.0.1:8082/0",
        pattern=r"^(redis|rediss|unix|cluster)://",
        description="The Redis-protocol server, or cluster, that keeps the ledgers.",
    )
    ledgers: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("usd",),
        min_length=1,
        description="The ledgers to export: their names, with commas between them.",
    )
    replicas: int = Field(
        default=0,
        ge=0,
        le=16,
        description="How many replicas must have an entry before it is exported.",
    )
    url: str = Field(
        default="",
        description="The archive: sqlite:////PATH or postgresql+psycopg://USER@HOST/DATABASE. "
        "Empty: archive.sqlite in the home folder.",
    )
    metrics_host: str = Field(
        default="127.0.0.1", min_length=1, description="Where /metrics and /healthz listen."
    )
    metrics_port: int = Field(
        default=8084, ge=1, le=65_535, description="The TCP port of /metrics and /healthz."
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
    def archive_url(self) -> str:
        """Where the archive is."""
        return self.url or Home(self.home).archive_url
