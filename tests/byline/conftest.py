"""Real servers for the session; a fresh ledger and a fresh archive in them for each test."""

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from byline.archive.database import Archive
from byline.ledger.ledger import Ledger
from byline.posting.redis_client import Client, connect
from byline.redis_server import RedisServer, running_redis
from tests.byline.postgres import (
    WHAT_TO_INSTALL,
    Postgres,
    postgres_programs,
    running_postgres,
)


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    programs = postgres_programs()
    if programs is None:
        pytest.skip(WHAT_TO_INSTALL)
    with running_postgres(programs) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def archive_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/archive.sqlite"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_schema()


@pytest.fixture
def archive(archive_url: str) -> Iterator[Archive]:
    opened = Archive.open(archive_url)
    yield opened
    opened.close()
