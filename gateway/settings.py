"""The gateway's settings: the only place of this program that reads the environment."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from pydantic_settings import NoDecode, SettingsConfigDict

from byline.ledger.ledger_names import LedgerNames, Placed
from byline.limits import HOLD_SECONDS, INLINE_SECONDS, REQUEST_BYTES_MAX, SPOOL_BYTES_MAX
from byline.program import ProgramSettings


def _split(given: object) -> object:
    if not isinstance(given, str):
        return given
    return tuple(url.strip().rstrip("/") for url in given.split(",") if url.strip())


def _each_once(urls: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(urls)) < len(urls):
        raise ValueError("one address stands there twice")
    return urls


EngineUrls = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=r"^https?://[^/]+")], ...],
    NoDecode,
    BeforeValidator(_split),
    AfterValidator(_each_once),
    Field(min_length=1, max_length=64),
]


class GatewaySettings(ProgramSettings):
    """Each field is read from `BYLINE_GATEWAY_<NAME>`; a bad value stops the start by name."""

    model_config = SettingsConfigDict(env_prefix="BYLINE_GATEWAY_")

    home: Path = Field(
        default=Path(".byline"),
        description="The home folder: release.json and the artifact store.",
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="The address to listen on.")
    port: int = Field(default=8080, ge=1, le=65_535, description="The TCP port to listen on.")
    redis_url: str = Field(
        default="redis://127.0.0.1:8082/0",
        pattern=r"^(redis|rediss|unix|cluster)://",
        description="The Redis-protocol server, or cluster, that keeps ledgers and API keys.",
    )
    ledgers: LedgerNames = Field(
        default=("usd",),
        description="The ledgers' names, with commas between them; each application is in one.",
    )
    placed: Placed = Field(
        default={},
        description="Applications in another ledger than their name's hash says: "
        "APPLICATION=LEDGER, with commas between them.",
    )
    ledger_replicas: int = Field(
        default=0,
        ge=0,
        le=16,
        description="How many replicas of that server must have a post before it counts.",
    )
    spool_bytes_max: int = Field(
        default=SPOOL_BYTES_MAX,
        ge=1_048_576,
        le=64 * SPOOL_BYTES_MAX,
        description="How many bytes of posts may wait on disk for each ledger that is away; a full "
        "spool refuses new requests.",
    )
    archive_url: str = Field(
        default="",
        description="The archive that earnings and usage are read from: sqlite:////PATH or "
        "postgresql+psycopg://USER@HOST/DATABASE. Empty: archive.sqlite in the home folder.",
    )
    engine_urls: EngineUrls = Field(
        default=("http://127.0.0.1:8081",),
        description="The engines' root addresses, without /v1, with commas between them. One "
        "address is one engine, never a load balancer.",
    )
    engine_loras_max: int = Field(
        default=4,
        ge=1,
        le=256,
        description="For how many adapters at a time each engine gets requests, from all gateways "
        "together: at most the engine's own MAX_LORAS.",
    )
    request_bytes_max: int = Field(
        default=REQUEST_BYTES_MAX,
        ge=1_024,
        le=64 * REQUEST_BYTES_MAX,
        description="The largest request body, in bytes; a larger one is answered 413.",
    )
    hold_seconds: int = Field(
        default=HOLD_SECONDS,
        ge=10,
        le=86_400,
        description="How long, in seconds, a hold lasts if nothing captures or voids it.",
    )
    inline_seconds: int = Field(
        default=int(INLINE_SECONDS),
        ge=1,
        le=600,
        description="How long, in seconds, an answer waits for its attribution if its request says "
        "that it is to carry it.",
    )
    shutdown_seconds: int = Field(
        default=30,
        ge=1,
        le=3_600,
        description="How long, in seconds, a stopping gateway waits for answers, then captures.",
    )
    otel_exporter_otlp_endpoint: str = Field(
        default="",
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        pattern=r"^(https?://.+)?$",
        description="Where traces are sent, by OTLP over HTTP: a collector's root address. Empty: "
        "no traces. The name is OpenTelemetry's own, without this program's prefix.",
    )
