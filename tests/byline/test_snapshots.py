"""A snapshot is whole, old or new; a fold that begins at one ends like a fold of everything."""

import pytest

from byline.bookkeeping.bookkeeper import Bookkeeper
from byline.bookkeeping.upkeep import Upkeep
from byline.canonical import sha256_hex
from byline.errors import LedgerFenced, LedgerFrozen, LedgerRefused
from byline.ledger import journal, snapshots
from byline.ledger.books import Fold, Snapshot
from byline.ledger.ledger import Ledger
from byline.ledger.snapshots import Snapshots
from byline.posting.keys import Keys
from byline.posting.redis_client import Client
from tests.byline.cases import NOW_MS, Killed, an_attribution, captured, event_id, held

pytestmark = pytest.mark.anyio

EVERY_ENTRY = Upkeep(snapshot_entries=1, keep_entries=10**6, keep_days=0)


async def a_snapshot(ledger: Ledger) -> Snapshot:
    """What the fold of the whole journal is now."""
    inside = journal.Journal(*ledger.inside)
    fold = Fold()
    async for page in inside.pages():
        fold.add_page(page)
    return Snapshot(fold.seq, fold.accounts)


async def test_a_snapshot_is_read_as_it_was_written(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "PAGE", 2)
    await captured(ledger)
    store, written = Snapshots(*ledger.inside), await a_snapshot(ledger)
    assert await store.read() is None
    await store.write(written, ledger.epoch)
    assert await store.read() == written


async def test_a_large_snapshot_is_read_in_pages(ledger: Ledger) -> None:
    await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    large = Snapshot(1, {f"contrib:c{n}": n + 1 for n in range(3_000)})
    store = Snapshots(*ledger.inside)
    await store.write(large, ledger.epoch)
    assert await store.read() == large


def test_the_digest_is_of_canonical_json() -> None:
    text = '{"accounts":{"a":"1","b":"-1"},"seq":7}'
    assert snapshots.digest(Snapshot(7, {"b": -1, "a": 1})) == sha256_hex(text.encode())


async def test_a_snapshot_without_accounts_is_one(ledger: Ledger, redis: Client) -> None:
    _, keys = ledger.inside
    await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    store = Snapshots(*ledger.inside)
    await store.write(Snapshot(1, {}), ledger.epoch)
    assert await store.read() == Snapshot(1, {})
    assert not await redis.exists(keys.snapshot)


async def test_no_snapshot_goes_back_or_beyond_the_journal(ledger: Ledger) -> None:
    await captured(ledger)
    store, newest = Snapshots(*ledger.inside), await a_snapshot(ledger)
    await store.write(newest, ledger.epoch)
    for seq, says in ((newest.seq, "there is one"), (newest.seq + 1, "the journal ends")):
        with pytest.raises(LedgerRefused, match=says):
            await store.write(Snapshot(seq, newest.accounts), ledger.epoch)
    with pytest.raises(LedgerFenced, match="the epoch is 1"):
        await store.write(newest, ledger.epoch + 1)
    assert await store.read() == newest


async def test_a_snapshot_that_lost_a_page_does_not_become_the_newest(
    ledger: Ledger, redis: Client, ledger_name: str
) -> None:
    await captured(ledger)
    newest = await a_snapshot(ledger)
    aside = f"{Keys(ledger_name).snapshot}:{ledger.epoch}:{newest.seq}"
    redis_of_ledger, keys = ledger.inside
    steps: list[str] = []

    class Losing(Snapshots):
        async def _write_aside(self, aside: str, accounts: dict[str, str]) -> None:
            await super()._write_aside(aside, accounts)
            await redis.hdel(aside, "platform")

    store = Losing(redis_of_ledger, keys, steps.append)
    with pytest.raises(LedgerRefused, match="not all accounts"):
        await store.write(newest, ledger.epoch)
    assert await store.read() is None
    assert not await redis.exists(aside)


async def test_a_snapshot_with_another_digest_is_refused(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    await captured(ledger)
    before = await ledger.balances()
    await Snapshots(*ledger.inside).write(await a_snapshot(ledger), ledger.epoch)
    await redis.hincrby(Keys(ledger_name).snapshot, "platform", 1)
    with pytest.raises(LedgerRefused, match="digest is wrong"):
        await ledger.rebuild()
    assert await ledger.rebuild(full=True) == before
    assert (await ledger.check()).balanced


async def test_a_bookkeeper_begins_at_the_first_entry_where_the_snapshot_is_wrong(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    await captured(ledger)
    await Snapshots(*ledger.inside).write(await a_snapshot(ledger), ledger.epoch)
    await redis.hincrby(Keys(ledger_name).snapshot, "platform", 1)
    findings = await Bookkeeper(ledger, None, name=ledger_name).once(NOW_MS)
    assert findings.balanced


async def test_a_rebuild_from_a_snapshot_comes_to_what_a_full_one_does(ledger: Ledger) -> None:
    first = await captured(ledger, (200, 300))
    await held(ledger)
    await Snapshots(*ledger.inside).write(await a_snapshot(ledger), ledger.epoch)
    await ledger.settle(an_attribution(first, pool=200), time_ms=NOW_MS)
    await captured(ledger)
    balances = await ledger.balances()
    assert await ledger.rebuild() == balances
    assert await ledger.rebuild(full=True) == balances
    given = await a_snapshot(ledger)
    assert await ledger.rebuild(base=given) == balances
    assert (await ledger.check()).balanced


async def test_a_snapshot_of_entries_that_were_lost_goes_with_a_full_rebuild(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    keys = Keys(ledger_name)
    await captured(ledger)
    await Snapshots(*ledger.inside).write(await a_snapshot(ledger), ledger.epoch)
    await redis.xdel(keys.journal, "3-1")
    with pytest.raises(LedgerRefused, match="lost its end"):
        await ledger.rebuild()
    with pytest.raises(LedgerFrozen):
        await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    await ledger.rebuild(full=True)
    assert not await redis.exists(keys.snapshot)
    assert await redis.hget(keys.meta, "snapshot") is None
    assert (await ledger.check()).balanced


STEPS = ["snapshot page written", "snapshot written aside", "snapshot renamed"]


@pytest.mark.parametrize("step", STEPS)
async def test_a_kill_between_two_steps_leaves_the_old_snapshot_or_the_new_one(
    ledger: Ledger, ledger_name: str, redis: Client, step: str
) -> None:
    await captured(ledger)
    await Bookkeeper(ledger, None, name=ledger_name, upkeep=EVERY_ENTRY).once(NOW_MS)
    store = Snapshots(*ledger.inside)
    old = await store.read()
    await captured(ledger)
    new = await a_snapshot(ledger)
    assert old is not None
    assert old.seq < new.seq

    def die(done: str) -> None:
        if done == step:
            raise Killed

    dying = Bookkeeper(ledger, None, name=ledger_name, step=die, upkeep=EVERY_ENTRY)
    with pytest.raises(Killed):
        await dying.once(NOW_MS)
    assert await store.read() == (new if step == "snapshot renamed" else old)
    survivor = Bookkeeper(ledger, None, name=ledger_name, upkeep=EVERY_ENTRY)
    assert (await survivor.once(NOW_MS)).balanced
    assert await store.read() == new
    leftovers = await redis.keys(f"{Keys(ledger_name).snapshot}:*")
    assert not leftovers
    assert await redis.ttl(Keys(ledger_name).snapshot) == -1


async def test_snapshots_are_taken_at_their_distance(ledger: Ledger, ledger_name: str) -> None:
    upkeep = Upkeep(snapshot_entries=4, keep_entries=10**6)
    bookkeeper = Bookkeeper(ledger, None, name=ledger_name, upkeep=upkeep)
    taken = []
    for _ in range(3):
        await captured(ledger)  # three entries
        await bookkeeper.once(NOW_MS)
        taken.append((await bookkeeper.once(NOW_MS)).figures.snapshot_seq)
    assert taken == [0, 6, 6]
