"""A post is answered when the replicas have it; what they don't have is said to be unconfirmed."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from byline.errors import LedgerFenced, LedgerUnavailable, LedgerUnconfirmed
from byline.ledger.ledger import Ledger
from byline.posting.redis_client import Client, connect
from byline.redis_server import RedisServer, stop
from tests.byline.cases import NOW_MS, event_id
from tests.byline.six_nodes import cluster_ports

pytestmark = pytest.mark.anyio
REDIS = shutil.which("redis-server")
BINARIES = [
    pytest.param(None, id="valkey-with-waitaof"),
    pytest.param(
        REDIS and Path(REDIS),
        id="redis-7.0-with-wait",
        marks=pytest.mark.skipif(REDIS is None, reason="no redis-server: apt-get install redis"),
    ),
]
TIMEOUT_SECONDS = 2.0


@dataclass
class Node:
    """One server, and its process while it runs."""

    server: RedisServer
    process: subprocess.Popen[bytes]
    client: Client

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        self.process = self.server.start()

    @asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """It does nothing as long as the block."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    async def follow(self, primary: "Node") -> None:
        """Become its replica, and wait until it is one."""
        await self.client.replicaof("127.0.0.1", str(primary.server.port))
        for _ in range(400):
            info = await self.client.info("replication")
            if info["role"] == "slave" and info["master_link_status"] == "up":
                return
            await asyncio.sleep(0.025)
        raise AssertionError("the replica did not follow")


@dataclass
class Pair:
    """Two servers, and one address that can be pointed at either: as a failover does."""

    first: Node
    second: Node
    link: Path

    @property
    def url(self) -> str:
        return f"unix://{self.link}"

    def point_at(self, node: Node) -> None:
        assert node.server.unix_socket is not None
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(node.server.unix_socket)


@pytest.fixture(params=BINARIES)
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    nodes = []
    for name, port in zip("ab", cluster_ports(2), strict=True):
        server = RedisServer(
            tmp_path / name,
            port=port,
            unix_socket=tmp_path / f"{name}.sock",
            binary=request.param,
            settings={"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"},
        )
        nodes.append(Node(server, server.start(), connect(server.url, timeout_seconds=5.0)))
    first, second = nodes
    pair = Pair(first, second, tmp_path / "current.sock")
    pair.point_at(pair.first)
    await pair.second.follow(pair.first)
    yield pair
    for node in nodes:
        await node.client.aclose()
        stop(node.process)


async def opened(pair: Pair, outcomes: Counter[str] | None = None, *, replicas: int = 1) -> Ledger:
    return await Ledger.open(
        pair.url,
        timeout_seconds=TIMEOUT_SECONDS,
        replicas=replicas,
        observe=lambda _, outcome, __: outcomes.update([outcome]) if outcomes is not None else None,
    )


async def test_what_a_paused_replica_lacks_is_unconfirmed_until_it_is_sent_again(
    pair: Pair,
) -> None:
    outcomes: Counter[str] = Counter()
    ledger = await opened(pair, outcomes)
    await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    operation = event_id()
    async with pair.second.stopped():
        with pytest.raises(LedgerUnconfirmed, match="posted as 2, and it is on 0 of 1 replicas"):
            await ledger.deposit(operation, "demo", 2, time_ms=NOW_MS)
        with pytest.raises(LedgerUnconfirmed):  # a duplicate is no more confirmed than the post
            await ledger.deposit(operation, "demo", 2, time_ms=NOW_MS)
        with pytest.raises(LedgerUnconfirmed):
            await ledger.confirm()
    assert (await ledger.deposit(operation, "demo", 2, time_ms=NOW_MS)).duplicate
    await ledger.confirm()
    assert outcomes == {"posted": 1, "unconfirmed": 2, "duplicate": 1}
    assert await pair.second.client.hget("{ledger:usd}:balances", "app:demo") == "3"
    await ledger.close()


async def test_confirmed_posts_go_on_together(pair: Pair) -> None:
    ledger = await opened(pair)
    operations = [event_id() for _ in range(300)]
    await asyncio.gather(*(ledger.deposit(each, "demo", 1, time_ms=NOW_MS) for each in operations))
    assert await pair.second.client.hget("{ledger:usd}:balances", "app:demo") == "300"
    await ledger.close()


async def test_a_ledger_opens_without_its_replicas_and_confirms_nothing(pair: Pair) -> None:
    ledger = await opened(pair, replicas=2)
    with pytest.raises(LedgerUnconfirmed, match="on 1 of 2 replicas"):
        await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    await ledger.close()
    ledger = await opened(pair, replicas=0)
    await ledger.confirm()  # nothing to wait for
    await ledger.close()


async def test_after_a_failover_unknown_posts_are_sent_again_and_post_once(pair: Pair) -> None:
    outcomes: Counter[str] = Counter()
    writer, sleeper = await opened(pair, outcomes), await opened(pair)
    confirmed = [event_id() for _ in range(50)]
    await asyncio.gather(*(writer.deposit(each, "demo", 1, time_ms=NOW_MS) for each in confirmed))
    await sleeper.deposit(event_id(), "demo", 1_000, time_ms=NOW_MS)

    on_the_way = [event_id() for _ in range(400)]
    posts = asyncio.gather(
        *(writer.deposit(each, "demo", 1, time_ms=NOW_MS) for each in on_the_way),
        return_exceptions=True,
    )
    await asyncio.sleep(0.01)
    pair.first.kill()
    pair.point_at(pair.second)
    await pair.second.client.replicaof("no", "one")
    first = await posts
    assert any(isinstance(answer, LedgerUnavailable) for answer in first)
    assert not any(isinstance(answer, LedgerFenced) for answer in first)

    operator = await opened(pair)
    with pytest.raises(LedgerUnconfirmed):
        await operator.promote()
    pair.first.start()  # what was the primary follows now
    await pair.first.follow(pair.second)
    await operator.confirm()
    assert await pair.first.client.hget("{ledger:usd}:meta", "epoch") == "2"

    with pytest.raises(LedgerFenced):
        await sleeper.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    await writer.rejoin()
    everything = [*confirmed, *on_the_way]
    again = await asyncio.gather(
        *(writer.deposit(each, "demo", 1, time_ms=NOW_MS) for each in everything)
    )
    assert all(answer.duplicate for answer in again[:50])  # confirmed is kept
    books = await writer.check()
    assert books.balanced
    assert books.journal_entries == 451
    assert await writer.balance("app:demo") == 1_450
    for ledger in (writer, sleeper, operator):
        await ledger.close()


async def test_an_old_primary_is_neither_posted_to_nor_joined_nor_promoted(pair: Pair) -> None:
    writer, witness = await opened(pair, replicas=0), await opened(pair)
    await writer.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    await witness.confirm()
    await witness.close()
    await pair.second.client.replicaof("no", "one")
    pair.point_at(pair.second)
    assert await writer.promote() == 2
    await writer.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    pair.point_at(pair.first)  # somebody's mistake
    with pytest.raises(LedgerFenced, match="epoch is 1, this writer has 2: it is an old primary"):
        await writer.rejoin()
    with pytest.raises(LedgerFenced, match="old primary"):
        await writer.promote()
    await writer.deposit(event_id(), "demo", 1, time_ms=NOW_MS)  # still to where it was
    await pair.second.client.execute_command("CLIENT KILL TYPE normal SKIPME yes")
    await asyncio.sleep(0.05)
    with pytest.raises(LedgerFenced, match="old primary"):
        await writer.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    assert await pair.first.client.hget("{ledger:usd}:meta", "epoch") == "1"
    assert await pair.first.client.hget("{ledger:usd}:balances", "app:demo") == "1"
    assert await pair.second.client.hget("{ledger:usd}:balances", "app:demo") == "3"
    await writer.close()
