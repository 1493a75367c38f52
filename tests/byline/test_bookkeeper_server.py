"""A server that is made unsafe while posters are connected to it is found; lost jobs come back."""

from collections.abc import AsyncIterator, Iterator

import pytest

from byline.bookkeeping.bookkeeper import Bookkeeper
from byline.bookkeeping.findings import Kind
from byline.bookkeeping.gauges import BooksMetrics
from byline.bookkeeping.lost_jobs import GRACE_MS, LOOK_EVERY_MS
from byline.errors import LedgerFrozen
from byline.jobs import Jobs
from byline.ledger.ledger import Ledger
from byline.posting.keys import Keys
from byline.posting.redis_client import Client, connect
from byline.redis_server import RedisServer, running_redis
from tests.byline.cases import NOW_MS, an_attribution, captured, event_id

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def own_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose settings these tests may change."""
    folder = tmp_path_factory.mktemp("own")
    server = RedisServer(folder, unix_socket=folder / "s.sock")
    with running_redis(server):
        yield server.url


@pytest.fixture
async def own_ledger(own_url: str, ledger_name: str) -> AsyncIterator[Ledger]:
    opened = await Ledger.open(own_url, name=ledger_name)
    yield opened
    await opened.close()


@pytest.fixture
async def own_redis(own_url: str) -> AsyncIterator[Client]:
    client = connect(own_url)
    yield client
    await client.aclose()


@pytest.mark.parametrize(
    ("setting", "value", "safe"),
    [
        ("appendonly", "no", "yes"),
        ("appendfsync", "everysec", "always"),
        ("no-appendfsync-on-rewrite", "yes", "no"),
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
    ],
)
async def test_settings_that_are_changed_under_connected_posters_freeze_the_ledger(
    own_ledger: Ledger, ledger_name: str, own_redis: Client, setting: str, value: str, safe: str
) -> None:
    await captured(own_ledger)
    metrics = BooksMetrics()
    bookkeeper = Bookkeeper(
        own_ledger, None, name=ledger_name, observe=lambda found: metrics.observe("usd", found)
    )
    assert (await bookkeeper.once(NOW_MS)).balanced
    try:
        await own_redis.config_set(setting, value)
        (finding,) = (await bookkeeper.once(NOW_MS)).found
    finally:
        await own_redis.config_set(setting, safe)
    assert finding.kind is Kind.SERVER
    assert f"{setting} is '{value}', not '{safe}'" in finding.says
    gauge = "byline_books_unsafe_servers"
    assert metrics.registry.get_sample_value(gauge, {"ledger": "usd"}) == 1
    with pytest.raises(LedgerFrozen, match=setting):
        await own_ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    assert (await bookkeeper.once(NOW_MS)).balanced
    await own_ledger.thaw()
    await own_ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)


async def test_without_maxmemory_the_machines_memory_is_the_bound(
    own_ledger: Ledger, ledger_name: str, own_redis: Client
) -> None:
    bookkeeper = Bookkeeper(own_ledger, None, name=ledger_name)
    before = (await bookkeeper.once(NOW_MS)).figures.memory_used_ratio
    (bound,) = (await own_redis.config_get("maxmemory")).values()
    try:
        await own_redis.config_set("maxmemory", "0")
        findings = await bookkeeper.once(NOW_MS)
    finally:
        await own_redis.config_set("maxmemory", bound)
    assert findings.balanced
    assert 0 < findings.figures.memory_used_ratio < before


async def test_the_job_of_an_old_pool_is_made_again_once_and_counted(
    ledger: Ledger, ledger_name: str, redis: Client, redis_url: str
) -> None:
    keys, later = Keys(ledger_name), NOW_MS + GRACE_MS
    metrics = BooksMetrics()
    bookkeeper = Bookkeeper(
        ledger, None, name=ledger_name, observe=lambda found: metrics.observe("usd", found)
    )
    lost, *_ = [await captured(ledger) for _ in range(3)]  # lost, claimed, and waiting
    jobs = await Jobs.open(redis_url, consumer="one", name=ledger_name)
    (first,) = await jobs.claim(count=1, block_ms=0)
    await jobs.acknowledge(first)  # without having settled it
    assert first.inference == lost
    await jobs.claim(count=1, block_ms=0)
    young = await bookkeeper.once(later - 1)
    assert (young.balanced, young.figures.restored_jobs) == (True, 0)
    assert (await bookkeeper.once(later)).figures.restored_jobs == 0  # not again so soon
    later += LOOK_EVERY_MS
    findings = await bookkeeper.once(later)
    assert (findings.balanced, findings.figures.restored_jobs) == (True, 1)
    again = await bookkeeper.once(later + LOOK_EVERY_MS)
    assert again.figures.restored_jobs == 0
    assert await redis.xlen(keys.jobs) == 3
    (_, new) = await jobs.claim(count=9, block_ms=0)
    assert new.inference == lost
    await ledger.settle(an_attribution(lost), time_ms=later)
    await jobs.close()
    name = "byline_books_restored_jobs_total"
    assert metrics.registry.get_sample_value(name, {"ledger": "usd"}) == 1


async def test_a_pool_whose_record_is_lost_too_is_shown(
    ledger: Ledger, ledger_name: str, redis: Client, caplog: pytest.LogCaptureFixture
) -> None:
    keys = Keys(ledger_name)
    inference, other = await captured(ledger), await captured(ledger)
    await redis.delete(keys.jobs)
    await redis.xadd(keys.jobs, {"job": "no job"})
    await redis.hset(keys.inference(inference), "capture", "no record")
    bookkeeper = Bookkeeper(ledger, None, name=ledger_name)
    findings = await bookkeeper.once(NOW_MS + GRACE_MS)
    assert findings.balanced
    assert (findings.figures.restored_jobs, findings.figures.jobless_pools) == (1, 1)
    assert f"open:{inference}" in caplog.text
    assert f"open:{other}" not in caplog.text


async def test_nothing_is_enqueued_while_something_is_wrong(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    keys = Keys(ledger_name)
    await captured(ledger)
    await redis.delete(keys.jobs)
    await redis.hincrby(keys.balances, "platform", 1)
    findings = await Bookkeeper(ledger, None, name=ledger_name).once(NOW_MS + GRACE_MS)
    assert (findings.balanced, findings.figures.restored_jobs) == (False, 0)
    assert not await redis.exists(keys.jobs)
