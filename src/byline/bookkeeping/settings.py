"""The settings of the bookkeeper."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from byline.program import LedgersSettings


class BookkeeperSettings(LedgersSettings):
    """Each field is read from `BYLINE_BOOKKEEPER_<NAME>`; a bad value stops the start by name."""

    model_config = SettingsConfigDict(env_prefix="BYLINE_BOOKKEEPER_")

    archive_url: str = Field(
        default="",
        pattern=r"^($|sqlite|postgresql)",
        description="The SQL archive to compare with. Empty: it is not compared.",
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
