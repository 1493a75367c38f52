"""Whatever is changed behind the ledger's back is found, and stops posting; nothing else does."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from byline.bookkeeping import imprints, live, patrol
from byline.bookkeeping.bookkeeper import Bookkeeper
from byline.bookkeeping.figures import balances_shown
from byline.bookkeeping.findings import Finding, Findings, Kind
from byline.bookkeeping.live import LiveBooks
from byline.errors import LedgerFenced, LedgerFrozen, LedgerRefused, LedgerUnavailable
from byline.ledger import journal
from byline.ledger.books import Page
from byline.ledger.journal import Journal
from byline.ledger.ledger import Ledger
from byline.posting.keys import Keys
from byline.posting.postings import DAY_MS
from byline.posting.redis_client import Client
from tests.byline.cases import (
    HOLD_MS,
    NOW_MS,
    a_capture,
    an_attribution,
    captured,
    event_id,
    expired,
    held,
)

pytestmark = pytest.mark.anyio

DAY = NOW_MS // DAY_MS


async def some_history(ledger: Ledger) -> str:
    """Something of everything: a hold, an open pool, a settled and an expired inference."""
    await expired(ledger)
    await held(ledger)
    await ledger.settle(an_attribution(await captured(ledger)), time_ms=NOW_MS)
    return await captured(ledger, (200, 300))


async def rewrite(redis: Client, keys: Keys, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the third entry, an expire: the stream is written anew around it."""
    entries = await redis.xrange(keys.journal)
    await redis.delete(keys.journal)
    for stream_id, fields in entries:
        entry = json.loads(fields["e"])
        if stream_id == "3-1":
            change(entry)
            fields["e"] = json.dumps(entry, separators=(",", ":"), sort_keys=True)
        await redis.xadd(keys.journal, fields, id=stream_id)


async def change_balance(redis: Client, keys: Keys) -> None:
    await redis.hincrby(keys.balances, "platform", 1)


async def lose_balance(redis: Client, keys: Keys) -> None:
    await redis.hdel(keys.balances, "platform")


async def invent_balance(redis: Client, keys: Keys) -> None:
    await redis.hset(keys.balances, "contrib:mallory", "5")


async def spoil_balance(redis: Client, keys: Keys) -> None:
    await redis.hset(keys.balances, "platform", "much")


async def delete_entry(redis: Client, keys: Keys) -> None:
    await redis.xdel(keys.journal, "3-1")


async def lose_the_end(redis: Client, keys: Keys) -> None:
    await redis.xdel(keys.journal, f"{await redis.hget(keys.meta, 'seq')}-1")


async def rewrite_amounts(redis: Client, keys: Keys) -> None:
    def change(entry: dict[str, Any]) -> None:
        entry["legs"] = [
            [account, "7" if nano[0] != "-" else "-7"] for account, nano in entry["legs"]
        ]

    await rewrite(redis, keys, change)


async def rewrite_policy(redis: Client, keys: Keys) -> None:
    await rewrite(redis, keys, lambda entry: entry.update(policy="another"))


async def drop_leg(redis: Client, keys: Keys) -> None:
    await rewrite(redis, keys, lambda entry: entry["legs"].pop())


async def remove_mark(redis: Client, keys: Keys) -> None:
    entry = json.loads((await redis.xrange(keys.journal, "3-1", "3-1"))[0][1]["e"])
    assert await redis.hdel(keys.marks(DAY), entry["key"])


async def unlist_pool(redis: Client, keys: Keys) -> None:
    await redis.zpopmin(keys.pools)


async def unlist_hold(redis: Client, keys: Keys) -> None:
    await redis.zpopmin(keys.holds)


async def list_a_pool_that_is_none(redis: Client, keys: Keys) -> None:
    await redis.zadd(keys.pools, {f"open:{event_id()}": NOW_MS})


async def trim_too_much(redis: Client, keys: Keys) -> None:
    await redis.xtrim(keys.journal, minid="3-1", approximate=False)
    await redis.hset(keys.meta, "trimmed", "2")


CORRUPTIONS = [
    (change_balance, Kind.DRIFT, "platform"),
    (lose_balance, Kind.DRIFT, "platform"),
    (invent_balance, Kind.DRIFT, "contrib:mallory"),
    (spoil_balance, Kind.DRIFT, "platform"),
    (delete_entry, Kind.GAP, "journal"),
    (lose_the_end, Kind.GAP, "journal"),
    (rewrite_amounts, Kind.REWRITTEN, "journal"),
    (rewrite_policy, Kind.REWRITTEN, "journal"),
    (drop_leg, Kind.REWRITTEN, "journal"),
    (remove_mark, Kind.MARK, "/expire/0"),
    (unlist_pool, Kind.UNLISTED, "open:"),
    (unlist_hold, Kind.UNLISTED, "hold:"),
    (list_a_pool_that_is_none, Kind.UNLISTED, "open:"),
    (trim_too_much, Kind.TRIMMED, "journal"),
]  # fmt: skip


@pytest.fixture
async def bookkeeper(ledger: Ledger, ledger_name: str) -> Bookkeeper:
    await some_history(ledger)
    return Bookkeeper(ledger, None, name=ledger_name)


async def test_sound_books_are_balanced_and_their_figures_shown(
    bookkeeper: Bookkeeper, ledger: Ledger
) -> None:
    for _ in range(3):
        findings = await bookkeeper.once(NOW_MS + 5_000)
        assert findings.balanced, findings.found
    figures = findings.figures
    assert (figures.open_holds, figures.open_pools) == (1, 2)
    assert figures.oldest_pool_seconds == 5
    assert figures.oldest_hold_seconds == 5
    assert figures.folded_seq == (await ledger.unfinished()).journal_entries
    assert (figures.conservation_error_nano, figures.lag_entries) == (0, 0)
    assert 0 < figures.memory_used_ratio < 1
    assert sum(figures.balances.values()) == 0
    assert figures.balances["pools"] == 500


@pytest.mark.parametrize(
    ("corrupt", "kind", "subject"), CORRUPTIONS, ids=[case[0].__name__ for case in CORRUPTIONS]
)
async def test_what_is_changed_behind_the_fold_is_found_and_freezes(
    bookkeeper: Bookkeeper,
    ledger: Ledger,
    ledger_name: str,
    redis: Client,
    corrupt: Callable[[Client, Keys], Awaitable[None]],
    kind: Kind,
    subject: str,
) -> None:
    assert (await bookkeeper.once(NOW_MS)).balanced
    await corrupt(redis, Keys(ledger_name))
    findings = await bookkeeper.once(NOW_MS)
    assert any(f.kind is kind and subject in f.subject for f in findings.found), findings.found
    frozen = (await ledger.unfinished()).frozen
    assert frozen is not None
    assert frozen.startswith("the bookkeeper found ")


@pytest.mark.parametrize(
    "corrupt", [case[0] for case in CORRUPTIONS if case[0] is not rewrite_policy]
)
async def test_what_was_changed_before_the_start_is_found_as_well(
    ledger: Ledger,
    ledger_name: str,
    redis: Client,
    corrupt: Callable[[Client, Keys], Awaitable[None]],
) -> None:
    await some_history(ledger)
    await corrupt(redis, Keys(ledger_name))
    bookkeeper = Bookkeeper(ledger, None, name=ledger_name)
    if corrupt is trim_too_much:  # no snapshot covers what is gone: there is nothing to begin at
        with pytest.raises(LedgerRefused, match="no snapshot covers"):
            await bookkeeper.once(NOW_MS)
        return
    assert not (await bookkeeper.once(NOW_MS)).balanced
    with pytest.raises((LedgerFrozen, LedgerRefused)):
        await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)


async def test_a_known_drift_is_in_the_conservation_gauge(
    bookkeeper: Bookkeeper, ledger_name: str, redis: Client
) -> None:
    await change_balance(redis, Keys(ledger_name))
    findings = await bookkeeper.once(NOW_MS)
    assert findings.figures.conservation_error_nano == 1
    assert findings.count(Kind.DRIFT) == 1


async def test_it_only_reports_when_it_is_told_not_to_freeze(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    await some_history(ledger)
    await change_balance(redis, Keys(ledger_name))
    bookkeeper = Bookkeeper(ledger, None, name=ledger_name, freeze=False)
    assert not (await bookkeeper.once(NOW_MS)).balanced
    assert (await ledger.unfinished()).frozen is None


async def test_the_first_reason_of_a_freeze_stays(
    bookkeeper: Bookkeeper, ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    await ledger.freeze("a drill")
    await change_balance(redis, Keys(ledger_name))
    assert not (await bookkeeper.once(NOW_MS)).balanced
    assert (await ledger.unfinished()).frozen == "a drill"


async def test_what_was_mended_is_found_no_longer(
    bookkeeper: Bookkeeper, ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    await change_balance(redis, Keys(ledger_name))
    assert not (await bookkeeper.once(NOW_MS)).balanced
    await redis.hincrby(Keys(ledger_name).balances, "platform", -1)
    assert (await bookkeeper.once(NOW_MS)).balanced


async def test_a_raised_epoch_begins_the_fold_anew_after_joining_again(
    bookkeeper: Bookkeeper, ledger: Ledger, ledger_name: str, redis: Client, redis_url: str
) -> None:
    assert (await bookkeeper.once(NOW_MS)).balanced
    await lose_balance(redis, Keys(ledger_name))
    other = await Ledger.open(redis_url, name=ledger_name)
    await other.rebuild()
    await other.close()
    with pytest.raises(LedgerFenced):
        await bookkeeper.once(NOW_MS)
    await ledger.rejoin()
    assert (await bookkeeper.once(NOW_MS)).balanced


async def test_nothing_is_found_while_others_post(
    ledger: Ledger, ledger_name: str, redis_url: str
) -> None:
    """Rounds as fast as they go beside four writers: no race is ever taken for a finding."""
    await ledger.deposit(event_id(), "demo", 10**11, time_ms=NOW_MS)
    stop = asyncio.Event()

    async def post(writer: Ledger) -> int:
        done = 0
        while not stop.is_set():
            inference = event_id()
            hold_until = NOW_MS + HOLD_MS
            await writer.hold(inference, "demo", 1_000, expires_ms=hold_until, time_ms=NOW_MS)
            if done % 5 == 3:
                await writer.void(inference, "demo", time_ms=NOW_MS)
            else:
                if done % 5 == 4:
                    await writer.expire(inference, time_ms=hold_until)
                capture = a_capture(inference, pools=(200, 300))
                await writer.capture(capture, time_ms=NOW_MS)
                for ordinal, pool in enumerate((200, 300)):
                    shares = an_attribution(inference, ordinal, pool=pool)
                    await writer.settle(shares, time_ms=NOW_MS)
            done += 1
        return done

    reader = await Ledger.open(redis_url, name=ledger_name)
    bookkeeper = Bookkeeper(reader, None, name=ledger_name)
    rounds: list[Findings] = []
    writers = [asyncio.create_task(post(ledger)) for _ in range(4)]
    deadline = asyncio.get_running_loop().time() + 4
    while asyncio.get_running_loop().time() < deadline:
        rounds.append(await bookkeeper.once(NOW_MS))
    stop.set()
    posted = sum(await asyncio.gather(*writers))
    rounds.append(await bookkeeper.once(NOW_MS))
    await reader.close()
    assert [finding for findings in rounds for finding in findings.found] == []
    assert (await ledger.unfinished()).frozen is None
    assert posted > 20
    assert len(rounds) > 5
    assert rounds[-1].figures.folded_seq == (await ledger.unfinished()).journal_entries


async def test_it_waits_for_a_ledger_that_is_away_and_joins_one_that_was_rebuilt(
    ledger: Ledger, ledger_name: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_history(ledger)
    stop, seen = asyncio.Event(), 0

    def observe(findings: Findings) -> None:
        nonlocal seen
        assert findings.balanced
        seen += 1

    async def until(rounds: int) -> None:
        async with asyncio.timeout(10):
            while seen < rounds:
                await asyncio.sleep(0.01)

    bookkeeper = Bookkeeper(ledger, None, name=ledger_name, observe=observe)
    once, away = bookkeeper.once, 2

    async def sometimes(now_ms: int) -> Findings:
        nonlocal away
        away -= 1
        if away >= 0:
            raise LedgerUnavailable("no answer")
        return await once(now_ms)

    monkeypatch.setattr(bookkeeper, "once", sometimes)
    running = asyncio.create_task(bookkeeper.run(stop, interval_seconds=0.01, clock=lambda: NOW_MS))
    await until(2)
    other = await Ledger.open(redis_url, name=ledger_name)
    await other.rebuild()
    await other.close()
    await until(seen + 3)
    stop.set()
    await running


class Misreading:
    """Reads a journal; once it takes one entry for another text."""

    def __init__(self, count: int) -> None:
        self._read = Journal.read
        self._count: int | None = count

    async def read(self, journal: Journal, after: int, up_to: int | None, count: int) -> Page:
        page = await self._read(journal, after, up_to, count)
        if count == self._count and page:
            self._count = None
            return [(page[0][0], [b"e", b"{}"]), *page[1:]]
        return page


@pytest.mark.parametrize("count", [journal.PAGE, 7])
async def test_what_was_misread_once_is_no_finding(
    ledger: Ledger, ledger_name: str, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    await some_history(ledger)
    monkeypatch.setattr(patrol, "ENTRIES_A_ROUND", 7)
    misreading = Misreading(count)

    async def read(journal: Journal, after: int, up_to: int | None, count: int) -> Page:
        return await misreading.read(journal, after, up_to, count)

    monkeypatch.setattr(Journal, "read", read)
    bookkeeper = Bookkeeper(ledger, None, name=ledger_name)
    if count == journal.PAGE:
        with pytest.raises(LedgerUnavailable, match="two readings"):
            await bookkeeper.once(NOW_MS)
    for _ in range(5):
        assert (await bookkeeper.once(NOW_MS)).balanced
    assert misreading._count is None
    assert (await ledger.unfinished()).frozen is None


async def test_a_changed_thousand_is_named(
    ledger: Ledger, ledger_name: str, redis: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imprints, "CHUNK", 2)
    monkeypatch.setattr(patrol, "ENTRIES_A_ROUND", 5)
    await some_history(ledger)
    bookkeeper = Bookkeeper(ledger, None, name=ledger_name)
    for _ in range(5):
        assert (await bookkeeper.once(NOW_MS)).balanced
    await rewrite_policy(redis, Keys(ledger_name))
    found = [finding for _ in range(4) for finding in (await bookkeeper.once(NOW_MS)).found]
    assert {(f.kind, f.subject) for f in found} == {(Kind.REWRITTEN, "4")}


async def test_a_ledger_without_an_epoch_is_no_ledger(
    bookkeeper: Bookkeeper, ledger_name: str, redis: Client
) -> None:
    await redis.delete(Keys(ledger_name).meta)
    with pytest.raises(LedgerUnavailable, match="no epoch"):
        await bookkeeper.once(NOW_MS)


async def test_an_entry_without_a_key_has_no_mark_to_miss(
    bookkeeper: Bookkeeper, ledger_name: str, redis: Client
) -> None:
    await rewrite(redis, Keys(ledger_name), lambda entry: entry.update(key="?"))
    assert Kind.MARK not in {finding.kind for finding in (await bookkeeper.once(NOW_MS)).found}


async def test_a_hold_in_the_list_that_is_no_inference_has_no_age(
    bookkeeper: Bookkeeper, ledger_name: str, redis: Client
) -> None:
    await redis.zadd(Keys(ledger_name).holds, {"nobody": 1})
    findings = await bookkeeper.once(NOW_MS)
    assert findings.count(Kind.UNLISTED) == 2
    assert findings.figures.oldest_hold_seconds == 0


async def test_a_rounding_account_is_found(ledger: Ledger, ledger_name: str, redis: Client) -> None:
    await some_history(ledger)
    legs = [["rounding", "1"], ["refund", "-1"]]
    await rewrite(redis, Keys(ledger_name), lambda entry: entry.update(legs=legs))
    findings = await Bookkeeper(ledger, None, name=ledger_name).once(NOW_MS)
    assert findings.count(Kind.ROUNDING) == 1


async def test_what_is_found_once_and_not_again_stops_nothing(
    bookkeeper: Bookkeeper, ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    """Mended between the two looks of one round."""
    assert (await bookkeeper.once(NOW_MS)).balanced
    await change_balance(redis, Keys(ledger_name))
    desk = bookkeeper._desk
    assert desk is not None
    look, times = desk.patrol.round, 0

    async def mend(live: LiveBooks, *, now_ms: int) -> list[Finding]:
        nonlocal times
        times += 1
        if times == 1:
            await redis.hincrby(Keys(ledger_name).balances, "platform", -1)
        return await look(live, now_ms=now_ms)

    desk.patrol.round = mend  # type: ignore[method-assign]
    assert (await bookkeeper.once(NOW_MS)).balanced
    assert times == 2
    assert (await ledger.unfinished()).frozen is None


async def test_names_beyond_what_may_wait_are_compared_in_their_turn(
    ledger: Ledger, ledger_name: str, redis: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "NAMES_WAITING_MAX", 0)
    monkeypatch.setattr(live, "NAMES_SWEPT_A_ROUND", 1)
    bookkeeper = Bookkeeper(ledger, None, name=ledger_name)
    await some_history(ledger)
    await change_balance(redis, Keys(ledger_name))
    rounds = [await bookkeeper.once(NOW_MS) for _ in range(20)]
    assert not rounds[-1].balanced


def test_the_balances_shown_have_few_names() -> None:
    shown = balances_shown({"platform": 1, "app:a": 2, "app:b": 3, "contrib:x": -4, "odd": -2})
    assert (shown["platform"], shown["applications"], shown["contributors"]) == (1, 5, -4)
    assert (shown["other"], shown["rounding"]) == (-2, 0)
