"""The gateway as it is served: its own process, a real Redis-protocol server, a stand-in engine.

For tests of what only the whole program shows: real clients, and bad days.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from uuid_utils import uuid7

from byline.api_keys import ApiKeys
from byline.archive.database import Archive
from byline.artifacts import ArtifactStore
from byline.canonical import Json, canonical_text
from byline.command.tree import answers
from byline.home import Home
from byline.ledger.ledger import Ledger
from byline.records import AdapterVersion, Books, KeyRole, Release
from byline.redis_server import RedisServer
from byline.registry import write_release
from byline.routing.text import COLUMNS
from tests.ports import free_port
from tests.stand_in_engine import BASE, StandInEngine, running_engine

ADAPTER = "med"
VERSION = "med@0123456789ab"
BASE_PATH = f"base/{BASE}@0123456789ab"
FUNDS_NANO = 10**11
START_SECONDS = 60.0
ROOT = Path(__file__).parent.parent


def write_home(home: Home) -> None:
    """A release of one adapter, a router that sends everything to the base model, an archive."""
    home.artifacts.mkdir(parents=True)
    store = ArtifactStore(home.artifacts)
    recipe: dict[str, Json] = {"for": "tests"}
    with store.build("router", "router", recipe) as partial:
        described: dict[str, Json] = {"adapters": [ADAPTER, ADAPTER], "floor": 0.5}
        (partial / "router.json").write_text(canonical_text(described))
        np.savez(
            partial / "weights.npz",
            columns=np.zeros((COLUMNS, 3), np.float32), bias=np.zeros(3, np.float32),
            words=np.array(["word"]), word_weights=np.zeros((1, 3), np.float32),
        )  # fmt: skip
    router = store.find("router", recipe)
    assert router is not None
    adapter = AdapterVersion(
        adapter=ADAPTER, version=VERSION, path=f"adapters/{VERSION}", owner="clinic",
        base_model=BASE, dataset="data@0123456789ab", index="index@0123456789ab",
    )  # fmt: skip
    config = {"base_model_name_or_path": Path(BASE_PATH).name, "r": 8, "target_modules": ["q_proj"]}
    folder = home.artifacts / adapter.path
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    write_release(home.release, Release(BASE, BASE_PATH, 2_048, (adapter,), router.reference))
    Archive.open(home.archive_url).close()


@dataclass(frozen=True)
class ApiKeysOfAll:
    """One API key of each role, and one of an application without money."""

    shop: str
    poor: str
    contributor: str
    owner: str
    operator: str


async def _accounts(redis_url: str) -> ApiKeysOfAll:
    now_ms = time.time_ns() // 1_000_000
    ledger = await Ledger.open(redis_url)
    for application in ("shop", "ops"):
        await ledger.deposit(str(uuid7()), application, FUNDS_NANO, time_ms=now_ms)
    await ledger.close()
    keys = await ApiKeys.open(redis_url)
    made = [
        await keys.create(role, subject, now_ms=now_ms)
        for role, subject in (
            (KeyRole.APPLICATION, "shop"), (KeyRole.APPLICATION, "poor"),
            (KeyRole.CONTRIBUTOR, "ann"), (KeyRole.OWNER, "clinic"), (KeyRole.OPERATOR, "ops"),
        )
    ]  # fmt: skip
    await keys.close()
    return ApiKeysOfAll(*made)


@dataclass
class GatewayProgram:
    """A running gateway and what it stands on."""

    url: str
    keys: ApiKeysOfAll
    engine: StandInEngine
    home: Home
    server: RedisServer
    redis: subprocess.Popen[bytes]
    env: Mapping[str, str]
    left_open: int = 0  # holds that an earlier test has left, and answers for

    def __post_init__(self) -> None:
        self.start()

    @property
    def redis_url(self) -> str:
        """Where the ledger's server is."""
        return self.server.url

    def start(self) -> None:
        """Start the gateway and wait until it is ready."""
        with (self.home.root / "gateway.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway"], cwd=ROOT, env=self.env, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while not answers(f"{self.url}/readyz"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"the gateway did not start: {self.log()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End both programs at once, whatever they are doing."""
        for process in (self.process, self.redis):
            process.kill()
            process.wait()

    def log(self) -> str:
        """What the gateway has said so far."""
        return (self.home.root / "gateway.log").read_text()

    def megabytes(self) -> float:
        """The memory that the gateway's process has now."""
        return psutil.Process(self.process.pid).memory_info().rss / 2**20

    def books(self) -> tuple[Books, Counter[str]]:
        """The check of the books, and how many entries there are of each kind."""

        async def check() -> tuple[Books, Counter[str]]:
            ledger = await Ledger.open(self.redis_url)
            try:
                kinds = Counter([entry.kind async for entry in ledger.entries()])
                return await ledger.check(), kinds
            finally:
                await ledger.close()

        return asyncio.run(check())

    def assert_quiet(self, seconds: float = 15.0) -> Counter[str]:
        """The engine has nothing to do, no hold stands, the books balance; answers the entries."""
        deadline = time.monotonic() + seconds
        while True:
            books, kinds = self.books()
            open_holds = holds_in(kinds) - self.left_open
            if (self.engine.under_way, open_holds) == (0, 0):
                break
            assert time.monotonic() < deadline, (
                f"{self.engine.under_way} requests at the engine, {open_holds} open holds, "
                f"{kinds}; the gateway's log ends:\n{self.log()[-3_000:]}"
            )
            time.sleep(0.1)
        assert books.balanced, books
        return kinds


def holds_in(kinds: Counter[str]) -> int:
    """How many holds stand, by the entries of each kind."""
    return kinds["hold"] - kinds["capture"] - kinds["void"] - kinds["expire"]


@contextmanager
def running_program(
    folder: Path,
    *,
    settings: Mapping[str, str] | None = None,
) -> Iterator[GatewayProgram]:
    """A whole gateway in `folder`. `settings` are BYLINE_GATEWAY_* by name."""
    home, port = Home(folder / "home"), free_port()
    write_home(home)
    server = RedisServer(folder / "redis", port=free_port())
    with running_engine() as engine:
        redis = server.start()
        keys = asyncio.run(_accounts(server.url))
        given = {
            "HOME": str(home.root), "PORT": str(port), "REDIS_URL": server.url,
            "ENGINE_URLS": engine.url, **(settings or {}),
        }  # fmt: skip
        env = os.environ | {f"BYLINE_GATEWAY_{name}": value for name, value in given.items()}
        url = f"http://127.0.0.1:{port}"
        program = GatewayProgram(url, keys, engine, home, server, redis, env)
        try:
            yield program
        finally:
            program.stop()
