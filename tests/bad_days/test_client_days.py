"""Days on which clients are slow, huge, garbled, many, or gone: a 4xx, and nothing is left behind.

"Nothing is left behind" is: no request at the engine, no open hold, balanced books, memory back.
"""

import asyncio
import json
import random
import resource
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from byline.limits import API_KEY_SECONDS
from tests.bad_days.asking import (
    CHAT,
    Pair,
    ask,
    connected,
    cut,
    eventually,
    head,
    request,
    within,
)
from tests.gateway_program import GatewayProgram

pytestmark = pytest.mark.slow

BODY_BYTES = 50 * 2**20
IDLE_MOST, IDLE_LEAST = 10_000, 1_000
FILES_BESIDE = 500  # what both programs have open beside the idle connections
STREAMS_CUT = 1_000
BURST, BURST_SECONDS_MAX = 1_000, 10.0  # two seconds where nothing else runs
GROWTH_MEGABYTES_MAX = 40.0
UNFINISHED_SECONDS_MAX = 12.0
SEED = 7


def test_50_megabytes_that_are_announced_are_refused_before_they_come(
    program: GatewayProgram,
) -> None:
    async def send() -> bytes:
        reader, writer = await connected(program)
        writer.write(head(program, f"content-length: {BODY_BYTES}") + b"\r\n")
        answer = await reader.readuntil(b"\r\n\r\n") + await reader.read()
        await cut(writer)
        return answer

    with within(2.0):
        answer = asyncio.run(asyncio.wait_for(send(), 10))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"request_too_large"' in answer


def test_50_megabytes_that_are_not_announced_are_cut_off_and_never_kept(
    program: GatewayProgram,
) -> None:
    before = program.megabytes()

    async def send() -> tuple[bytes, int]:
        reader, writer = await connected(program)
        writer.write(head(program, "transfer-encoding: chunked") + b"\r\n")
        piece, sent = b"10000\r\n" + b"x" * 65_536 + b"\r\n", 0
        try:
            while sent < BODY_BYTES:
                writer.write(piece)
                await writer.drain()
                sent += 65_536
        except ConnectionError:
            pass
        try:
            answer = await reader.read(4_096)
        except ConnectionError:
            answer = b""  # the reset has overtaken the answer
        await cut(writer)
        return answer, sent

    answer, sent = asyncio.run(asyncio.wait_for(send(), 20))
    assert sent < BODY_BYTES
    assert not answer or answer.startswith(b"HTTP/1.1 413 ")
    assert program.megabytes() - before < GROWTH_MEGABYTES_MAX


def test_a_megabyte_of_headers_is_no_fault_of_ours_and_is_not_kept(
    program: GatewayProgram,
) -> None:
    before = program.megabytes()

    async def send() -> bytes:
        reader, writer = await connected(program)
        lines = [f"x-{number}: {'y' * 1_000}" for number in range(1_024)]
        body = json.dumps(CHAT).encode()
        lines += [f"content-length: {len(body)}", "connection: close"]
        writer.write(head(program, *lines) + b"\r\n" + body)
        try:
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            await cut(writer)

    for _ in range(10):
        answer = asyncio.run(asyncio.wait_for(send(), 10))
        assert not answer.startswith(b"HTTP/1.1 5"), answer
    program.assert_quiet()
    assert program.megabytes() - before < GROWTH_MEGABYTES_MAX


def test_headers_without_end_are_cut_off_and_never_kept(program: GatewayProgram) -> None:
    before = program.megabytes()

    async def send() -> float:
        _, writer = await connected(program)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: here\r\n")
        try:
            for number in range(80):
                writer.write(b"x-%d: " % number + b"y" * 2**20 + b"\r\n")
                await writer.drain()
        except ConnectionError:
            pass
        kept = program.megabytes() - before
        await cut(writer)
        return kept

    assert asyncio.run(asyncio.wait_for(send(), 20)) < GROWTH_MEGABYTES_MAX


def test_a_head_that_never_ends_is_given_up(program: GatewayProgram) -> None:
    async def wait() -> bytes:
        reader, writer = await connected(program)
        writer.write(head(program))
        try:
            async with asyncio.timeout(UNFINISHED_SECONDS_MAX):
                return await reader.read()
        finally:
            await cut(writer)

    assert b'"code": "request_timeout"' in asyncio.run(wait())


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_is_seen_whatever_it_has_sent_behind_its_request(
    program: GatewayProgram, stream: bool
) -> None:
    async def leave() -> None:
        _, writer = await connected(program)
        first = request(program, stream=stream, stand_in={"hang_after": 3 if stream else 0})
        writer.write(first.replace(b"connection: close", b"connection: keep-alive"))
        while program.engine.under_way == 0:
            await asyncio.sleep(0.01)
        body = b" " * 2**20
        writer.write(head(program, f"content-length: {len(body)}") + b"\r\n" + body)
        await asyncio.sleep(0.3)
        await cut(writer)

    asyncio.run(asyncio.wait_for(leave(), 10))
    try:
        eventually(lambda: program.engine.under_way == 0, "the engine is idle")
    finally:
        program.engine.let_go.set()
        eventually(lambda: program.engine.under_way == 0, "the engine has let go")
        time.sleep(0.5)  # for the charge
    program.assert_quiet()


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe\x00", b'{"model": "med\xc3\x28"}', b"[" * 500_000,
        b'{"n": ' + b"9" * 100_000 + b"}",
        b'{"model": "\\ud800"}', b"", b"null", b"{}", b'{"model": 1e999}', b"\x00" * 100,
        json.dumps(CHAT).encode("utf-16"), json.dumps(CHAT | {"messages": []}).encode(),
        json.dumps(CHAT | {"messages": [{"role": "user", "content": {"a": 1}}]}).encode(),
        json.dumps(CHAT | {"messages": [[]]}).encode(),
        json.dumps(CHAT | {"max_tokens": 1e3}).encode(),
        json.dumps(CHAT | {"max_tokens": True}).encode(),
        json.dumps(CHAT | {"byline": {"attribution": "now"}}).encode(),
    ],
    ids=range(17),
)  # fmt: skip
@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings",
             "/v1/tokenize", "/v1/detokenize"],
)  # fmt: skip
def test_a_body_that_can_not_be_read_is_the_clients_fault(
    program: GatewayProgram, path: str, body: bytes
) -> None:
    answer = ask(program, body, path=path)
    assert answer.status == 400, answer.body
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models/%ff%fe", 404), ("/v1/models/" + "a" * 5_000, 404), ("/v1/models/..%2f..", 404),
        ("/v1/models/%00", 404), ("/v1/attributions/%ff", 404), ("/v1/receipts/%ff%00", 404),
        ("/v1/usage?limit=%ff", 400), ("/v1/usage?cursor=%ff%00", 400), ("/v1/usage?from=%ff", 400),
        ("/v1/usage?limit=nan", 400), ("/v1/usage?limit=1e400", 400), ("/%ff", 404),
        ("/v1/usage?cursor=" + "9" * 5_000, 400), ("/v1/usage?from=9999-12-31&to=0001-01-01", 400),
    ],
)  # fmt: skip
def test_a_path_that_is_no_text_is_the_clients_fault(
    program: GatewayProgram, path: str, status: int
) -> None:
    answer = ask(program, path=path, method="GET")
    assert answer.status == status, answer.body
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "key", [b"\xff\xfe", b"", b"Bearer", b"Bearer \xff", b"Basic eA==", b"x" * 9_000]
)
def test_a_key_that_is_no_text_is_not_known(program: GatewayProgram, key: bytes) -> None:
    answer = ask(program, headers={"authorization": key.decode("latin-1")})
    assert answer.status == 401
    assert answer.error["code"] == "invalid_api_key"


def test_slow_bodies_keep_nobody_else_waiting_and_leave_nothing(program: GatewayProgram) -> None:
    async def trickle() -> None:
        pairs = [await connected(program) for _ in range(200)]
        for _, writer in pairs:
            writer.write(head(program, "content-length: 10000") + b"\r\n{")
        for _ in range(3):
            for _, writer in pairs:
                writer.write(b" ")
            with within(3.0):
                answer = await asyncio.to_thread(ask, program)
                assert answer.status == 200
            await asyncio.sleep(0.3)
        for _, writer in pairs:
            await cut(writer)

    asyncio.run(asyncio.wait_for(trickle(), 30))
    program.assert_quiet()


@asynccontextmanager
async def idle(program: GatewayProgram, count: int) -> AsyncIterator[list[Pair]]:
    """So many connections on which nothing is asked."""
    pairs: list[Pair] = []
    try:
        for _ in range(count // 100):
            pairs += await asyncio.gather(*(connected(program) for _ in range(100)))
        yield pairs
    finally:
        for _, writer in pairs:
            writer.transport.abort()
        await asyncio.sleep(0.1)


def test_thousands_of_idle_connections_cost_little_and_harm_nobody(
    program: GatewayProgram,
) -> None:
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = (most if most != resource.RLIM_INFINITY else 2**20) - FILES_BESIDE
    if files < IDLE_LEAST:
        pytest.skip(f"a process may have {most} files open here")
    files = min(files, IDLE_MOST + FILES_BESIDE)
    if 0 <= now < files:  # the gateway does so by itself
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    before = program.megabytes()

    async def wait() -> float:
        async with idle(program, min(IDLE_MOST, files - FILES_BESIDE) // 100 * 100):
            with within(2.0):
                answer = await asyncio.to_thread(ask, program)
                assert answer.status == 200
            return program.megabytes()

    during = asyncio.run(asyncio.wait_for(wait(), 45))
    assert during - before < 250.0
    eventually(lambda: program.megabytes() - before < 100.0, "most of the memory is back")
    assert ask(program).status == 200


def test_a_client_that_reads_a_byte_a_second_keeps_neither_memory_nor_others_waiting(
    program: GatewayProgram,
) -> None:
    """64 events of 256 KB are 16 MB for each of ten clients, of which most must not be kept."""
    before = program.megabytes()
    wanted = {"tokens": 64, "padding": 262_144}

    async def sip() -> float:
        pairs: list[Pair] = []
        for _ in range(10):
            narrow = socket.socket()
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            narrow.setblocking(False)
            host, port = program.url.removeprefix("http://").split(":")
            await asyncio.get_running_loop().sock_connect(narrow, (host, int(port)))
            pairs.append(await asyncio.open_connection(sock=narrow, limit=64))
        for _, writer in pairs:
            writer.write(request(program, stream=True, stand_in=wanted))
        for _ in range(3):
            await asyncio.sleep(1.0)
            for reader, _ in pairs:
                assert await reader.read(1)
            with within(2.0):
                answer = await asyncio.to_thread(ask, program)
                assert answer.status == 200
        grown = program.megabytes() - before
        for _, writer in pairs:
            await cut(writer)
        return grown

    grown = asyncio.run(asyncio.wait_for(sip(), 30))
    program.assert_quiet()
    assert grown < 100.0, f"{grown:.0f} MB were kept for clients that do not read"


def test_streams_that_are_each_cut_somewhere_are_each_charged_once(
    program: GatewayProgram,
) -> None:
    """1,000 begun within 2 s, cut after 0 to 30 of their events: by reset or by an orderly close.

    What the first thousand's buffers took may stay with the allocator, but no more for the next.
    """
    chance = random.Random(SEED)
    peak = 0

    async def one(cut_after: int, is_orderly: bool) -> None:
        nonlocal peak
        await asyncio.sleep(chance.random() * 2.0)
        reader, writer = await connected(program)
        writer.write(request(program, stream=True, stand_in={"tokens": 30, "pause": 0.2}))
        for _ in range(cut_after):
            if not await reader.readuntil(b"\n\n"):
                break
            peak = max(peak, program.engine.under_way)
        if is_orderly:
            writer.close()
        await cut(writer)

    async def all_of_them() -> None:
        await asyncio.gather(
            *(one(chance.randrange(31), chance.random() < 0.5) for _ in range(STREAMS_CUT))
        )

    memory = []
    for _ in range(2):
        before = program.assert_quiet()
        asyncio.run(asyncio.wait_for(all_of_them(), 60))
        eventually(lambda: program.engine.under_way == 0, "the engine is idle")
        after = program.assert_quiet()
        ended = sum(after[kind] - before[kind] for kind in ("capture", "void"))
        assert ended == after["hold"] - before["hold"] > STREAMS_CUT * 3 // 4
        memory.append(program.megabytes())
    assert memory[1] - memory[0] < GROWTH_MEGABYTES_MAX / 2, memory
    assert peak > STREAMS_CUT // 2
    started = time.monotonic()
    assert ask(program).status == 200
    assert time.monotonic() - started < 5.0


def test_a_thousand_who_ask_at_once_are_all_answered(program: GatewayProgram) -> None:
    """On an idle ledger none of them waits so long for the key or the hold that it is refused."""
    before = program.assert_quiet()
    time.sleep(API_KEY_SECONDS)  # so that the key has to be looked up for them

    async def one() -> bytes:
        reader, writer = await connected(program)
        writer.write(request(program, stand_in={"tokens": 3}))
        answer = await reader.read()
        await cut(writer)
        return answer

    async def all_of_them() -> list[bytes]:
        return await asyncio.gather(*(one() for _ in range(BURST)))

    with within(BURST_SECONDS_MAX):
        answers = asyncio.run(asyncio.wait_for(all_of_them(), 60))
    assert Counter(answer.split(b" ", 2)[1] for answer in answers) == {b"200": BURST}
    after = program.assert_quiet()
    for kind in ("hold", "capture"):
        assert after[kind] - before[kind] == BURST
