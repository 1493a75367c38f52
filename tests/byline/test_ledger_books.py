"""The books are checked against the journal; what does not agree stops posting."""

import json

import pytest

from byline.canonical import canonical_text
from byline.errors import (
    KeyConflict,
    LedgerDamaged,
    LedgerFenced,
    LedgerFrozen,
    LedgerMisconfigured,
    LedgerRefused,
)  # fmt: skip
from byline.ledger import journal
from byline.ledger.ledger import Ledger
from byline.limits import LEG_NANO_MAX
from byline.posting.keys import Keys
from byline.posting.redis_client import Client
from tests.byline.cases import NOW_MS, an_attribution, captured, event_id, held, refuses

pytestmark = pytest.mark.anyio


async def test_a_frozen_ledger_posts_nothing_until_it_is_thawed(ledger: Ledger) -> None:
    operation = event_id()
    await ledger.deposit(operation, "demo", 1, time_ms=NOW_MS)
    await ledger.freeze("the books drift")
    call = ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    await refuses(ledger, call, LedgerFrozen, "the books drift")
    assert (await ledger.deposit(operation, "demo", 1, time_ms=NOW_MS)).duplicate
    assert (await ledger.unfinished()).frozen == "the books drift"
    await ledger.thaw()
    await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)


async def test_the_gauges_count_what_waits(ledger: Ledger) -> None:
    assert (await ledger.unfinished()).oldest_pool_ms is None
    await held(ledger)
    inference = await captured(ledger, (200, 300))
    waiting = await ledger.unfinished()
    assert (waiting.holds, waiting.pools, waiting.oldest_pool_ms) == (1, 2, NOW_MS)
    assert waiting.journal_entries == 5
    await ledger.settle(an_attribution(inference, pool=200), time_ms=NOW_MS)
    assert (await ledger.unfinished()).pools == 1


async def test_a_stale_writer_is_fenced_after_a_rebuild(
    ledger: Ledger, ledger_name: str, redis_url: str
) -> None:
    await captured(ledger)
    before = await ledger.balances()
    other = await Ledger.open(redis_url, name=ledger_name)
    assert await other.rebuild() == before
    call = ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    await refuses(ledger, call, LedgerFenced, "epoch is 2")
    await other.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    await other.close()


async def test_lost_and_wrong_balances_are_found_and_rebuilt(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    inference = await captured(ledger)
    before = await ledger.balances()
    balances = Keys(ledger_name).balances
    await redis.hincrby(balances, "platform", 1)
    await redis.hdel(balances, f"open:{inference}")
    books = await ledger.check()
    assert not books.balanced
    assert books.drifting_accounts == {f"open:{inference}": (500, 0), "platform": (400, 401)}
    await redis.delete(balances)
    await ledger.rebuild()
    assert await ledger.balances() == before
    assert (await ledger.check()).balanced


async def test_an_empty_ledger_can_be_checked_and_rebuilt(ledger: Ledger) -> None:
    assert (await ledger.check()).balanced
    assert await ledger.rebuild() == {}


async def test_a_long_journal_is_read_a_page_at_a_time(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PAGE", 2)
    await captured(ledger)
    await held(ledger)
    assert [entry.seq async for entry in ledger.entries()] == [1, 2, 3, 4, 5]
    assert (await ledger.check()).journal_entries == 5
    balances = await ledger.balances()
    assert await ledger.rebuild() == balances


async def test_a_rebuild_is_given_up_when_the_journal_grows_meanwhile(
    ledger: Ledger, ledger_name: str, redis: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def grow(*_: object) -> None:
        await redis.xadd(Keys(ledger_name).journal, {"e": "{}"}, id="4-1")

    monkeypatch.setattr(journal.Journal, "_write_folded", grow)
    await captured(ledger)
    before = await ledger.balances()
    with pytest.raises(LedgerRefused, match="grew meanwhile"):
        await ledger.rebuild()
    assert await ledger.balances() == before


@pytest.mark.parametrize("text", ["{", '{"v":1}', None])
async def test_a_broken_journal_is_found_and_not_rebuilt_from(
    ledger: Ledger, ledger_name: str, redis: Client, text: str | None
) -> None:
    keys = Keys(ledger_name)
    await captured(ledger)
    last = json.loads((await redis.xrange(keys.journal))[-1][1]["e"])
    last["legs"][0][1] = "-1"  # and its seq is not that of the stream either
    await redis.xadd(keys.journal, {"e": text or canonical_text(last)}, id="4-1")
    await redis.hset(keys.meta, "seq", 4)
    assert 4 in (await ledger.check()).unbalanced_entries
    with pytest.raises(LedgerRefused, match="journal is broken"):
        await ledger.rebuild()
    with pytest.raises(LedgerFrozen):
        await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)


@pytest.mark.parametrize(("missing", "gaps"), [("2-1", (2,)), ("3-1", (3,))])
async def test_a_missing_entry_is_a_gap(
    ledger: Ledger, ledger_name: str, redis: Client, missing: str, gaps: tuple[int, ...]
) -> None:
    await captured(ledger)
    await redis.xdel(Keys(ledger_name).journal, missing)
    assert (await ledger.check()).gaps == gaps


async def test_nothing_is_posted_behind_a_journal_that_has_lost_its_end(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    keys = Keys(ledger_name)
    await captured(ledger)
    await redis.hset(keys.meta, "seq", 2)
    assert (await ledger.check()).gaps == (3,)
    with pytest.raises(LedgerDamaged, match="does not end where"):
        await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)


async def test_a_balance_that_would_outgrow_its_digits_is_refused(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    balances = Keys(ledger_name).balances
    for account, full in (("app:demo", 10**18 - 1), ("funding", 1 - 10**18)):
        await redis.delete(balances)
        await redis.hset(balances, account, full)
        with pytest.raises(LedgerRefused, match="too many digits"):
            await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    await redis.hset(balances, "funding", "1.5")
    with pytest.raises(LedgerRefused, match="no integer"):
        await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)


async def test_large_balances_stay_exact_where_doubles_do_not(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    beyond = 2**53 + 1
    await redis.hset(Keys(ledger_name).balances, mapping={"app:demo": beyond, "funding": -beyond})
    await ledger.deposit(event_id(), "demo", LEG_NANO_MAX, time_ms=NOW_MS)
    assert await ledger.balance("app:demo") == beyond + LEG_NANO_MAX
    assert await ledger.balance("funding") == -beyond - LEG_NANO_MAX


async def test_a_journal_without_an_epoch_is_not_opened(
    ledger: Ledger, ledger_name: str, redis: Client, redis_url: str
) -> None:
    await captured(ledger)
    await redis.hdel(Keys(ledger_name).meta, "epoch")
    with pytest.raises(LedgerMisconfigured, match="no epoch"):
        await Ledger.open(redis_url, name=ledger_name)


async def test_each_post_is_observed_with_its_outcome(redis_url: str, ledger_name: str) -> None:
    seen: list[tuple[str, str]] = []
    ledger = await Ledger.open(
        redis_url, name=ledger_name, observe=lambda operation, how, _: seen.append((operation, how))
    )
    operation = event_id()
    for nano in (1, 1, 2):
        try:
            await ledger.deposit(operation, "demo", nano, time_ms=NOW_MS)
        except KeyConflict:
            continue
    await ledger.ping()
    await ledger.close()
    assert seen == [("deposit", "posted"), ("deposit", "duplicate"), ("deposit", "refused")]


async def test_a_frozen_or_fenced_writer_says_that_it_could_not_post(
    redis_url: str, ledger_name: str, ledger: Ledger
) -> None:
    await ledger.ping()
    await ledger.freeze("a drill")
    with pytest.raises(LedgerFrozen, match="a drill"):
        await ledger.ping()
    await ledger.thaw()
    other = await Ledger.open(redis_url, name=ledger_name)
    try:
        await other.rebuild()
        await other.ping()
    finally:
        await other.close()
    with pytest.raises(LedgerFenced, match="epoch"):
        await ledger.ping()


@pytest.mark.parametrize("url", ["zzz", "http://127.0.0.1:1", "redis//secret@host"])
async def test_an_address_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(LedgerMisconfigured) as refused:
        await Ledger.open(url)
    assert "secret" not in str(refused.value)
