"""The settings of `python -m byline.archive`: the only place of it that reads the environment."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from byline.home import Home
from byline.program import LedgersSettings


class ArchiveSettings(LedgersSettings):
    """Each field is read from `BYLINE_ARCHIVE_<NAME>`; a bad value stops the start by name."""

    model_config = SettingsConfigDict(env_prefix="BYLINE_ARCHIVE_")

    home: Path = Field(
        default=Path(".byline"),
        description="The home folder: release.json says which dataset taught each adapter.",
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
    metrics_port: int = Field(
        default=8084, ge=1, le=65_535, description="The TCP port of /metrics and /healthz."
    )

    @property
    def archive_url(self) -> str:
        """Where the archive is."""
        return self.url or Home(self.home).archive_url
