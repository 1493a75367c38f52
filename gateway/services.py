"""What a running gateway is made of, handed to `build_app` as one value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from byline.aliases import Alias
from byline.api_keys import ApiKeys
from byline.delivery.spool import Spool
from byline.home import Home
from byline.ledger.shards import Shards
from byline.limits import HOLD_SECONDS, INLINE_SECONDS, REQUEST_BYTES_MAX
from byline.quotas.quotas import Quotas
from byline.records import Release
from gateway.archive_reads import ArchiveReads
from gateway.engines.engines import Engines
from gateway.logs import Logs
from gateway.models import TextRouter
from gateway.telemetry import Telemetry
from gateway.tracing import Tracing


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds that an installation may set."""

    request_bytes_max: int = REQUEST_BYTES_MAX
    hold_seconds: float = HOLD_SECONDS
    shutdown_seconds: float = 30.0
    inline_seconds: float = INLINE_SECONDS


@dataclass(frozen=True, slots=True)
class Services:
    """Opened connections, loaded artifacts, and the clock. The app closes what it is given."""

    shards: Shards
    spools: Mapping[str, Spool]  # by the shard that its posts wait for
    archive: ArchiveReads
    keys: ApiKeys
    quotas: Quotas
    engines: Engines
    release: Release
    router: TextRouter
    served_folder: Path
    telemetry: Telemetry
    clock_ms: Callable[[], int]
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    tracing: Tracing | None = None  # None: no traces
    home: Home | None = None  # None: a new release is not looked for
    logs: Logs | None = None  # None: nothing is proven here
    limits: Limits = field(default_factory=Limits)
