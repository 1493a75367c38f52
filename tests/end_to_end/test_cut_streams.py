"""Many streams of a real engine, each cut somewhere: each is charged once for what it made."""

import asyncio
import json
import random
import socket
from collections import Counter
from urllib.parse import urlsplit

import pytest

from byline.ledger.ledger import Ledger
from byline.records import Capture, UsageSource
from tests.end_to_end.conftest import Running
from tests.end_to_end.test_leaving import LONG, captures, under_way, within

pytestmark = pytest.mark.engine
STREAMS, TOKENS_MAX = 30, 200
IDLE_SECONDS_MAX = 2.0  # after the last of them has left
SEED = 11


async def cut_one(running: Running, after: int, *, is_orderly: bool) -> tuple[str, int]:
    """Ask for a stream and leave after so many reads; its inference, and how many tokens came."""
    address = urlsplit(running.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    body = json.dumps({**LONG, "max_tokens": TOKENS_MAX, "stream": True}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address.netloc}\r\n"
        f"authorization: Bearer {running.keys['application']}\r\ncontent-length: {len(body)}\r\n"
    )
    writer.write(head.encode() + b"\r\n" + body)
    came = await reader.readuntil(b"\r\n\r\n")
    assert came.startswith(b"HTTP/1.1 200 "), came
    inference = came.lower().split(b"x-byline-inference-id: ", 1)[1].split(b"\r\n", 1)[0].decode()
    seen = b""
    for _ in range(after):
        seen += await reader.readuntil(b"\n\n")
    if not is_orderly:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
    writer.close()
    tokens = seen.count(b'"token_ids":[')
    return inference, tokens


async def kinds(running: Running) -> Counter[str]:
    """How many entries of each kind the journal has."""
    ledger = await Ledger.open(running.redis_url)
    try:
        return Counter([entry.kind async for entry in ledger.entries()])
    finally:
        await ledger.close()


def open_holds(running: Running) -> int:
    """Holds that were neither charged nor given back."""
    found = asyncio.run(kinds(running))
    return found["hold"] - found["capture"] - found["void"] - found["expire"]


def test_streams_cut_anywhere_leave_an_idle_engine_and_balanced_books(running: Running) -> None:
    chance = random.Random(SEED)
    within(5.0, lambda: under_way(running) == 0)

    async def cut_all() -> list[tuple[str, int]]:
        return await asyncio.gather(
            *(
                cut_one(
                    running, chance.randrange(TOKENS_MAX // 4), is_orderly=chance.random() < 0.5
                )
                for _ in range(STREAMS)
            )
        )

    cut = asyncio.run(asyncio.wait_for(cut_all(), 180))
    within(IDLE_SECONDS_MAX, lambda: under_way(running) == 0)
    within(20.0, lambda: open_holds(running) == 0)
    charged: dict[str, Capture] = {capture.inference: capture for capture in captures(running)}
    for inference, tokens in cut:
        capture = charged[inference]
        (made,) = capture.usage.completion_tokens
        assert tokens <= made < TOKENS_MAX, (tokens, made)
        assert capture.partial
        assert capture.usage.source is (UsageSource.COUNTED if made else UsageSource.PROMPT_ONLY)
    assert len({inference for inference, _ in cut}) == STREAMS
    assert running.books().balanced
