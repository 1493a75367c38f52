"""Paced streams, each asked for once at the same moment and read to its end."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import uvloop

from loadtests.gateway_bench.upstream import CHUNKS, PACE_SECONDS
from loadtests.gateway_bench.wrk import Question

SECONDS_MAX = 60.0
TOKEN_EVENT = b'"content":" word'
SPACED_EVENT = b'"content": " word'  # some gateways write each event anew
DONE = b"data: [DONE]"


@dataclass(slots=True)
class Seen:
    """One stream as its client saw it."""

    chunks: int = 0
    done: bool = False
    began: float = 0.0
    first_seconds: float = 0.0  # until the first token
    seconds: float = 0.0
    gaps: list[float] = field(default_factory=list)  # between two reads with tokens

    @property
    def whole(self) -> bool:
        """Every chunk came, and the end."""
        return self.done and self.chunks == CHUNKS


def figures(seen: Sequence[Seen]) -> dict[str, Any]:
    """All streams of one round: whether they were whole, how fast, and how evenly they came."""
    gaps = [gap for each in seen for gap in each.gaps]
    chunks = sum(each.chunks for each in seen)
    return {
        "streams": len(seen),
        "broken": sum(not each.whole for each in seen),
        "chunks": chunks,
        "chunks_per_second": chunks / max((each.seconds for each in seen), default=1.0),
        "first_token_ms": statistics.median(each.first_seconds for each in seen) * 1e3,
        # How much later than paced the slowest hundredth of the chunks came.
        "late_p99_ms": (statistics.quantiles(gaps, n=100)[98] - PACE_SECONDS) * 1e3
        if len(gaps) > 1
        else None,
    }


class _Client(asyncio.Protocol):
    """Asks once, counts what comes, ends with the answer or the connection."""

    def __init__(self, request: bytes) -> None:
        self.seen = Seen()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""  # what came and is not counted yet
        self._last = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.seen.began = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)  # a gateway may cut the answer into other HTTP chunks
        now = time.perf_counter()
        # Whole lines alone are counted: an event may come in two reads.
        lines, found, self._body = self._body.rpartition(b"\n")
        tokens = lines.count(TOKEN_EVENT) + lines.count(SPACED_EVENT)
        if tokens:
            if self.seen.chunks:
                self.seen.gaps.append(now - self._last)
            else:
                self.seen.first_seconds = now - self.seen.began
            self.seen.chunks += tokens
            self._last = now
        if found and DONE in lines:
            self.seen.done = True
            self.seen.seconds = now - self.seen.began
            self._transport.close()

    def on_body(self, data: bytes) -> None:
        self._body += data

    def connection_lost(self, _problem: Exception | None) -> None:
        self.end()

    def end(self) -> None:
        """Nothing more is waited for."""
        if self.ended.done():
            return
        self.ended.set_result(None)
        if not self.seen.seconds:
            self.seen.seconds = time.perf_counter() - self.seen.began
        self._transport.abort()


def request_of(question: Question) -> bytes:
    """The question as bytes."""
    body = question.body.encode()
    headers = {
        "host": urlsplit(question.url).netloc,
        "content-type": "application/json",
        "content-length": str(len(body)),
        **question.headers,
    }
    head = [f"POST {question.path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
    return "\r\n".join(head).encode() + body


def ask(question: Question, streams: int) -> list[Seen]:
    """So many streams at once."""
    return uvloop.run(answered(question, streams))


async def answered(question: Question, streams: int) -> list[Seen]:
    """Likewise, inside a loop."""
    place = urlsplit(question.url)
    assert place.hostname is not None
    assert place.port is not None
    request = request_of(question)
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(streams):
        _, client = await loop.create_connection(
            lambda: _Client(request), place.hostname, place.port
        )
        clients.append(client)
    await asyncio.wait([client.ended for client in clients], timeout=SECONDS_MAX)
    for client in clients:
        client.end()
    return [client.seen for client in clients]
