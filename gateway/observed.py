"""What is measured of one request while it is handled: by metrics, its log line and its span."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.requests import HTTPConnection

from byline import metric_labels
from byline.records import Capture

OBSERVED = "byline.observed"  # the key in the ASGI scope
NO_MODEL = "none"  # the model label where no model was named
OTHER = metric_labels.OTHER  # and where it is none of the release's
ENGINE = "engine"


class Span(Protocol):
    """The trace of one inference: `gateway.tracing`'s, where tracing is on."""

    trace_id: str

    def headers(self) -> dict[str, str]:
        """What the engine is sent, so that its own spans hang below ours."""

    def end(self, seen: "Observed") -> None:
        """Hand the finished trace on."""


class Part:
    """How long one part of an inference took: begun and ended by its `with`."""

    __slots__ = ("began", "ended")

    def __init__(self) -> None:
        self.began = self.ended = time.perf_counter()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.ended = time.perf_counter()


@dataclass(slots=True)
class Observed:
    """One request. Whoever handles it notes here what it learns; nothing of it is a secret."""

    started: float = field(default_factory=time.perf_counter)
    ended: float = 0.0  # when the answer was out; a charge may be posted later
    upstream_seconds: float = 0.0  # waiting for the engine
    elsewhere_seconds: float = 0.0  # waiting for the client, or for what it asked us to wait for
    first_token_seconds: float | None = None
    parts: dict[str, Part] = field(default_factory=dict)
    asks_engine: bool = False
    client_gone: bool = False
    streamed: bool = False
    status: int = 500
    code: str | None = None  # of the error that was answered
    method: str = ""
    route: str = ""
    request_id: str = ""
    trace_id: str | None = None
    model: str = NO_MODEL
    application: str | None = None
    inference: str | None = None
    capture: Capture | None = None
    settling: "asyncio.Future[Any] | None" = None  # the capture or void under way
    span: Span | None = None
    headers: dict[str, str] = field(default_factory=dict)  # more of the answer's, whatever it is

    def part(self, name: str) -> Part:
        """Measure one part: `with seen.part("hold"):`."""
        part = self.parts[name] = Part()
        return part

    def elsewhere(self) -> "Elsewhere":
        """Wait for somebody who is neither we nor the engine: `with seen.elsewhere():`."""
        return Elsewhere(self)

    @property
    def broke_off(self) -> bool:
        """True for an error after the status was out: a stream that ended with it."""
        return self.status == 200 and self.code is not None

    @property
    def own_seconds(self) -> float:
        """What this program took itself, its ledger's answers included."""
        return self.ended - self.started - self.upstream_seconds - self.elsewhere_seconds


class Elsewhere:
    """Adds the time in its `with` to `elsewhere_seconds`."""

    __slots__ = ("_began", "_seen")

    def __init__(self, seen: Observed) -> None:
        self._seen = seen
        self._began = time.perf_counter()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._seen.elsewhere_seconds += time.perf_counter() - self._began


def observed(connection: HTTPConnection) -> Observed:
    """The measurements of the request in hand."""
    found = connection.scope[OBSERVED]
    assert isinstance(found, Observed)
    return found
