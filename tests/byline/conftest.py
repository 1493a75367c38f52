"""A real Redis-protocol server for the session, and a fresh ledger in it for each test."""

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from byline.ledger import Ledger
from byline.redis_client import Client, connect
from byline.redis_server import RedisServer, running_redis


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("redis")
    server = RedisServer(folder, unix_socket=folder / "s.sock")
    with running_redis(server):
        yield server.url


@pytest.fixture
def ledger_name() -> str:
    return uuid.uuid4().hex


@pytest.fixture
async def ledger(redis_url: str, ledger_name: str) -> AsyncIterator[Ledger]:
    opened = await Ledger.open(redis_url, name=ledger_name)
    yield opened
    await opened.close()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Client]:
    client = connect(redis_url)
    yield client
    await client.aclose()
