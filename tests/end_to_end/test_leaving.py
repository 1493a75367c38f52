"""Clients that leave a real engine: it is idle within a second, and what it made is charged."""

import asyncio
import http.client
import json
import socket
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from byline.ledger.ledger import Ledger
from byline.records import Capture, UsageSource
from tests.end_to_end.conftest import Running

pytestmark = pytest.mark.engine
SECONDS_MAX = 1.0  # from the client's end to an idle engine
LONG = {
    "model": "healthcare", "max_tokens": 1_500, "ignore_eos": True,
    "messages": [{"role": "user", "content": "What does a broad nasal bridge look like?"}],
}  # fmt: skip


def metric(url: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as response:
        families = text_string_to_metric_families(response.read().decode())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def under_way(running: Running) -> float:
    return metric(running.engine_url, "vllm:num_requests_running")


def left(running: Running) -> float:
    return metric(running.url, "byline_requests_total", status="499")


def within(seconds: float, claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)


def captures(running: Running) -> list[Capture]:
    """Every charge so far, in the journal's order."""

    async def read() -> list[Capture]:
        ledger = await Ledger.open(running.redis_url)
        try:
            entries = [entry async for entry in ledger.entries()]
            charged = [entry.inference for entry in entries if entry.kind == "capture"]
            records = [await ledger.inference(name) for name in charged if name is not None]
            return [record.capture for record in records if record is not None]
        finally:
            await ledger.close()

    return asyncio.run(read())


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_an_engine_is_idle_a_second_after_its_client_left(running: Running, stream: bool) -> None:
    charged, gone = len(captures(running)), left(running)
    within(5.0, lambda: under_way(running) == 0)
    connection = http.client.HTTPConnection(urlsplit(running.url).netloc, timeout=60)
    headers = {"authorization": f"Bearer {running.keys['application']}"}
    body = json.dumps({**LONG, "stream": stream})
    with closing(connection):
        connection.request("POST", "/v1/chat/completions", body, headers)
        seen = connection.getresponse().read(2_000).count(b'"token_ids"') if stream else 0
        within(30.0, lambda: under_way(running) == 1)
        assert connection.sock is not None
        connection.sock.shutdown(socket.SHUT_RDWR)
        within(SECONDS_MAX, lambda: under_way(running) == 0)
    within(10.0, lambda: len(captures(running)) == charged + 1)
    capture = captures(running)[-1]
    (made,) = capture.usage.completion_tokens
    assert capture.partial
    assert capture.usage.prompt_tokens > 10
    if stream:
        assert capture.usage.source is UsageSource.COUNTED
        assert seen <= made < 1_500
    else:
        assert (capture.usage.source, made) == (UsageSource.PROMPT_ONLY, 0)
    within(5.0, lambda: left(running) == gone + 1)
    assert running.books().balanced
