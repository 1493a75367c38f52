"""The settings of `python -m byline.witness`: the only place of it that reads the environment."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from byline.program import ProgramSettings


class WitnessSettings(ProgramSettings):
    """Each field is read from `BYLINE_WITNESS_<NAME>`; a bad value stops the start by name."""

    model_config = SettingsConfigDict(env_prefix="BYLINE_WITNESS_")

    folder: Path = Field(
        default=Path(".byline-witness"),
        description="Where the witness keeps its key and the newest head of each log.",
    )
    name: str = Field(
        default="witness.local",
        pattern=r"^[^\s+]+$",
        description="What the witness is called in its cosignatures.",
    )
    policy: Path = Field(
        default=Path("policy"),
        description="A policy file (C2SP tlog-policy), or a log's vkey: which logs are witnessed.",
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="Where it listens.")
    port: int = Field(default=8090, ge=1, le=65_535, description="Its TCP port.")
