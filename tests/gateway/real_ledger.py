"""Gateways over real ledgers, which a test starts and stops; their engine is a fake."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import uuid_utils

from byline.delivery.spool import Spool
from byline.ledger.ledger import Ledger
from byline.ledger.shards import Shards
from byline.quotas.quotas import Quotas
from byline.redis_server import RedisServer
from gateway.archive_reads import ArchiveReads
from gateway.engines.engines import Engines
from gateway.services import Services
from gateway.telemetry import Telemetry
from tests.fake_engine import FakeEngine
from tests.fakes import FakeKeys, FakeRouter
from tests.gateway.conftest import (
    CHAT,
    KEYS,
    RELEASE,
    SHOP,
    eventually,
    serving_engine,
    serving_gateway,
)

FUNDS = 10**9


def clock_ms() -> int:
    return time.time_ns() // 1_000_000


async def services_over(
    redis_url: str,
    engine_url: str,
    home: Path,
    *,
    names: Collection[str] = ("usd",),
    placed: Mapping[str, str] | None = None,
    spool_bytes_max: int = 2**20,
) -> Services:
    """A gateway's services over real ledgers and real spools."""
    telemetry = Telemetry()
    return Services(
        shards=await Shards.open(
            redis_url, names, placed=placed, observe=telemetry.ledger_post, timeout_seconds=0.5
        ),
        spools={
            name: Spool.open(home / "spool" / name, bytes_max=spool_bytes_max) for name in names
        },
        archive=ArchiveReads(f"sqlite:///{home}/archive.sqlite"),
        keys=FakeKeys(KEYS),
        quotas=Quotas.of(redis_url, timeout_seconds=0.5),
        engines=Engines.open(engine_url.split(","), RELEASE, home, telemetry.registry),
        release=RELEASE,
        router=FakeRouter({}),
        served_folder=home / "served",
        telemetry=telemetry,
        clock_ms=clock_ms,
    )


@asynccontextmanager
async def gateway_over(services: Services) -> AsyncIterator[str]:
    async with serving_gateway(services) as (url, _):
        yield url


async def deposit(server: RedisServer) -> None:
    ledger = await Ledger.open(server.url)
    await ledger.deposit(str(uuid_utils.uuid7()), "shop", FUNDS, time_ms=clock_ms())
    await ledger.close()


async def ask(url: str, fields: object, key: str = SHOP) -> tuple[int, bytes]:
    """One question's whole answer."""
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            f"{url}/v1/chat/completions", json=fields, headers={"authorization": f"Bearer {key}"}
        ) as response,
    ):
        return response.status, await response.read()


async def kinds_of(server: RedisServer, *, count: int) -> list[str]:
    """The kinds of the journal's entries, once there are so many; the books balance."""
    ledger = await Ledger.open(server.url)
    async with asyncio.timeout(10):
        while (await ledger.unfinished()).journal_entries < count:
            await asyncio.sleep(0.05)
    kinds = [entry.kind async for entry in ledger.entries()]
    assert (await ledger.check()).balanced
    await ledger.close()
    return kinds


@dataclass
class Place:
    """Where gateways run: an engine that is there, and a ledger that comes and goes."""

    server: RedisServer
    engine: FakeEngine
    engine_url: str
    home: Path
    running: AsyncExitStack  # what is started here runs on while the ledger is away

    @classmethod
    @asynccontextmanager
    async def made(cls, home: Path) -> AsyncIterator["Place"]:
        """With an engine that takes its time; the ledger is not yet there."""
        engine = FakeEngine(pause=0.2)
        server = RedisServer(home / "data", unix_socket=home / "s.sock")
        async with serving_engine(engine) as url, AsyncExitStack() as running:
            yield cls(server, engine, url, home, running)

    async def services(self, *, spool_bytes_max: int = 2**20) -> Services:
        """Of one more gateway."""
        return await services_over(
            self.server.url, self.engine_url, self.home, spool_bytes_max=spool_bytes_max
        )

    async def gateway(self, services: Services | None = None) -> str:
        """The address of a gateway that runs until `running` is closed."""
        own = services or await self.services()
        return await self.running.enter_async_context(gateway_over(own))

    async def asked(self, url: str, fields: object = CHAT) -> "asyncio.Task[tuple[int, bytes]]":
        """A question that has come to the engine, and is not answered yet."""
        asking = asyncio.create_task(ask(url, fields))
        await eventually(lambda: self.engine.asked)
        return asking
