"""Our gateway with everything on, and its books: a real home, a real server that syncs each write.

The program itself (`python -m gateway`), an application with money and an API key, one adapter, so
that every answer is held for, captured with its contributors' pool, and its tokens kept.
"""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from uuid_utils import uuid7

from byline.api_keys import ApiKeys
from byline.artifacts import ArtifactStore
from byline.canonical import Json, canonical_text
from byline.home import Home
from byline.ledger.ledger import Ledger
from byline.posting.redis_client import connect
from byline.records import AdapterVersion, KeyRole, Release
from byline.redis_server import RedisServer
from byline.registry import write_release
from byline.routing.text import COLUMNS
from loadtests.gateway_bench.peers import Command
from loadtests.ledger_bench.operations import now_ms

LEDGER = "usd"
APPLICATION = "bench"
ADAPTER = "bench-adapter"
FUNDS_NANO = 999 * 10**9  # the most that one deposit may be; an answer costs some 10**4
BOOKS_SECONDS = 120.0
KEPT = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}


@dataclass(frozen=True, slots=True)
class Account:
    """What the books say at the end."""

    holds: int
    captures: int
    voids: int
    asked: int  # the stand-in engine's own count
    balanced: bool
    settings: dict[str, str]  # of the server, read back

    @property
    def whole(self) -> bool:
        """Every question was held for and charged, or given back; nothing is missing or double."""
        return (
            self.balanced
            and self.holds == self.captures + self.voids
            and self.captures <= self.asked <= self.holds
            and self.settings == KEPT
        )


def redis_server(folder: Path, port: int) -> RedisServer:
    """With room for the whole run; its file is not rewritten in the middle."""
    return RedisServer(
        folder, port=port, maxmemory="8gb", settings={"auto-aof-rewrite-percentage": "0"}
    )


def write_home(folder: Path) -> None:
    """A home that serves one adapter, with a router that nobody asks."""
    home = Home(folder)
    store = ArtifactStore(home.artifacts)
    recipe: dict[str, Json] = {"for": "bench"}
    with store.build("router", "router", recipe) as partial:
        described: dict[str, Json] = {"adapters": [ADAPTER], "floor": 0.5}
        (partial / "router.json").write_text(canonical_text(described))
        np.savez(
            partial / "weights.npz",
            columns=np.zeros((COLUMNS, 2), np.float32), bias=np.zeros(2, np.float32),
            words=np.array(["word"]), word_weights=np.zeros((1, 2), np.float32),
        )  # fmt: skip
    router = store.find("router", recipe)
    assert router is not None
    version, base = f"{ADAPTER}@0123456789ab", "base@0123456789ab"
    adapter = AdapterVersion(
        adapter=ADAPTER, version=version, path=f"adapters/{version}", owner="bench",
        base_model="base", dataset="data@0123456789ab", index="index@0123456789ab",
    )  # fmt: skip
    place = home.artifacts / adapter.path / "adapter_config.json"
    place.parent.mkdir(parents=True)
    fits: dict[str, Json] = {"base_model_name_or_path": base, "r": 8, "target_modules": ["q_proj"]}
    place.write_text(canonical_text(fits))
    release = Release("base", f"base/{base}", 2_048, (adapter,), router.reference)
    write_release(home.release, release)


async def opened(redis_url: str) -> str:
    """An application with money; answers its API key."""
    ledger = await Ledger.open(redis_url, name=LEDGER)
    await ledger.deposit(str(uuid7()), APPLICATION, FUNDS_NANO, time_ms=now_ms())
    await ledger.close()
    keys = await ApiKeys.open(redis_url)
    secret = await keys.create(KeyRole.APPLICATION, APPLICATION, now_ms=now_ms())
    await keys.close()
    return secret


def command(folder: Path, port: int, upstream: int, redis_url: str, secret: str) -> Command:
    """The gateway as anybody starts it."""
    return Command(
        [sys.executable, "-m", "gateway"],
        {
            "BYLINE_GATEWAY_HOME": str(folder),
            "BYLINE_GATEWAY_PORT": str(port),
            "BYLINE_GATEWAY_REDIS_URL": redis_url,
            "BYLINE_GATEWAY_ENGINE_URLS": f"http://127.0.0.1:{upstream}",
            "BYLINE_GATEWAY_LOG_LEVEL": "WARNING",
        },
        model=ADAPTER,
        headers={"authorization": f"Bearer {secret}"},
    )


async def account(redis_url: str, asked: int) -> Account:
    """The books when the gateway has stopped: the journal read to its end, and folded."""
    ledger = await Ledger.open(redis_url, name=LEDGER, timeout_seconds=BOOKS_SECONDS)
    kinds = Counter([entry.key.split("/")[1] async for entry in ledger.entries()])
    books = await ledger.check()
    await ledger.close()
    async with connect(redis_url) as redis:
        settings = {name: (await redis.config_get(name))[name] for name in KEPT}
    return Account(
        holds=kinds["hold"],
        captures=kinds["capture"],
        voids=kinds["void"] + kinds["expire"],
        asked=asked,
        balanced=books.balanced,
        settings=settings,
    )
