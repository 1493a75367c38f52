"""One connection: replies find their commands, and anything out of order breaks it for good."""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hiredis import ReplyError

from byline.errors import LedgerMisconfigured, LedgerUnavailable
from byline.posting.address import Address
from byline.posting.pipeline import Pipeline, packed
from byline.posting.redis_client import Client
from byline.redis_server import RedisServer, running_redis

pytestmark = pytest.mark.anyio
TIMEOUT_SECONDS = 0.2
PING = (("PING",),)
BEGINS = datetime(2026, 1, 1, tzinfo=UTC)


@asynccontextmanager
async def answering(path: Path, answer: Callable[[bytes], bytes]) -> AsyncIterator[Address]:
    """A server that answers whatever it reads with `answer`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(answer(data))
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield Address.parse(f"unix://{path}")
    finally:
        server.close()


async def opened(address: Address) -> Pipeline:
    return await Pipeline.open(address, timeout_seconds=TIMEOUT_SECONDS)


async def test_replies_find_their_commands_in_order(redis_url: str) -> None:
    pipeline = await opened(Address.parse(redis_url))
    echoes = [pipeline.exchange(*packed([("ECHO", f"{k}"), ("ECHO", "ü")])) for k in range(50)]
    assert await asyncio.gather(*echoes) == [[f"{k}", "ü"] for k in range(50)]
    pipeline.break_off("the test is over")
    await pipeline.closed()


async def test_a_servers_error_is_a_reply_like_any_other(redis_url: str) -> None:
    pipeline = await opened(Address.parse(redis_url))
    refused, pong = await pipeline.exchange(*packed([("NONSENSE",), ("PING",)]))
    assert isinstance(refused, ReplyError)
    assert pong == "PONG"
    pipeline.break_off("the test is over")
    await pipeline.closed()


async def test_a_late_reply_breaks_the_connection_and_all_that_is_under_way(tmp_path: Path) -> None:
    answers = iter([b"+PONG\r\n"])
    async with answering(tmp_path / "s", lambda _: next(answers, b"")) as address:
        pipeline = await opened(address)
        first, second = [pipeline.exchange(*packed(PING)) for _ in range(2)]
        for exchange in (first, second):
            with pytest.raises(LedgerUnavailable, match=r"no reply within 0\.2 s"):
                await exchange
        with pytest.raises(LedgerUnavailable, match="no reply within"):
            await pipeline.exchange(*packed(PING))  # and it stays broken
        await pipeline.closed()


async def test_nobody_need_wait_for_an_exchange(tmp_path: Path) -> None:
    async with answering(
        tmp_path / "s", lambda data: b"+PONG\r\n" * data.count(b"PING")
    ) as address:
        pipeline = await opened(address)
        for _ in range(2):
            pipeline.exchange(*packed(PING)).cancel()  # its reply still comes, and is passed over
            assert await pipeline.exchange(*packed(PING)) == ["PONG"]
        left = pipeline.exchange(*packed(PING))
        left.cancel()
        pipeline.break_off("the test is over")
        await pipeline.closed()


async def test_a_connection_in_use_is_not_too_late(tmp_path: Path) -> None:
    async with answering(
        tmp_path / "s", lambda data: b"+PONG\r\n" * data.count(b"PING")
    ) as address:
        pipeline = await opened(address)
        for _ in range(6):
            await pipeline.exchange(*packed(PING))
            await asyncio.sleep(TIMEOUT_SECONDS / 4)
        assert pipeline.broken is None
        pipeline.break_off("the test is over")
        await pipeline.closed()


@pytest.mark.parametrize(
    ("answer", "says"),
    [(b"+PONG\r\n+PONG\r\n", "nobody waits for"), (b"?what\r\n", "made no sense")],
)
async def test_a_reply_too_many_or_without_sense_breaks_the_connection(
    tmp_path: Path, answer: bytes, says: str
) -> None:
    answers = iter([b"+PONG\r\n", answer])
    async with answering(tmp_path / "s", lambda _: next(answers, b"")) as address:
        pipeline = await opened(address)
        exchange = pipeline.exchange(*packed(PING))
        await asyncio.wait([exchange])
        await pipeline.closed()
        assert says in (pipeline.broken or "")
        exchange.exception()


async def test_a_server_that_goes_away_breaks_the_connection(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "data", unix_socket=tmp_path / "s.sock")
    with running_redis(server) as process:
        pipeline = await opened(Address.parse(server.url))
        process.kill()
        with pytest.raises(LedgerUnavailable, match="the connection was lost"):
            await pipeline.exchange(*packed(PING))
        await pipeline.closed()


async def test_a_user_is_let_in_by_name_password_and_database(
    tmp_path: Path, redis: Client, redis_url: str
) -> None:
    path = redis_url.removeprefix("unix://")
    await redis.execute_command("ACL SETUSER poster on >se:cret ~* +@all -config")
    for url in (f"unix://poster:se%3Acret@{path}?db=3", f"unix://poster:se%3Acret@{path}"):
        pipeline = await opened(Address.parse(url))
        assert await pipeline.exchange(*packed([("ACL", "WHOAMI")])) == ["poster"]
        info = (await pipeline.exchange(*packed([("CLIENT", "INFO")])))[0]
        assert ("db=3" in info) == url.endswith("db=3")
        pipeline.break_off("the test is over")
        await pipeline.closed()
    for url in (f"unix://poster:wrong@{path}", f"unix://nobody:x@{path}"):
        with pytest.raises(LedgerMisconfigured, match="refuses the rights: WRONGPASS"):
            await opened(Address.parse(url))
    await redis.execute_command("ACL DELUSER poster")


async def test_no_server_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match="connect to the ledger"):
        await opened(Address.parse(f"unix://{tmp_path}/nothing"))


async def test_a_server_that_lets_nobody_in_in_time_is_unavailable(tmp_path: Path) -> None:
    async with answering(tmp_path / "s", lambda _: b"") as address:
        with pytest.raises(LedgerUnavailable, match="no reply within"):
            await opened(address)


async def test_a_connection_may_be_encrypted(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = self_signed(tmp_path)
    context.load_cert_chain(certificate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            writer.write(b"+PONG\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    trusting = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}"
    pipeline = await opened(Address.parse(trusting))
    assert await pipeline.exchange(*packed(PING)) == ["PONG"]
    pipeline.break_off("the test is over")
    await pipeline.closed()
    with pytest.raises(LedgerUnavailable, match="certificate verify failed"):
        await opened(Address.parse(f"rediss://127.0.0.1:{port}/0"))
    server.close()
    await asyncio.sleep(0.01)


def self_signed(folder: Path) -> Path:
    """A key and its certificate for 127.0.0.1, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ledger")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, BEGINS, BEGINS + timedelta(9999))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "server.pem"
    path.write_bytes(private + certificate.public_bytes(pem))
    return path


def test_an_address_is_read_as_redis_py_reads_it() -> None:
    plain = Address.parse("redis://user:p%40ss@host:7000/2")
    assert (plain.host, plain.port, plain.database) == ("host", 7000, 2)
    assert (plain.username, plain.password, plain.tls) == ("user", "p@ss", None)
    assert plain.greeting() == [("AUTH", "user", "p@ss"), ("SELECT", "2"), ("PING",)]
    assert Address.parse("redis://:only@host").greeting() == [("AUTH", "only"), ("PING",)]
    assert Address.parse("unix:///a/b.sock?db=1").path == "/a/b.sock"
    assert Address.parse("rediss://host/0?ssl_cert_reqs=none").tls is not None


@pytest.mark.parametrize(
    "url", ["http://host", "redis://host:port/0", "rediss://host?ssl_ca_certs=/does/not/exist"]
)
def test_an_address_that_makes_no_sense_says_what_is_wanted_and_no_password(url: str) -> None:
    with pytest.raises(LedgerMisconfigured, match="must be redis://HOST:PORT/0"):
        Address.parse(url.replace("//", "//user:hidden@"))
