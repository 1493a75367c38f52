"""The settings of `python -m byline.notary`: the only place of it that reads the environment."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from byline.home import Home
from byline.program import LedgersSettings


class NotarySettings(LedgersSettings):
    """Each field is read from `BYLINE_NOTARY_<NAME>`; a bad value stops the start by name."""

    model_config = SettingsConfigDict(env_prefix="BYLINE_NOTARY_")

    home: Path = Field(
        default=Path(".byline"),
        description="The home folder: the log is published in log/, its keys lie in notary/, "
        "and what gateways make proofs from in openings/.",
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
    metrics_port: int = Field(
        default=8086, ge=1, le=65_535, description="The TCP port of /metrics and /healthz."
    )

    @property
    def archive(self) -> str:
        """Where the archive is."""
        return self.archive_url or Home(self.home).archive_url

    def origin_of(self, ledger: str) -> str:
        """What the log of this ledger is called."""
        return f"{self.origin}/{ledger}"
