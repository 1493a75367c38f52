"""The settings of the bookkeeper."""

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class BookkeeperSettings(BaseSettings):
    """Each field is read from `BYLINE_BOOKKEEPER_<NAME>`; a bad value stops the start by name."""

    model_config = SettingsConfigDict(
        env_prefix="BYLINE_BOOKKEEPER_", extra="ignore", hide_input_in_errors=True
    )

    redis_url: str = Field(
        default="redis://127.0.0.1:8082/0",
        pattern=r"^(redis|rediss|unix|cluster)://",
        description="The Redis-protocol server, or the cluster, that keeps the ledgers.",
    )
    archive_url: str = Field(
        default="",
        pattern=r"^($|sqlite|postgresql)",
        description="The SQL archive to compare with. Empty: it is not compared.",
    )
    ledgers: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("usd",), min_length=1, description="The ledgers' names, with commas between."
    )
    metrics_host: str = Field(
        default="127.0.0.1", min_length=1, description="Where /metrics and /healthz listen."
    )
    metrics_port: int = Field(
        default=8085, ge=1, le=65_535, description="The TCP port of /metrics and /healthz."
    )
    interval_seconds: float = Field(
        default=1.0, ge=0.05, le=600, description="How long to wait between two rounds."
    )
    snapshot_entries: int = Field(
        default=100_000, ge=1, le=10**9, description="Journal entries between two snapshots."
    )
    keep_entries: int = Field(
        default=200_000, ge=1, le=10**9, description="The newest entries that are never trimmed."
    )
    keep_days: float = Field(
        default=7.0, ge=0, le=3_650, description="Entries younger than this are never trimmed."
    )
    freeze: bool = Field(
        default=True, description="Stop all posting when something was found wrong twice in a row."
    )
    log_level: LogLevel = Field(
        default="INFO", description="The least severe operator log line to print."
    )

    @field_validator("ledgers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value
