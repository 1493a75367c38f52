"""What a client may send before it is answered, how long it may take, and how it is seen to go."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from gateway import connections
from tests.gateway.conftest import CHAT, SHOP, House, eventually

pytestmark = pytest.mark.anyio

HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {SHOP}\r\n"
GET = b"GET /healthz HTTP/1.1\r\nhost: here\r\n"
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(house: House, *sent: bytes) -> AsyncIterator[Pair]:
    host, port = house.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for piece in sent:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.01)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def chat(**more: object) -> bytes:
    body = json.dumps({**CHAT, **more}).encode()
    return HEAD.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


async def code_of(reader: asyncio.StreamReader, status: bytes) -> str:
    """The code of the error that the connection ends with."""
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 " + status), answer
    code: str = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"]
    return code


@pytest.mark.parametrize(
    "sent",
    [
        [GET + b"x: " + b"y" * 30_000, b"y" * 30_000, b"y" * 30_000],
        [GET, *(b"x-%d: " % number + b"y" * 10_000 + b"\r\n" for number in range(8))],
        [b"GET /" + b"y" * 30_000, b"y" * 30_000, b"y" * 30_000],
        # What stands behind a chunked body is of no head, and as endless.
        [HEAD.encode() + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n{\r\n0\r\n",
         *(b"x-%d: " % number + b"y" * 10_000 + b"\r\n" for number in range(8))],
    ],
    ids=["one", "many", "path", "trailers"],
)  # fmt: skip
async def test_headers_above_their_bound_are_refused(house: House, sent: list[bytes]) -> None:
    async with connected(house, *sent) as (reader, _):
        assert await code_of(reader, b"431") == "headers_too_large"


NO_HTTP = [
    b"\x16\x03\x01 a client that speaks TLS\r\n\r\n",
    GET + b"no colon\r\n\r\n",
    HEAD.encode() + b"content-length: -1\r\n\r\n",
    HEAD.encode() + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    HEAD.encode() + b"transfer-encoding: chunked\r\n\r\nno length\r\n",
]


@pytest.mark.parametrize("sent", NO_HTTP, ids=range(len(NO_HTTP)))
async def test_what_is_no_http_is_refused_in_openais_shape(house: House, sent: bytes) -> None:
    async with connected(house, sent) as (reader, _):
        assert await code_of(reader, b"400") == "invalid_http"
    assert house.ledger.attempts == []


async def test_what_is_no_http_behind_a_request_never_stands_in_its_answer(house: House) -> None:
    house.engine.hang_after = 3
    async with connected(house, chat(stream=True)) as (reader, writer):
        answer = await asyncio.wait_for(reader.readuntil(b"w102"), 5)
        writer.write(b"\x00\x00\r\n\r\n")
        answer += await asyncio.wait_for(reader.read(), 5)
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    await asyncio.wait_for(house.engine.aborted.wait(), 5)


async def test_headers_up_to_their_bound_are_read(house: House) -> None:
    sent = [GET, b"x: " + b"y" * 60_000, b"\r\n", b"connection: close\r\n\r\n"]
    async with connected(house, *sent) as (reader, _):
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("sent", [b"", GET])
async def test_a_head_that_takes_too_long_is_given_up(
    house: House, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)
    async with connected(house, sent) as (reader, writer):
        if sent:
            writer.write(b"x: y\r\n")
            assert await code_of(reader, b"408") == "request_timeout"
        else:
            assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_a_body_that_says_nothing_for_too_long_is_given_up(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.2)
    begun = HEAD.encode() + b"content-length: 1000\r\n\r\n{"
    pieces = [b" "] * 30  # which take longer than that together
    async with connected(house, begun, *pieces) as (reader, _):
        assert await code_of(reader, b"408") == "request_timeout"
    assert not house.engine.asked
    assert house.ledger.attempts == []


async def test_a_body_sent_ahead_is_given_up_likewise(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.2)
    house.engine.pause = 0.1
    begun = HEAD.encode() + b"content-length: 1000\r\n\r\n{"
    async with connected(house, chat(), begun) as (reader, _):
        await reader.readuntil(b'"total_tokens": 6}}')
        assert await code_of(reader, b"408") == "request_timeout"


async def test_an_answer_may_take_longer_than_its_request(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.1)
    house.engine.pause = 0.2
    asked = chat(stream=True)
    async with connected(house, asked[:-5], asked[-5:]) as (reader, _):
        answer = await asyncio.wait_for(reader.readuntil(b"[DONE]"), 5)
        assert b"error" not in answer


async def test_requests_sent_ahead_are_answered_in_turn(house: House) -> None:
    async with connected(house, (GET + b"\r\n") * 20) as (reader, writer):
        for _ in range(2):
            for _ in range(20):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
                await reader.readuntil(b"}")
            writer.write((GET + b"\r\n") * 20)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("ahead", [b"", GET, chat(), chat() * 2, HEAD.encode()],
                         ids=["nothing", "half", "one", "two", "another half"])  # fmt: skip
async def test_a_client_that_leaves_is_seen_behind_what_it_sent_ahead(
    house: House, ahead: bytes, stream: bool
) -> None:
    house.engine.hang_after, house.engine.pause = 3, 0 if stream else 60
    async with connected(house, chat(stream=stream)) as (_, writer):
        await eventually(lambda: house.engine.asked)
        writer.write(ahead)
        await asyncio.sleep(0.05)
    await asyncio.wait_for(house.engine.aborted.wait(), 5)


async def test_too_much_sent_ahead_cuts_the_connection(house: House) -> None:
    house.engine.pause = 60
    async with connected(house, chat()) as (reader, writer):
        await eventually(lambda: house.engine.asked)
        writer.write(HEAD.encode() + b"content-length: 1000000\r\n\r\n" + b" " * 1_000_000)
        with suppress(ConnectionError):  # an end is as good as a reset
            assert await asyncio.wait_for(reader.read(), 5) == b""
        await asyncio.wait_for(house.engine.aborted.wait(), 5)
