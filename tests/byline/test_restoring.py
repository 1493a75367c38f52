"""What the journal has lost and the archive has is put back, as if it had never been gone."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from byline.archive import restoring
from byline.archive.database import Archive
from byline.archive.restoring import Restoring
from byline.archive.tables import entries, manifests
from byline.archive.traces import UNKNOWN_DIGEST
from byline.bookkeeping.bookkeeper import Bookkeeper
from byline.errors import ArchiveMismatch, KeyConflict, LedgerRefused, LedgerUnavailable
from byline.ledger.freezes import GIVEN_UP, REBUILDING
from byline.ledger.ledger import Ledger
from byline.ledger.waiting import Waiting
from byline.posting import redis_client
from byline.posting.keys import Keys
from byline.posting.redis_client import Client
from byline.posting.scripts import script_text
from byline.records import Adjustment, Leg, Payout, Refund, UnattributedRelease
from byline.redis_server import RedisServer, running_redis
from tests.byline.cases import (
    ADAPTER,
    NOW_MS,
    a_capture,
    an_attribution,
    captured,
    event_id,
    expired,
    held,
)
from tests.byline.exporting import export

pytestmark = pytest.mark.anyio

CENT = 10_000_000


async def something_of_everything(ledger: Ledger) -> None:
    """Every operation once or more, among them two refunds of one charge."""
    await ledger.deposit(event_id(), "shop", 5, time_ms=NOW_MS)
    voided = await held(ledger, funds=10 * CENT)
    await ledger.void(voided, "demo", time_ms=NOW_MS)
    late = await expired(ledger)
    await ledger.capture(a_capture(late), time_ms=NOW_MS)
    await held(ledger)
    await captured(ledger, (200, 300))
    settled = await captured(ledger)
    await ledger.settle(an_attribution(settled, unattributed=100), time_ms=NOW_MS)
    for nano in (30, 40):
        refund = Refund(event_id(), settled, nano, "a bad answer")
        await ledger.refund(refund, time_ms=NOW_MS)
    legs = (Leg("app:demo", -CENT), Leg("contrib:alice", CENT))
    await ledger.adjust(Adjustment(event_id(), legs, "a gift", "ops"), time_ms=NOW_MS)
    release = UnattributedRelease(event_id(), ADAPTER, (Leg("contrib:bob", 50),), "minutes of May")
    await ledger.release(release, time_ms=NOW_MS)
    payout = Payout(event_id(), "contrib:alice", CENT, "2026-11", 1, 5, 0, CENT + 7, "bank 1")
    await ledger.payout(payout, time_ms=NOW_MS)


async def everything(redis: Client, keys: Keys) -> dict[str, Any]:
    """All that the server has of a ledger."""
    found: dict[str, Any] = {}
    async for key in redis.scan_iter(match=f"{keys.tag}:*", count=1_000):
        kind = await redis.type(key)
        if kind == "hash":
            found[key] = await redis.hgetall(key)
        elif kind == "zset":
            found[key] = await redis.zrange(key, 0, -1, withscores=True)
        else:
            found[key] = sorted(str(fields) for _, fields in await redis.xrange(key))
    return found


async def lose_middle(redis: Client, keys: Keys) -> None:
    await redis.xdel(keys.journal, "3-1", "4-1", "9-1")


async def lose_end(redis: Client, keys: Keys) -> None:
    await redis.xdel(keys.journal, *[f"{seq}-1" for seq in range(9, 40)])


async def lose_all(redis: Client, keys: Keys) -> None:
    await redis.delete(keys.journal)


@pytest.mark.parametrize("lose", [lose_middle, lose_end, lose_all])
async def test_entries_that_the_stream_has_lost_come_back_and_nothing_else_changes(
    ledger: Ledger,
    ledger_name: str,
    redis: Client,
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
    lose: Callable[[Client, Keys], Awaitable[None]],
) -> None:
    monkeypatch.setattr(restoring, "PAGE", 5)
    keys = Keys(ledger_name)
    await something_of_everything(ledger)
    await export(ledger, archive, ledger_name)
    await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)  # not archived, and not lost
    if lose is not lose_middle:
        await export(ledger, archive, ledger_name)
    before = await everything(redis, keys)
    await lose(redis, keys)
    if lose is lose_middle:
        with pytest.raises(LedgerRefused, match="the journal is broken"):
            await ledger.rebuild(full=True)
    assert await Restoring(ledger, archive, name=ledger_name).restore() > 0
    assert (await ledger.unfinished()).frozen == REBUILDING
    await ledger.rebuild(full=True)
    after = await everything(redis, keys)
    assert (before[keys.meta].pop("epoch"), after[keys.meta].pop("epoch")) == ("1", "2")
    assert after == before
    assert (await Bookkeeper(ledger, archive, name=ledger_name).once(NOW_MS)).balanced


async def test_a_ledger_of_an_older_backup_becomes_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that its scripts had written comes back, but for when a hold expires."""
    monkeypatch.setattr(restoring, "PAGE", 5)
    keys = Keys("usd")
    server = RedisServer(tmp_path / "now", unix_socket=tmp_path / "s.sock")
    backup = replace(server, folder=tmp_path / "backup")
    archive = Archive.open(f"sqlite:///{tmp_path}/archive.sqlite")
    with running_redis(server):
        ledger = await Ledger.open(server.url)
        await captured(ledger)
        await asyncio.to_thread(shutil.copytree, server.folder, backup.folder)
        await something_of_everything(ledger)
        await export(ledger, archive, "usd")
        redis = redis_client.connect(server.url)
        before = await everything(redis, keys)
        count = (await ledger.unfinished()).journal_entries
        await redis.aclose()
        await ledger.close()
    with running_redis(backup):
        ledger = await Ledger.open(server.url)
        redis = redis_client.connect(server.url)
        assert (await ledger.unfinished()).journal_entries == 3
        with monkeypatch.context() as patched:
            patched.setattr(Restoring, "_put_back_traces", dies_behind(Restoring._put_back_traces))
            with pytest.raises(LedgerUnavailable):
                await Restoring(ledger, archive).restore()
        assert await Restoring(ledger, archive).restore() == count - 3
        assert await Restoring(ledger, archive).restore() == 0  # nothing is left to do
        await ledger.rebuild()
        assert await Waiting(redis, keys).enqueue_lost_jobs() == 3
        after = await everything(redis, keys)
        await same_but_for_holds(before, after, keys)
        bookkeeper = Bookkeeper(ledger, archive)
        assert [(await bookkeeper.once(NOW_MS)).found for _ in range(3)] == [(), (), ()]
        await export(ledger, archive, "usd")
        await a_second_arrival_posts_nothing(ledger, archive)
        await redis.aclose()
        await ledger.close()
    archive.close()


def dies_behind(step: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def dies(*words: object) -> None:
        await step(*words)
        raise LedgerUnavailable("no answer")

    return dies


async def same_but_for_holds(before: dict[str, Any], after: dict[str, Any], keys: Keys) -> None:
    for whole in (before, after):
        del whole[keys.meta]["epoch"]
        whole[keys.meta].pop("exported", None)
        for facts in whole.values():
            for name in list(facts) if isinstance(facts, dict) else ():
                if name == "expires_ms":
                    del facts[name]
                elif name.endswith("/hold/0"):
                    facts[name] = facts[name].partition(":")[0] + ":" + UNKNOWN_DIGEST
    names = [{name for name, _ in whole.pop(keys.holds)} for whole in (before, after)]
    assert names[0] == names[1]
    jobs = before.pop(keys.jobs), after.pop(keys.jobs)  # of what is settled there needs to be none
    assert (len(jobs[0]), len(jobs[1]), set(jobs[1]) < set(jobs[0])) == (5, 4, True)
    assert after == before


async def a_second_arrival_posts_nothing(ledger: Ledger, archive: Archive) -> None:
    """A settlement is known again; a hold can't be compared, and is refused."""
    count = (await ledger.unfinished()).journal_entries
    with archive.reading() as connection:
        hold = connection.scalar(
            select(entries.c.inference).where(entries.c.kind == "hold", entries.c.seq > 3)
        )
    assert hold is not None
    with pytest.raises(KeyConflict):
        await ledger.hold(hold, "demo", 1_000, expires_ms=NOW_MS + 1, time_ms=NOW_MS)
    assert (await ledger.unfinished()).journal_entries == count


async def refused(
    ledger: Ledger, ledger_name: str, archive: Archive, error: type[Exception], says: str
) -> None:
    redis, keys = ledger.inside
    before = await everything(redis, keys)
    with pytest.raises(error, match=says):
        await Restoring(ledger, archive, name=ledger_name).restore()
    frozen = (await ledger.unfinished()).frozen
    assert frozen is not None
    assert frozen.startswith(GIVEN_UP)
    await ledger.thaw()
    after = await everything(redis, keys)
    after.pop(f"{keys.journal}:restored", None)
    assert after == before


async def test_two_histories_are_never_joined(
    ledger: Ledger, ledger_name: str, archive: Archive, redis: Client
) -> None:
    await captured(ledger)
    await export(ledger, archive, ledger_name)
    await redis.xdel(Keys(ledger_name).journal, "1-1")
    await redis.xdel(Keys(ledger_name).journal, "3-1")
    await redis.xadd(Keys(ledger_name).journal, {"e": "another"}, id="4-1")
    with archive.writing() as connection:
        third = (entries.c.seq == 2) & (entries.c.ledger == ledger_name)
        connection.execute(update(entries).where(third).values(text="another"))
    await refused(ledger, ledger_name, archive, ArchiveMismatch, "entry 2 is another one")


async def test_what_neither_has_stays_lost(
    ledger: Ledger, ledger_name: str, archive: Archive, redis: Client
) -> None:
    await captured(ledger)
    await export(ledger, archive, ledger_name)
    await captured(ledger)
    await redis.xdel(Keys(ledger_name).journal, "2-1", "5-1")
    await refused(ledger, ledger_name, archive, LedgerRefused, "entry 5 is neither")


@pytest.mark.parametrize(("text", "says"), [(None, "no text behind it"), ("{}", "is not what")])
async def test_an_entry_that_cannot_be_explained_is_not_put_back(
    ledger: Ledger, ledger_name: str, archive: Archive, redis: Client, text: str | None, says: str
) -> None:
    keys = Keys(ledger_name)
    await captured(ledger)
    await export(ledger, archive, ledger_name)
    await redis.xdel(keys.journal, "3-1")
    await redis.hset(keys.meta, "seq", "2")  # as if nothing of it were left
    with archive.writing() as connection:
        connection.execute(update(manifests).values(text=text))
    await refused(ledger, ledger_name, archive, ArchiveMismatch, says)


async def test_a_journal_that_grows_meanwhile_is_left_alone(
    ledger: Ledger,
    ledger_name: str,
    archive: Archive,
    redis: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await captured(ledger)
    await export(ledger, archive, ledger_name)
    await redis.xdel(Keys(ledger_name).journal, "2-1")

    async def grow(*_: object) -> None:
        await redis.xadd(Keys(ledger_name).journal, {"e": "{}"}, id="9-1")

    monkeypatch.setattr(Restoring, "_put_back_traces", grow)
    with pytest.raises(LedgerRefused, match="changed meanwhile"):
        await Restoring(ledger, archive, name=ledger_name).restore()


async def test_a_trim_meanwhile_gives_up_and_the_next_restore_succeeds(
    ledger: Ledger,
    ledger_name: str,
    archive: Archive,
    redis: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it takes is lost already, so the stream itself does not change."""
    keys = Keys(ledger_name)
    inference = await captured(ledger)
    await ledger.settle(an_attribution(inference), time_ms=NOW_MS)
    await export(ledger, archive, ledger_name)
    await redis.hset(keys.meta, mapping={"exported": "4", "snapshot": "4"})
    await redis.xdel(keys.journal, "1-1", "2-1", "3-1")

    async def trim(*_: object) -> None:
        trimmed = await redis.eval(script_text("trim"), 2, keys.journal, keys.meta, "3")
        assert trimmed == 3

    with monkeypatch.context() as patched:
        patched.setattr(Restoring, "_put_back_traces", trim)
        with pytest.raises(LedgerRefused, match="changed meanwhile"):
            await Restoring(ledger, archive, name=ledger_name).restore()
    assert await redis.xlen(keys.journal) == 1
    assert await Restoring(ledger, archive, name=ledger_name).restore() == 0
    await ledger.thaw()
    await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
