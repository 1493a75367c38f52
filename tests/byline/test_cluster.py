"""Ledgers in a real cluster of six: found by slot, and nothing is lost when a primary is.

Every post is asked to be on a replica before it counts; what was answered so is recorded here,
outside the cluster, and must be in the journal exactly once at the end.
"""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from byline.api_keys import KEYS as API_KEYS
from byline.api_keys import ApiKeys
from byline.errors import (
    LedgerFenced,
    LedgerMisconfigured,
    LedgerUnavailable,
    LedgerUnconfirmed,
)
from byline.jobs import Jobs
from byline.ledger.ledger import Ledger
from byline.ledger.shards import Shards
from byline.posting.cluster import located, primary_id
from byline.posting.keys import Keys
from byline.posting.redis_client import connect
from byline.records import KeyRole, Posted
from byline.redis_server import RedisServer, running_redis
from tests.byline.cases import HOLD_MS, NOW_MS, a_capture, an_attribution, captured, event_id
from tests.byline.six_nodes import Cluster, Node, cluster_ports, node_server, six_nodes, until

pytestmark = pytest.mark.anyio

NAMES = ("usd-0", "usd-1", "usd-2", "usd-3")  # their slots lie on all three primaries
GATEWAYS = 2
APPLICATIONS = [f"application-{number}" for number in range(12)]
LOAD_SECONDS = 1.5  # before the loss, during the new primary's time alone, and after it
INSIST_SECONDS_MAX = 40.0
WRITERS = 12


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with six_nodes(tmp_path) as formed:
        yield formed


async def primary_of(cluster: Cluster, name: str) -> Node:
    return cluster.node_at(await located(cluster.url, Keys(name).tag))


async def takeover(cluster: Cluster, name: str, lost: Node) -> Node:
    """Wait until another node serves the ledger; answers it."""

    async def moved() -> bool:
        with suppress(LedgerUnavailable):
            return await primary_of(cluster, name) is not lost
        return False

    await until(moved)
    return await primary_of(cluster, name)


async def follows_again(node: Node) -> bool:
    """Is the node a replica that has caught up with its primary?"""
    with suppress(RedisError, OSError):
        async with connect(node.server.url) as client:
            role: list[str] = await client.execute_command("ROLE")
        return role[0] == "slave" and role[3] == "connected"
    return False


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "unix:///tmp/s.sock"])
async def test_other_addresses_are_left_alone(url: str) -> None:
    assert await located(url, "{ledger:usd}") == url


@pytest.mark.parametrize("rest", ["ops:secret@", "ops:secret@host", "ops:secret@host:1,"])
async def test_a_wrong_address_is_said_without_its_password(rest: str) -> None:
    with pytest.raises(LedgerMisconfigured, match="must be cluster://") as raised:
        await located(f"cluster://{rest}", "{ledger:usd}")
    assert "secret" not in str(raised.value)


async def test_no_seed_that_answers_is_unavailable() -> None:
    first, second = cluster_ports(2)
    with pytest.raises(LedgerUnavailable, match=r"find \{ledger:usd\} in the cluster") as raised:
        await located(f"cluster://127.0.0.1:{first},127.0.0.1:{second}/", "{ledger:usd}")
    assert str(first) in str(raised.value)
    assert str(second) in str(raised.value)


async def test_a_server_of_its_own_is_no_cluster(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, port=cluster_ports(1)[0])
    with running_redis(server):
        assert await primary_id(server.url) is None
        with pytest.raises(LedgerUnavailable, match="cluster support disabled"):
            await located(f"cluster://127.0.0.1:{server.port}", "{ledger:usd}")


async def test_a_slot_that_nobody_serves_is_unavailable(tmp_path: Path) -> None:
    server = node_server(tmp_path, cluster_ports(1)[0])
    seed, tag = f"cluster://127.0.0.1:{server.port}", "{ledger:usd}"
    with running_redis(server):
        async with connect(server.url) as client:
            slot = await client.execute_command("CLUSTER KEYSLOT", tag)
            other = 0 if slot else 1
            await client.execute_command("CLUSTER ADDSLOTS", other)

            async def ready() -> bool:
                state = await client.execute_command("CLUSTER INFO")
                return bool(state["cluster_state"] == "ok")

            await until(ready)
            with pytest.raises(LedgerUnavailable, match="knows nobody"):
                await located(seed, tag)
            await client.execute_command("CLUSTER ADDSLOTS", slot)
        assert await located(seed, tag) == server.url


@pytest.mark.slow
async def test_ledgers_lie_where_their_slots_are(cluster: Cluster) -> None:
    cluster.nodes[5].kill()  # a seed that is gone is passed over
    url = f"cluster://{','.join(node.address for node in reversed(cluster.nodes))}/"
    found = [cluster.node_at(await located(url, Keys(name).tag)) for name in NAMES]
    assert {cluster.nodes.index(node) for node in found} == {0, 1, 2}
    for name, node in zip(NAMES, found, strict=True):
        async with connect(node.server.url) as client:
            assert await primary_id(node.server.url) == await client.execute_command("CLUSTER MYID")
            await client.set(f"{Keys(name).tag}:probe", "here")  # no MOVED
    cluster.nodes[5].start()


@pytest.mark.slow
async def test_many_writers_raise_the_epoch_once_after_a_failover(cluster: Cluster) -> None:
    name = NAMES[0]
    writers = [await Ledger.open(cluster.url, name=name) for _ in range(WRITERS)]
    before = writers[0].epoch
    for _ in range(2):  # nothing has happened: nothing is raised
        await asyncio.gather(*(writer.rejoin() for writer in writers))
    assert {writer.epoch for writer in writers} == {before}
    lost = await primary_of(cluster, name)
    lost.kill()
    operations = [event_id() for _ in writers]
    for writer, operation in zip(writers, operations, strict=True):
        with pytest.raises(LedgerUnavailable):
            await writer.deposit(operation, "demo", 5, time_ms=NOW_MS)
    await takeover(cluster, name, lost)
    await asyncio.gather(*(writer.rejoin() for writer in writers))
    newcomer = await Ledger.open(cluster.url, name=name)
    assert {writer.epoch for writer in [*writers, newcomer]} == {before + 1}
    for writer, operation in zip(writers, operations, strict=True):
        await writer.deposit(operation, "demo", 5, time_ms=NOW_MS)
    assert await newcomer.balance("app:demo") == 5 * WRITERS
    for writer in [*writers, newcomer]:
        await writer.close()


@pytest.mark.slow
async def test_a_writer_finds_its_ledger_again_by_itself(cluster: Cluster) -> None:
    ledger = await Ledger.open(cluster.url, name=NAMES[0])
    lost = await primary_of(cluster, NAMES[0])
    lost.kill()
    operation = event_id()

    async def posted() -> bool:
        with suppress(LedgerUnavailable):
            await ledger.deposit(operation, "demo", 5, time_ms=NOW_MS)
            return True
        return False

    assert not await posted()
    await until(posted)
    assert ledger.epoch == 2
    assert await ledger.balance("app:demo") == 5  # reading follows too
    assert (await ledger.check()).journal_entries == 1
    await ledger.close()


@pytest.mark.slow
async def test_api_keys_and_jobs_are_found_again_too(cluster: Cluster) -> None:
    lost = cluster.node_at(await located(cluster.url, API_KEYS))
    name, *_ = [each for each in NAMES if await primary_of(cluster, each) is lost]
    keys = await ApiKeys.open(cluster.url)
    jobs = await Jobs.open(cluster.url, consumer="one", name=name)
    ledger = await Ledger.open(cluster.url, name=name, replicas=1)
    inference = await captured(ledger)
    secret = await keys.create(KeyRole.APPLICATION, "demo", now_ms=NOW_MS)
    lost.kill()

    async def answered() -> bool:
        with suppress(LedgerUnavailable):
            await keys.find(secret)
            await ledger.inference(inference)
            return bool(await jobs.claim(count=1, block_ms=100))
        return False

    assert not await answered()
    await until(answered)
    assert (await keys.find(secret)).subject == "demo"
    assert await jobs.claim(count=1, block_ms=0) == []
    for opened in (keys, jobs, ledger):
        await opened.close()


@pytest.mark.slow
async def test_a_writer_that_missed_a_failover_is_fenced_until_it_rejoins(
    cluster: Cluster,
) -> None:
    first = await primary_of(cluster, NAMES[0])
    awake = await Ledger.open(cluster.url, name=NAMES[0])
    asleep = await Ledger.open(first.server.url, name=NAMES[0])  # that knows of no cluster
    await asleep.deposit(event_id(), "demo", 100, time_ms=NOW_MS)
    second = cluster.replica_of(first)
    for old, new in ((first, second), (second, first)):  # there and back again
        async with connect(new.server.url) as client:
            await client.execute_command("CLUSTER FAILOVER")
        assert await takeover(cluster, NAMES[0], old) is new
        await until(partial(follows_again, old))
        if new is second:
            await awake.rejoin()
            await awake.deposit(event_id(), "demo", 10, time_ms=NOW_MS)
    operation = event_id()
    with pytest.raises(LedgerFenced):
        await asleep.deposit(operation, "demo", 1, time_ms=NOW_MS)
    await asleep.rejoin()
    await asleep.deposit(operation, "demo", 1, time_ms=NOW_MS)
    assert await asleep.balance("app:demo") == 111
    for ledger in (awake, asleep):
        await ledger.rejoin()
        assert (await ledger.check()).balanced
        await ledger.close()


@pytest.mark.slow
async def test_an_old_primary_that_is_cut_off_is_not_written_to(cluster: Cluster) -> None:
    name = NAMES[0]
    ledger = await Ledger.open(cluster.url, name=name)
    lost = await primary_of(cluster, name)
    lost.kill()
    await takeover(cluster, name, lost)
    others = [node for node in cluster.nodes if node is not lost]
    for node in others:
        os.kill(node.process.pid, signal.SIGSTOP)
    try:
        lost.start()
        with pytest.raises(LedgerUnavailable, match="state is fail"):
            await located(f"cluster://{lost.address}", Keys(name).tag)
        stale = connect(lost.server.url)
        with pytest.raises(RedisError, match="cluster is down"):
            await stale.hset(Keys(name).meta, "epoch", "9")
        await stale.aclose()
    finally:
        for node in others:
            os.kill(node.process.pid, signal.SIGCONT)
    await until(partial(follows_again, lost))
    await takeover(cluster, name, lost)
    await ledger.rejoin()
    await ledger.deposit(event_id(), "demo", 7, time_ms=NOW_MS)
    assert await ledger.balance("app:demo") == 7
    await ledger.close()


@dataclass(slots=True)
class Load:
    """Gateways that answer for every application until told to stop, and what they were told."""

    gateways: list[Shards]
    acknowledged: dict[str, dict[str, int]] = field(
        default_factory=lambda: {name: {} for name in NAMES}
    )  # shard -> event key -> sequence number
    troubles: Counter[str] = field(default_factory=Counter)
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> int:
        """Answers given, once `finished` is set."""
        flows = (
            self._flow(shards, application)
            for shards in self.gateways
            for application in APPLICATIONS
        )
        return sum(await asyncio.gather(*flows))

    async def _flow(self, shards: Shards, application: str) -> int:
        shard, answers = shards.name_of(application), 0
        await self._deposit(shards.ledgers[shard], shard, application)
        while not self.finished.is_set():
            await self._answer(shards.ledgers[shard], shard, application)
            answers += 1
        return answers

    async def _deposit(self, ledger: Ledger, shard: str, application: str) -> None:
        operation = event_id()
        deposit = partial(ledger.deposit, operation, application, 10**9, time_ms=NOW_MS)
        await self._insist(ledger, shard, f"{operation}/deposit/0", deposit)

    async def _answer(self, ledger: Ledger, shard: str, application: str) -> None:
        """A tenth is voided; the rest is captured and settled."""
        inference = event_id()
        hold = partial(
            ledger.hold, inference, application, 1_000, expires_ms=NOW_MS + HOLD_MS, time_ms=NOW_MS
        )
        await self._insist(ledger, shard, f"{inference}/hold/0", hold)
        if random.random() < 0.1:
            void = partial(ledger.void, inference, application, time_ms=NOW_MS)
            await self._insist(ledger, shard, f"{inference}/void/0", void)
            return
        capture = partial(
            ledger.capture, a_capture(inference, application=application), time_ms=NOW_MS
        )
        await self._insist(ledger, shard, f"{inference}/capture/0", capture)
        settle = partial(ledger.settle, an_attribution(inference, unattributed=50), time_ms=NOW_MS)
        await self._insist(ledger, shard, f"{inference}/settle/0", settle)

    async def _insist(
        self, ledger: Ledger, shard: str, key: str, post: Callable[[], Awaitable[Posted]]
    ) -> None:
        """Send the same post until it is confirmed; rejoin where the ledger has moved."""
        async with asyncio.timeout(INSIST_SECONDS_MAX):
            while key not in self.acknowledged[shard]:
                try:
                    self.acknowledged[shard][key] = (await post()).seq
                except (LedgerUnavailable, LedgerFenced) as trouble:
                    self.troubles[type(trouble).__name__] += 1
                    if not isinstance(trouble, LedgerUnconfirmed):
                        # A primary that comes back may think for a moment that it still is one: it
                        # lacks entries, so it is refused, and found to be a replica next time.
                        with suppress(LedgerUnavailable, LedgerFenced):
                            await ledger.rejoin()
                    await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_a_primary_lost_under_load_loses_no_confirmed_post(cluster: Cluster) -> None:
    load = Load([await Shards.open(cluster.url, NAMES, replicas=1) for _ in range(GATEWAYS)])
    lost = await primary_of(cluster, NAMES[0])
    hit = [name for name in NAMES if await primary_of(cluster, name) is lost]
    running = asyncio.create_task(load.run())
    await asyncio.sleep(LOAD_SECONDS)

    lost.kill()
    at_the_loss = {name: len(keys) for name, keys in load.acknowledged.items()}
    began = time.monotonic()
    successor = await takeover(cluster, NAMES[0], lost)
    assert time.monotonic() - began < 20
    assert successor is cluster.replica_of(lost)
    for name in set(NAMES) - set(hit):  # the other shards went on meanwhile
        assert len(load.acknowledged[name]) > at_the_loss[name]

    await asyncio.sleep(LOAD_SECONDS)  # the new primary is alone: nothing there is confirmed
    alone = {name: len(load.acknowledged[name]) for name in hit}
    lost.start()
    await until(partial(follows_again, lost))
    await asyncio.sleep(LOAD_SECONDS)
    load.finished.set()
    answers = await running
    assert answers > 100
    assert load.troubles["LedgerUnavailable"] + load.troubles["LedgerUnconfirmed"] > 0
    for name in hit:
        assert len(load.acknowledged[name]) > alone[name]

    for name in NAMES:  # raised once, where a primary was lost, and taken by both gateways
        epochs = {shards.ledgers[name].epoch for shards in load.gateways}
        assert epochs == {2 if name in hit else 1}
    await books_are_whole(load)
    assert await follows_again(lost)
    for name in hit:
        await until(partial(same_books, name, successor, lost))
    for shards in load.gateways:
        await shards.close()


async def books_are_whole(load: Load) -> None:
    """Every shard balances, has what was acknowledged exactly once, and nothing unfinished."""
    shards = load.gateways[0]
    books = await shards.check()
    assert books.balanced
    assert books.accounts_sum_nano == 0
    assert sum((await shards.balances()).values()) == 0
    for name, ledger in shards.ledgers.items():
        keys = [(entry.key, entry.seq) async for entry in ledger.entries()]
        assert len(dict(keys)) == len(keys)
        assert dict(keys) == load.acknowledged[name]
        unfinished = await ledger.unfinished()
        assert (unfinished.holds, unfinished.pools) == (0, 0)


async def same_books(name: str, primary: Node, replica: Node) -> bool:
    """Has the replica the balances and the journal of the primary?"""
    keys, answers = Keys(name), []
    for node in (primary, replica):
        async with connect(node.server.url) as client:
            async with client.pipeline(transaction=False) as pipe:
                pipe.execute_command("READONLY")
                pipe.hgetall(keys.balances).xlen(keys.journal).hgetall(keys.meta)
                answers.append((await pipe.execute())[1:])
    return bool(answers[0] == answers[1])
