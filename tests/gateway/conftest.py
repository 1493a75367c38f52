"""A whole gateway on a loopback port: the real app and the real server over the fakes."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from aiohttp import web

from byline.aliases import Alias
from byline.delivery.spool import Spool
from byline.home import Home
from byline.ledger.shards import Shards
from byline.records import AdapterVersion, Caller, KeyRole, Release
from gateway.app import build_app
from gateway.archive_reads import ArchiveReads
from gateway.connections import BoundedConnection
from gateway.engine_client import Timeouts
from gateway.engines.engines import EngineBounds, Engines
from gateway.logs import Logs
from gateway.services import Limits, Services
from gateway.telemetry import Telemetry
from gateway.tracing import Tracing
from tests.fake_engine import FakeEngine
from tests.fakes import FakeKeys, FakeLedger, FakeQuotas, FakeRouter

SHOP, OTHER, ANN, BOB, OWNER, OPERATOR = (
    f"byl_{name}" for name in ["shop", "other", "ann", "bob", "own", "op"]
)
KEYS = {
    SHOP: Caller(KeyRole.APPLICATION, "shop"),
    OTHER: Caller(KeyRole.APPLICATION, "other"),
    ANN: Caller(KeyRole.CONTRIBUTOR, "ann"),
    BOB: Caller(KeyRole.CONTRIBUTOR, "bob"),
    OWNER: Caller(KeyRole.OWNER, "clinic"),
    OPERATOR: Caller(KeyRole.OPERATOR, "ops"),
}
MED = AdapterVersion(
    adapter="med", version="med@0123456789ab", path="adapters/med@0123456789ab", owner="clinic",
    base_model="tiny", dataset="med-data@aaaaaaaaaaaa", index="med-index@bbbbbbbbbbbb",
)  # fmt: skip
CYBER = AdapterVersion(
    adapter="cyber", version="cyber@ba9876543210", path="adapters/cyber@ba9876543210", owner="sec",
    base_model="tiny", dataset="cyber-data@cccccccccccc", index="cyber-index@dddddddddddd",
)  # fmt: skip
RELEASE = Release(
    base_model="tiny", base_path="base/tiny@eeeeeeeeeeee", context_tokens=2048,
    adapters=(MED, CYBER), router="router@ffffffffffff",
)  # fmt: skip
CHAT = {"model": "med", "messages": [{"role": "user", "content": "What helps?"}], "max_tokens": 8}
STREAM = {**CHAT, "stream": True}


@dataclass
class Answer:
    """One HTTP answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes
    fields: Any


@dataclass
class House:
    """A running gateway with its fakes."""

    url: str
    ledger: FakeLedger
    keys: FakeKeys
    quotas: FakeQuotas
    engine: FakeEngine
    telemetry: Telemetry
    served: Path
    http: aiohttp.ClientSession
    stop: Callable[[], Awaitable[None]]
    services: Services

    async def ask(
        self, fields: object = None, *, path: str = "/v1/chat/completions",
        key: str | None = SHOP, method: str = "POST", **more: Any,
    ) -> Answer:  # fmt: skip
        """Send one request and read its whole answer."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        headers |= more.pop("headers", {})
        if fields is not None:
            more["json"] = fields
        async with self.http.request(method, self.url + path, headers=headers, **more) as response:
            body = await response.read()
            is_json = response.content_type == "application/json"
            parsed = await response.json() if is_json else None
            lowered = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, lowered, body, parsed)

    async def leave_after(self, fields: object, seen: bytes) -> None:
        """Ask for a stream, and go away as soon as this much of it has come."""
        headers = {"authorization": f"Bearer {SHOP}"}
        async with self.http.post(
            f"{self.url}/v1/chat/completions", json=fields, headers=headers
        ) as response:
            await response.content.readuntil(seen)
            response.close()

    async def get(self, path: str, key: str | None = SHOP) -> Answer:
        """GET one path."""
        return await self.ask(path=path, key=key, method="GET")

    def metric(self, name: str, **labels: str) -> float:
        """One sample of the gateway's metrics."""
        return self.telemetry.registry.get_sample_value(name, labels) or 0.0


async def eventually(claim: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until a claim is true."""
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "it did not become true in time"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def serving_engine(engine: FakeEngine) -> AsyncIterator[str]:
    """The fake engine's address while it runs."""
    runner = web.AppRunner(
        engine.app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.01
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving_gateway(services: Services) -> AsyncIterator[tuple[str, uvicorn.Server]]:
    """The gateway's address while it runs."""
    config = uvicorn.Config(
        build_app(services), host="127.0.0.1", port=0, http=BoundedConnection, ws="none",
        log_config=None, access_log=False, timeout_graceful_shutdown=5,
    )  # fmt: skip
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", server
    finally:  # also where a test failed: or its sockets would fail others
        if not server.should_exit:
            # As `server.shutdown()` does, without its tenth of a second of sleep.
            for listening in server.servers:
                listening.close()
            for connection in list(server.server_state.connections):
                connection.shutdown()
            await server.lifespan.shutdown()


@pytest.fixture
def archive_url(tmp_path: Path) -> str:
    """Where the gateway looks for an archive; there is none until a test makes one."""
    return f"sqlite:///{tmp_path}/archive.sqlite"


@pytest.fixture
def tracing() -> Tracing | None:
    """No traces, unless a test says otherwise."""
    return None


@pytest.fixture
def aliases() -> Mapping[str, Alias]:
    """No names of an installation's own, unless a test has some."""
    return {}


@pytest.fixture
async def house(
    tmp_path: Path, archive_url: str, tracing: Tracing | None, aliases: Mapping[str, Alias]
) -> AsyncIterator[House]:
    """A running gateway."""
    engine, ledger, keys, telemetry = FakeEngine(), FakeLedger(), FakeKeys(KEYS), Telemetry()
    quotas = FakeQuotas()
    async with serving_engine(engine) as engine_url, aiohttp.ClientSession() as http:
        archive = ArchiveReads(archive_url)
        services = Services(
            shards=Shards({"usd": ledger}, {}),
            spools={"usd": Spool.open(tmp_path / "spool")},
            archive=archive,
            logs=Logs(Home(tmp_path), archive),
            keys=keys,
            quotas=quotas,
            engines=Engines.open(
                [engine_url],
                RELEASE,
                tmp_path,
                telemetry.registry,
                bounds=EngineBounds(timeouts=Timeouts(first_token=2.0, idle=2.0, answer=2.0)),
            ),
            release=RELEASE,
            aliases=aliases,
            router=FakeRouter({"fever": "med", "exploit": "cyber"}),
            served_folder=tmp_path / "served",
            telemetry=telemetry,
            clock_ms=lambda: time.time_ns() // 1_000_000,
            tracing=tracing,
            limits=Limits(request_bytes_max=4_096, shutdown_seconds=5.0, inline_seconds=0.5),
        )
        async with serving_gateway(services) as (url, server):

            async def stop() -> None:
                server.should_exit = True
                await server.shutdown()

            yield House(
                url, ledger, keys, quotas, engine, telemetry, services.served_folder, http, stop,
                services,
            )  # fmt: skip
