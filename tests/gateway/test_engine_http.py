"""HTTP to an engine: whatever it sends, an answer is whole or an error says that it is not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byline.errors import RequestFailed
from gateway.engine_client import TIMEOUTS, EngineClient
from gateway.engine_http import (
    AHEAD_BYTES_MAX,
    HEAD_BYTES_MAX,
    Connections,
    Disconnected,
    Garbled,
    Reply,
    Unreached,
)

pytestmark = pytest.mark.anyio

CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nx: y\r\n\r\n"
)
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde"
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\n\r\nabcde"


class Engine:
    """Answers each request with the same pieces, then closes if it should; counts connections."""

    def __init__(self, *pieces: bytes, closes: bool = False) -> None:
        self.pieces = pieces
        self.closes = closes
        self.connections = 0
        self.written = 0
        self.cut = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if (task := asyncio.current_task()) is not None:
            self.tasks.append(task)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                    self.written += len(piece)
                    await asyncio.sleep(0)
                if self.closes:
                    break
        self.cut.set()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def connections_to(engine: Engine) -> AsyncIterator[Connections]:
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    connections = Connections(f"http://{host}:{port}")
    try:
        yield connections
    finally:
        connections.close()
        server.close()
        _, unended = await asyncio.wait(engine.tasks, timeout=10) if engine.tasks else ([], [])
        for task in unended:
            task.cancel()
        assert not unended, "a connection was left open"


async def asked(connections: Connections, seconds: float = 5.0) -> Reply:
    connection = connections.idle() or await connections.made(seconds)
    return await connections.ask(connection, connections.request("GET", "/"), seconds)


async def body_of(connections: Connections) -> bytes:
    reply = await asked(connections)
    try:
        return await reply.whole(5.0)
    finally:
        reply.close()


@pytest.mark.parametrize("answer", [CHUNKED, SIZED, b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED])
async def test_an_answer_with_an_end_keeps_its_connection(answer: bytes) -> None:
    engine = Engine(answer)
    async with connections_to(engine) as connections:
        assert [await body_of(connections), await body_of(connections)] == [b"abcde", b"abcde"]
    assert engine.connections == 1


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async with connections_to(Engine(UNTIL_CLOSED, closes=True)) as connections:
        assert await body_of(connections) == b"abcde"
        assert connections.idle() is None


async def test_a_connection_that_the_engine_wants_closed_is_not_kept() -> None:
    engine = Engine(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
    async with connections_to(engine) as connections:
        assert await body_of(connections) == b""
        assert connections.idle() is None


@settings(deadline=None, max_examples=50)
@given(st.sampled_from([CHUNKED, SIZED]), st.data())
async def test_however_an_answer_is_cut_into_pieces_it_is_the_same(
    answer: bytes, data: st.DataObject
) -> None:
    places = sorted(data.draw(st.lists(st.integers(1, len(answer) - 1), max_size=5)))
    cuts = [0, *places, len(answer)]
    pieces = [answer[a:b] for a, b in pairwise(cuts)]
    async with connections_to(Engine(*pieces)) as connections:
        assert await body_of(connections) == b"abcde"


@pytest.mark.parametrize("kept", range(1, len(CHUNKED)))
async def test_an_answer_cut_short_is_never_taken_for_a_whole_one(kept: int) -> None:
    async with connections_to(Engine(CHUNKED[:kept], closes=True)) as connections:
        with pytest.raises(Garbled):
            await body_of(connections)


async def test_a_connection_closed_without_a_byte_says_so() -> None:
    async with connections_to(Engine(closes=True)) as connections:
        with pytest.raises(Disconnected):
            await body_of(connections)


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * (HEAD_BYTES_MAX + 1), b"\0" * 99],
)
async def test_what_is_no_answer_is_garbled(answer: bytes) -> None:
    async with connections_to(Engine(answer)) as connections:
        with pytest.raises(Garbled):
            await body_of(connections)


async def test_bytes_after_an_answer_spoil_the_connection() -> None:
    async with connections_to(Engine(SIZED, SIZED)) as connections:
        assert await body_of(connections) == b"abcde"
        await asyncio.sleep(0.05)
        assert connections.idle() is None
    async with connections_to(Engine(SIZED + SIZED)) as connections:
        assert await body_of(connections) == b"abcde"
        assert connections.idle() is None


async def test_an_engine_that_sends_nothing_is_given_up() -> None:
    async with connections_to(Engine()) as connections:
        with pytest.raises(TimeoutError):
            await asked(connections, 0.05)
    async with connections_to(Engine(SIZED[:-1])) as connections:
        reply = await asked(connections)
        with pytest.raises(TimeoutError):
            await reply.whole(0.05)
        reply.close()


async def test_who_gives_up_cuts_the_connection() -> None:
    engine = Engine()
    async with connections_to(engine) as connections:
        asking = asyncio.create_task(asked(connections))
        await asyncio.sleep(0.05)
        asking.cancel()
        async with asyncio.timeout(5):
            await engine.cut.wait()
    engine = Engine(SIZED[:-1])
    async with connections_to(engine) as connections:
        (await asked(connections)).close()
        async with asyncio.timeout(5):
            await engine.cut.wait()


async def test_an_answer_that_nobody_reads_makes_the_engine_wait() -> None:
    pieces = 400
    chunk = b"10000\r\n" + b"z" * 65_536 + b"\r\n"
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    engine = Engine(head, *[chunk] * pieces, b"0\r\n\r\n")
    async with connections_to(engine) as connections:
        reply = await asked(connections)
        await asyncio.sleep(0.2)
        waiting = engine.written
        assert waiting < pieces * 65_536 // 2
        assert len(await reply.read(5.0)) < 2 * AHEAD_BYTES_MAX
        assert len(await reply.whole(5.0)) > pieces * 65_536 // 2
        reply.close()


async def test_an_answer_closed_twice_gives_its_connection_back_once() -> None:
    async with connections_to(Engine(SIZED)) as connections:
        reply = await asked(connections)
        await reply.whole(5.0)
        reply.close()
        reply.close()
        kept, again = connections.idle(), connections.idle()
        assert kept is not None
        kept.cut()
        assert again is None, "two requests on one connection mix their answers"


async def test_requests_at_once_after_a_refused_one_share_no_connection() -> None:
    refused = b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\n{}"
    engine = Engine(refused)
    async with connections_to(engine) as connections:
        client = EngineClient(connections, TIMEOUTS)
        with pytest.raises(RequestFailed):
            await client.load("med@aaaaaaaaaaaa", Path("/adapters/med"))
        engine.pieces = (b'HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{"data": []}',)
        async with asyncio.timeout(10):
            found = await asyncio.gather(*(client.models() for _ in range(8)))
        assert found == [frozenset()] * 8
        assert engine.connections == 8


async def test_nobody_there_is_unreached() -> None:
    with pytest.raises(Unreached):
        await Connections("http://127.0.0.1:1").made(1.0)


def test_a_header_can_not_begin_another_line() -> None:
    with pytest.raises(ValueError, match="more than a line"):
        Connections("http://e").request("GET", "/", headers={"x": "a\r\nb: c"})


@pytest.mark.parametrize("url", ["engine:8000", "ftp://engine", "http://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no engine's address"):
        Connections(url)
