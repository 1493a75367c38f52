"""Several ledgers over one server: who is where, what is summed, and how an application moves."""

import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

import pytest

from byline.errors import (
    InsufficientFunds,
    KeyConflict,
    LedgerMisconfigured,
    LedgerRefused,
    LedgerUnavailable,
)
from byline.ledger.ledger import Ledger
from byline.ledger.shards import Misplaced, Move, Shards, shard_of
from byline.records import Posted
from tests.byline.cases import ADAPTER, HOLD_MS, NOW_MS, a_capture, an_attribution, event_id

pytestmark = pytest.mark.anyio

APPLICATIONS = [f"application-{number}" for number in range(300)]


@pytest.fixture
def names() -> list[str]:
    return [f"{uuid.uuid4().hex[:12]}-{number}" for number in range(3)]


@pytest.fixture
async def shards(redis_url: str, names: list[str]) -> AsyncIterator[Shards]:
    opened = await Shards.open(redis_url, names)
    yield opened
    await opened.close()


async def answered(shards: Shards, application: str) -> str:
    """An inference of the application, captured and settled for 900 of its 10,000."""
    ledger, inference = shards.ledger_of(application), event_id()
    await ledger.deposit(event_id(), application, 10_000, time_ms=NOW_MS)
    await ledger.hold(inference, application, 1_000, expires_ms=NOW_MS + HOLD_MS, time_ms=NOW_MS)
    await ledger.capture(a_capture(inference, application=application), time_ms=NOW_MS)
    await ledger.settle(an_attribution(inference, unattributed=50), time_ms=NOW_MS)
    return inference


def placement(names: list[str]) -> Mapping[str, str]:
    return {application: shard_of(application, names) for application in APPLICATIONS}


def one_of_each(names: list[str]) -> list[str]:
    """An application of every shard."""
    placed = placement(names)
    return [next(each for each in APPLICATIONS if placed[each] == name) for name in names]


def test_an_application_is_placed_by_the_names_alone() -> None:
    assert shard_of("demo", ["usd-0", "usd-1", "usd-2"]) == "usd-0"
    assert placement(["a", "b", "c"]) == placement(["c", "a", "b"])


def test_applications_spread_evenly() -> None:
    shards = list(placement(["usd-0", "usd-1", "usd-2"]).values())
    assert all(75 < shards.count(name) < 125 for name in ("usd-0", "usd-1", "usd-2"))


def test_a_new_shard_takes_its_part_and_moves_nobody_else() -> None:
    before, after = placement(["a", "b", "c"]), placement(["a", "b", "c", "d"])
    moved = {each for each in APPLICATIONS if before[each] != after[each]}
    assert {after[each] for each in moved} == {"d"}
    assert 50 < len(moved) < 100


async def test_sums_run_over_all_shards_and_each_balances(shards: Shards, names: list[str]) -> None:
    applications = one_of_each(names)
    for application in applications:
        await answered(shards, application)
    for application in applications:
        assert await shards.ledger_of(application).balance(f"app:{application}") == 9_100
    assert await shards.balance("platform") == 1_200
    assert await shards.balances() == {
        "funding": -30_000, "platform": 1_200, "contrib:alice": 1_350,
        f"unattributed:{ADAPTER}": 150, **{f"app:{each}": 9_100 for each in applications},
    }  # fmt: skip
    books = await shards.check()
    assert books.balanced
    assert books.accounts_sum_nano == 0
    assert {name: each.journal_entries for name, each in books.shards.items()} == (
        dict.fromkeys(names, 4)
    )


async def test_one_shard_that_does_not_balance_is_seen(
    shards: Shards, names: list[str], redis_url: str
) -> None:
    await answered(shards, one_of_each(names)[1])
    ledger = shards.ledgers[names[1]]
    await ledger._redis.hincrby(ledger._keys.balances, "platform", 1)
    books = await shards.check()
    assert not books.balanced
    assert [name for name in names if not books.shards[name].balanced] == [names[1]]
    assert books.accounts_sum_nano == 1


async def test_an_inference_is_found_in_whichever_shard_has_it(
    shards: Shards, names: list[str]
) -> None:
    for application in one_of_each(names):
        inference = await answered(shards, application)
        assert await shards.ledger_of_inference(inference) is shards.ledger_of(application)
    assert await shards.ledger_of_inference(event_id()) is None


async def test_its_payer_says_which_shard_is_asked_first(
    shards: Shards, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    payer, other, _ = one_of_each(names)
    inference = await answered(shards, payer)
    ledger = shards.ledger_of(payer)
    everywhere = await shards.find(inference)
    assert everywhere is not None
    assert everywhere[0] is ledger
    assert await shards.find(inference, payer=other) == everywhere  # it was moved since, perhaps
    monkeypatch.setattr(Ledger, "inference", only_for(ledger, away, otherwise="inference"))
    with pytest.raises(LedgerUnavailable):
        await shards.find(inference, payer=payer)


async def test_a_shard_that_is_away_hides_only_what_it_may_have(
    shards: Shards, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inference = await answered(shards, one_of_each(names)[1])
    without = only_for(shards.ledgers[names[0]], away, otherwise="inference")
    monkeypatch.setattr(Ledger, "inference", without)
    assert await shards.ledger_of_inference(inference) is shards.ledgers[names[1]]
    with pytest.raises(LedgerUnavailable):
        await shards.ledger_of_inference(event_id())


async def test_payouts_blocked_in_one_shard_are_blocked(shards: Shards, names: list[str]) -> None:
    await shards.ledgers[names[2]].block_payouts("contrib:ann", "a dispute")
    assert await shards.payout_blocks() == {"contrib:ann": "a dispute"}


async def test_a_placed_application_posts_where_it_is_placed(
    redis_url: str, names: list[str]
) -> None:
    application, _, elsewhere = one_of_each(names)[0], *names[1:]
    shards = await Shards.open(redis_url, names, placed={application: elsewhere})
    assert shards.name_of(application) == elsewhere
    assert shards.ledger_of(application) is shards.ledgers[elsewhere]
    await shards.close()


async def test_a_place_that_is_no_shard_stops_the_start(redis_url: str, names: list[str]) -> None:
    with pytest.raises(LedgerMisconfigured, match="usd-9"):
        await Shards.open(redis_url, names, placed={"demo": "usd-9"})


def a_move(names: list[str], application: str, nano: int = 9_100) -> Move:
    return Move(event_id(), application, nano, source=names[0], target=names[1], by="ops")


async def test_a_moved_application_takes_its_money_along(
    shards: Shards, names: list[str], redis_url: str
) -> None:
    application = one_of_each(names)[0]
    inference = await answered(shards, application)
    move = a_move(names, application)
    for _ in range(2):  # the second changes nothing
        await shards.move(move, time_ms=NOW_MS)
    assert await shards.misplaced() == [Misplaced(application, names[1], 9_100)]
    assert (await shards.check()).balanced
    assert await shards.balance("funding") == -10_000
    after = await Shards.open(redis_url, names, placed={application: names[1]})
    assert await after.misplaced() == []
    assert await after.ledger_of(application).balance(f"app:{application}") == 9_100
    assert await after.ledger_of_inference(inference) is after.ledgers[names[0]]
    await after.close()


async def test_a_move_that_broke_off_is_finished_by_the_same_move(
    shards: Shards, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    application = one_of_each(names)[0]
    await answered(shards, application)
    move = a_move(names, application)
    target = shards.ledgers[names[1]]
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "adjust", only_for(target, away))
        with pytest.raises(LedgerUnavailable):
            await shards.move(move, time_ms=NOW_MS)
    assert await shards.balance(f"app:{application}") == 0  # nobody's, never two's
    assert await shards.balance("funding") == -900
    assert (await shards.check()).balanced
    with pytest.raises(KeyConflict):
        await shards.move(replace(move, target=names[2]), time_ms=NOW_MS)
    await shards.move(move, time_ms=NOW_MS)
    assert await shards.balance(f"app:{application}") == 9_100
    assert await shards.balance("funding") == -10_000


async def away(*_: object, **__: object) -> Posted:
    raise LedgerUnavailable("no answer")


def only_for(ledger: Ledger, instead: object, *, otherwise: str = "adjust") -> object:
    """A method of Ledger, but `instead` for this one."""
    whole = getattr(Ledger, otherwise)

    async def call(self: Ledger, *arguments: object, **named: object) -> object:
        post = instead if self is ledger else whole
        return await post(self, *arguments, **named)  # type: ignore[operator]

    return call


async def test_no_more_is_moved_than_is_there(shards: Shards, names: list[str]) -> None:
    application = one_of_each(names)[0]
    await answered(shards, application)
    with pytest.raises(InsufficientFunds):
        await shards.move(a_move(names, application, 9_101), time_ms=NOW_MS)
    with pytest.raises(LedgerRefused, match="only what is there"):
        await shards.move(a_move(names, application, -1), time_ms=NOW_MS)
    for other in (names[0], "usd-9"):
        with pytest.raises(LedgerRefused, match="not two shards"):
            await shards.move(replace(a_move(names, application), target=other), time_ms=NOW_MS)
    assert await shards.balance(f"app:{application}") == 9_100
    assert await shards.ledgers[names[1]].balance("funding") == 0
