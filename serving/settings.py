"""The settings of the engine's launcher, the auditor and the worker: the only readers here."""

import socket
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from byline.program import LedgersSettings


class EngineSettings(BaseSettings):
    """Each field is read from `BYLINE_ENGINE_<NAME>`; a bad value stops the start by name."""

    model_config = SettingsConfigDict(
        env_prefix="BYLINE_ENGINE_", extra="ignore", hide_input_in_errors=True
    )

    home: Path = Field(
        default=Path(".byline"),
        description="The home folder: release.json and the artifact store.",
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="The address to listen on.")
    port: int = Field(default=8081, ge=1, le=65_535, description="The TCP port to listen on.")
    kv_cache_gib: int = Field(
        default=2, ge=1, le=1_024, description="The CPU engine's key-value cache, in GiB."
    )
    max_loras: int = Field(
        default=4, ge=1, le=256, description="How many adapters one batch may mix."
    )
    max_cpu_loras: int = Field(
        default=16, ge=1, le=4_096, description="How many adapters stay in memory, at least."
    )
    max_lora_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = Field(
        default=16, description="The largest rank of a LoRA adapter; memory is kept for it."
    )
    max_sequences: int = Field(
        default=64, ge=1, le=4_096, description="How many sequences are generated at a time."
    )
    enforce_eager: bool = Field(
        default=True, description="Skip compiling graphs: starts sooner; a GPU generates slower."
    )
    arguments: tuple[str, ...] = Field(
        default=(), description="More vLLM arguments, as a JSON list; they come last."
    )


class PostingSettings(LedgersSettings):
    """What worker and auditor have alike: they post, by what lies in the home folder."""

    home: Path = Field(
        default=Path(".byline"),
        description="The home folder: release, artifact store, audit plan, served tokens, log.",
    )
    ledger_replicas: int = Field(
        default=0,
        ge=0,
        le=16,
        description="How many replicas of that server must have a post before it counts.",
    )


class AuditorSettings(PostingSettings):
    """Each field is read from `BYLINE_AUDITOR_<NAME>`; a bad value stops the start by name."""

    model_config = SettingsConfigDict(env_prefix="BYLINE_AUDITOR_")

    archive_url: str = Field(
        default="", description="The archive's SQL address. Empty: the home folder's SQLite file."
    )
    engine_url: str = Field(
        default="http://127.0.0.1:8081",
        pattern=r"^https?://",
        description="The engine that scores; it must see the home folder's counterfactuals.",
    )
    at_once: int = Field(
        default=4, ge=1, le=256, description="How many adapters are scored in one batch."
    )
    idle_wait_seconds: float = Field(
        default=30.0,
        ge=0,
        le=3_600,
        description="How long a batch waits for the engine to have no other work.",
    )
    metrics_port: int = Field(
        default=8087, ge=1, le=65_535, description="The TCP port of /metrics and /healthz."
    )
    look_seconds: float = Field(
        default=1.0, ge=0.05, le=600, description="How often served tokens are looked through."
    )


class WorkerSettings(PostingSettings):
    """Each field is read from `BYLINE_WORKER_<NAME>`; a bad value stops the start by name."""

    model_config = SettingsConfigDict(env_prefix="BYLINE_WORKER_")

    metrics_port: int = Field(
        default=8083, ge=1, le=65_535, description="The TCP port of /metrics and /healthz."
    )
    threads: int = Field(
        default=1, ge=1, le=256, description="How many cores one attribution may use."
    )
    consumer: str = Field(
        default="",
        max_length=128,
        description="This worker's name: its own, and the same after a restart, so that it finds "
        "its unfinished jobs at once. Empty: the host's name and the metrics port.",
    )
    sweep_seconds: float = Field(
        default=5.0, ge=0.1, le=600, description="How often holds and gauges are looked after."
    )
    retry_seconds: float = Field(
        default=1.0, ge=0.05, le=60, description="How long to wait when the ledger is away."
    )

    @property
    def consumer_name(self) -> str:
        """The name that jobs are claimed under."""
        return self.consumer or f"{socket.gethostname()}-{self.metrics_port}"
