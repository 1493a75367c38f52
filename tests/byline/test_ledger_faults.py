"""Nothing that was acknowledged is lost and nothing posts twice, whatever happens to the server."""

import asyncio
import os
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from byline.errors import BylineError, LedgerMisconfigured, LedgerUnavailable
from byline.ledger.ledger import Ledger
from byline.posting.keys import Keys
from byline.posting.postings import DAY_MS, OPERATIONS
from byline.posting.redis_client import Client, connect
from byline.records import Posted
from byline.redis_server import RedisServer, running_redis, stop
from tests.byline.cases import HOLD_MS, NOW_MS, a_capture, an_attribution, event_id, held

pytestmark = pytest.mark.anyio
KILLS = 4
FLOWS = 8  # callers at once
TIMEOUT_SECONDS = 0.25
Acknowledged = dict[str, int]  # event key -> seq


@pytest.fixture
def server(tmp_path: Path) -> RedisServer:
    return RedisServer(tmp_path / "data", unix_socket=tmp_path / "s.sock")


@pytest.fixture
def running(server: RedisServer) -> Iterator[int]:
    """The process id of a server of this test alone."""
    with running_redis(server) as process:
        yield process.pid


@pytest.fixture
async def own(server: RedisServer, running: int) -> AsyncIterator[Client]:
    client = connect(server.url)
    yield client
    await client.aclose()


@pytest.fixture
async def own_ledger(server: RedisServer, running: int) -> AsyncIterator[Ledger]:
    opened = await Ledger.open(server.url, timeout_seconds=TIMEOUT_SECONDS)
    yield opened
    await opened.close()


async def until_answered(call: Callable[[], Awaitable[Posted]]) -> Posted:
    """Send again, under the same key, until there is an answer: what every caller does."""
    while True:
        try:
            return await call()
        except LedgerUnavailable:
            await asyncio.sleep(0.01)


async def one_answer(ledger: Ledger, acknowledged: Acknowledged) -> None:
    """Deposit, hold, capture and settle, each acknowledged at last."""
    operation, inference = event_id(), event_id()
    steps: dict[str, Callable[[], Awaitable[Posted]]] = {
        f"{operation}/deposit/0": lambda: ledger.deposit(operation, "demo", 1_000, time_ms=NOW_MS),
        f"{inference}/hold/0": lambda: ledger.hold(
            inference, "demo", 1_000, expires_ms=NOW_MS + HOLD_MS, time_ms=NOW_MS
        ),
        f"{inference}/capture/0": lambda: ledger.capture(a_capture(inference), time_ms=NOW_MS),
        f"{inference}/settle/0": lambda: ledger.settle(an_attribution(inference), time_ms=NOW_MS),
    }
    for key, step in steps.items():
        acknowledged[key] = (await until_answered(step)).seq


async def test_a_server_killed_in_mid_traffic_loses_and_doubles_nothing(
    server: RedisServer,
) -> None:
    process = server.start()
    outcomes: Counter[str] = Counter()
    ledger = await Ledger.open(
        server.url, timeout_seconds=1.0, observe=lambda _, outcome, __: outcomes.update([outcome])
    )
    acknowledged: Acknowledged = {}
    finished = asyncio.Event()

    async def caller() -> int:
        answers = 0
        while not finished.is_set():
            await one_answer(ledger, acknowledged)
            answers += 1
        return answers

    callers = [asyncio.create_task(caller()) for _ in range(FLOWS)]
    for turn in range(KILLS):
        await asyncio.sleep(0.15 + 0.07 * turn)
        process.kill()
        process.wait()
        process = server.start()
    finished.set()
    answers = sum(await asyncio.gather(*callers))

    keys = [(entry.key, entry.seq) async for entry in ledger.entries()]
    assert dict(keys) == acknowledged  # each acknowledged once, under the number it was told
    assert len(keys) == len(acknowledged) == 4 * answers
    assert (await ledger.check()).balanced
    assert await ledger.balance("contrib:alice") == 500 * answers
    assert outcomes["unknown"] > 0
    await ledger.close()
    stop(process)


async def entries_of(server: RedisServer) -> tuple[list[str], dict[str, int]]:
    """Start it, check its books, and tell the journal's keys and the balances."""
    with running_redis(server):
        ledger = await Ledger.open(server.url)
        assert (await ledger.check()).balanced
        keys = [entry.key async for entry in ledger.entries()]
        buckets = [Keys("usd").marks(bucket) for bucket in (NOW_MS // DAY_MS, OPERATIONS)]
        client = connect(server.url)
        assert sorted(keys) == sorted(
            [key for marks in buckets for key in await client.hkeys(marks)]
        )
        await client.aclose()
        balances = dict(await ledger.balances())
        await ledger.close()
    return keys, balances


async def test_a_torn_append_only_file_recovers_to_whole_entries(
    server: RedisServer, tmp_path: Path
) -> None:
    with running_redis(server):
        ledger = await Ledger.open(server.url)
        for _ in range(4):
            await one_answer(ledger, {})
        await ledger.close()
    (whole,) = (server.folder / "appendonlydir").glob("*.incr.aof")
    size = whole.stat().st_size
    all_keys, _ = await entries_of(server)
    seen = set()
    for cut in (1, 2, 40, 333, 1_111, 2_500, 4_500, 7_000, 9_500, 12_000):
        folder = tmp_path / f"cut{cut}"
        shutil.copytree(server.folder, folder)
        os.truncate(folder / "appendonlydir" / whole.name, size - cut)
        torn = RedisServer(folder, unix_socket=tmp_path / f"{cut}.sock")
        keys, _ = await entries_of(torn)
        assert keys == all_keys[: len(keys)]
        seen.add(len(keys))
    assert len(all_keys) - 1 in seen  # a torn post is gone as a whole
    assert len(seen) > 3


async def test_a_stalled_server_posts_once_although_it_is_asked_twice(
    own_ledger: Ledger, running: int
) -> None:
    operation = event_id()
    os.kill(running, signal.SIGSTOP)
    try:
        with pytest.raises(LedgerUnavailable):
            await own_ledger.deposit(operation, "demo", 700, time_ms=NOW_MS)
    finally:
        os.kill(running, signal.SIGCONT)
    await own_ledger.deposit(operation, "demo", 700, time_ms=NOW_MS)
    await own_ledger.deposit(operation, "demo", 700, time_ms=NOW_MS)
    assert await own_ledger.balance("app:demo") == 700
    assert (await own_ledger.check()).journal_entries == 1


async def test_a_cancelled_callers_post_still_ends(own_ledger: Ledger, running: int) -> None:
    await own_ledger.ping()
    os.kill(running, signal.SIGSTOP)
    try:
        post = asyncio.create_task(own_ledger.deposit(event_id(), "demo", 700, time_ms=NOW_MS))
        await asyncio.sleep(0.05)
        post.cancel()
        with pytest.raises(asyncio.CancelledError):
            await post
    finally:
        os.kill(running, signal.SIGCONT)
    await own_ledger._poster.drain()
    assert await own_ledger.balance("app:demo") == 700


async def test_a_server_that_forgot_the_scripts_is_given_them_again(
    own_ledger: Ledger, own: Client
) -> None:
    inference = await held(own_ledger)
    await own.script_flush()
    assert not (await own_ledger.capture(a_capture(inference), time_ms=NOW_MS)).duplicate


@pytest.mark.parametrize("state", ["full", "replica"])
async def test_a_server_that_can_not_write_is_unavailable_and_writes_nothing(
    own_ledger: Ledger, own: Client, state: str
) -> None:
    operation = event_id()
    if state == "full":
        await own.config_set("maxmemory", "1mb")
    else:
        await own.replicaof("127.0.0.1", "1")
    with pytest.raises(LedgerUnavailable):
        await own_ledger.deposit(operation, "demo", 700, time_ms=NOW_MS)
    await own.config_set("maxmemory", "100mb")
    await own.replicaof("no", "one")
    assert (await own_ledger.check()).journal_entries == 0
    assert not (await own_ledger.deposit(operation, "demo", 700, time_ms=NOW_MS)).duplicate


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("appendfsync", "everysec"),
        ("maxmemory-policy", "allkeys-lru"),
        ("no-appendfsync-on-rewrite", "yes"),
    ],
)
async def test_a_server_that_could_lose_money_is_not_opened(
    server: RedisServer, own: Client, setting: str, value: str
) -> None:
    await own.config_set(setting, value)
    with pytest.raises(LedgerMisconfigured, match=setting):
        await Ledger.open(server.url)


async def test_missing_rights_are_a_misconfiguration(server: RedisServer, own: Client) -> None:
    await own.config_set("requirepass", "secret")
    with pytest.raises(LedgerMisconfigured, match="rights"):
        await Ledger.open(server.url)


async def test_no_server_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match="connect to the ledger"):
        await Ledger.open(f"unix://{tmp_path}/nothing.sock")


async def test_reading_from_a_dead_server_is_unavailable(server: RedisServer) -> None:
    with running_redis(server):
        ledger = await Ledger.open(server.url)
    calls: list[Awaitable[object]] = [
        ledger.ping(), ledger.balances(), ledger.balance("platform"), ledger.check(),
        ledger.inference(event_id()), ledger.unfinished(),
        ledger.expired_holds(now_ms=NOW_MS), ledger.rebuild(), ledger.freeze("x"), ledger.thaw(),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(BylineError):
            await call
    await ledger.close()


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server is installed")
async def test_redis_itself_keeps_the_same_books(tmp_path: Path) -> None:
    binary = Path(shutil.which("redis-server") or "")
    server = RedisServer(tmp_path, unix_socket=tmp_path / "s.sock", binary=binary)
    with running_redis(server):
        ledger = await Ledger.open(server.url)
        for _ in range(3):
            await one_answer(ledger, {})
        await ledger.close()
    keys, balances = await entries_of(server)
    assert len(keys) == 12
    assert sum(balances.values()) == 0
