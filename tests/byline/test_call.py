"""Events that travel in one call of a script are posted, refused and repeated each for itself."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from hiredis import ReplyError

from byline.errors import (
    InsufficientFunds,
    KeyConflict,
    LedgerDamaged,
    LedgerFenced,
    LedgerFrozen,
    LedgerRefused,
    LedgerUnavailable,
)
from byline.ledger.ledger import Ledger
from byline.posting import postings
from byline.posting.address import Address
from byline.posting.answers import Answer, NotItsAnswer, ScriptForgotten
from byline.posting.call import Call
from byline.posting.keys import Keys
from byline.posting.pipeline import Pipeline, pack
from byline.posting.postings import Posting
from byline.posting.redis_client import Client
from byline.posting.scripts import Script
from byline.records import Posted
from tests.byline.cases import HOLD_MS, NOW_MS, a_capture, event_id, held

pytestmark = pytest.mark.anyio


def a_hold(nano: int, inference: str | None = None) -> Posting:
    return postings.hold(
        inference or event_id(), "demo", nano, expires_ms=NOW_MS + HOLD_MS, time_ms=NOW_MS
    )


Calling = Callable[..., Awaitable[list[Answer]]]


@pytest.fixture
async def called(redis_url: str, ledger_name: str) -> AsyncIterator[Calling]:
    """Posts events of one operation in one call."""
    pipeline = await Pipeline.open(Address.parse(redis_url), timeout_seconds=5.0)
    keys = Keys(ledger_name)

    async def called(events: list[Posting], *, epoch: int = 1) -> list[Answer]:
        call = Call(Script(events[0].script))
        for event in events:
            call.add(event, keys)
        commands = [pack(("SCRIPT", "LOAD", call.script.text)), pack(call.command(keys, epoch))]
        _, reply = await pipeline.exchange(b"".join(commands), 2)
        return call.answers(reply)

    yield called
    pipeline.break_off("the test is over")
    await pipeline.closed()


@pytest.fixture
async def funded(ledger: Ledger) -> Ledger:
    await ledger.deposit(event_id(), "demo", 1_000, time_ms=NOW_MS)
    return ledger


async def test_what_is_refused_leaves_its_neighbours_alone(funded: Ledger, called: Calling) -> None:
    first, second = a_hold(400), a_hold(600)
    malformed = replace(a_hold(1), arguments=("x", "demo", "1", "soon"))
    answers = await called([first, a_hold(601), malformed, second, a_hold(1), first])
    kinds = [type(answer) for answer in answers]
    assert kinds == [
        Posted, InsufficientFunds, LedgerRefused, Posted, InsufficientFunds, Posted,
    ]  # fmt: skip
    assert (answers[0], answers[3], answers[5]) == (Posted(2), Posted(3), Posted(2, duplicate=True))
    assert await funded.balance("app:demo") == 0
    assert (await funded.check()).balanced


async def test_one_key_with_two_payloads_in_one_call_is_a_conflict(
    funded: Ledger, called: Calling
) -> None:
    inference = event_id()
    answers = await called([a_hold(10, inference), a_hold(20, inference)])
    assert answers[0] == Posted(2)
    assert isinstance(answers[1], KeyConflict)
    assert await funded.balance(f"hold:{inference}") == 10


async def test_events_of_one_account_see_each_other(funded: Ledger, called: Calling) -> None:
    inferences = [await held(funded) for _ in range(5)]
    captures = [postings.capture(a_capture(each), time_ms=NOW_MS) for each in inferences]
    answers = await called([*captures, *captures])
    posted = [answer for answer in answers if isinstance(answer, Posted)]
    assert [answer.duplicate for answer in posted] == [False] * 5 + [True] * 5
    assert [answer.seq for answer in posted[:5]] == [answer.seq for answer in posted[5:]]
    books = await funded.check()
    assert books.balanced
    assert books.journal_entries == posted[4].seq


@pytest.mark.parametrize("state", ["frozen", "fenced"])
async def test_what_was_posted_before_is_known_to_a_ledger_that_posts_no_more(
    funded: Ledger, called: Calling, state: str
) -> None:
    known, new = a_hold(10), a_hold(10)
    await called([known])
    if state == "frozen":
        await funded.freeze("a look at the books")
    answers = await called([new, known, new], epoch=1 if state == "frozen" else 7)
    error = LedgerFrozen if state == "frozen" else LedgerFenced
    assert [type(answer) for answer in answers] == [error, Posted, error]
    assert answers[1] == Posted(2, duplicate=True)


async def test_a_key_of_the_wrong_type_stops_only_the_events_that_need_it(
    funded: Ledger, ledger_name: str, redis: Client, called: Calling
) -> None:
    spoiled = a_hold(10)
    await redis.set(Keys(ledger_name).inference(spoiled.inference), "not ours")
    answers = await called([a_hold(1), spoiled, a_hold(2)])
    assert [type(answer) for answer in answers] == [Posted, LedgerDamaged, Posted]
    assert (answers[0], answers[2]) == (Posted(2), Posted(3))


async def test_a_full_server_refuses_each_event_and_keeps_nothing(
    funded: Ledger, redis: Client, called: Calling
) -> None:
    events = [a_hold(10), a_hold(10)]
    before = (await redis.config_get("maxmemory"))["maxmemory"]
    await redis.config_set("maxmemory", "1")
    try:
        answers = await called(events)
    finally:
        await redis.config_set("maxmemory", before)
    assert [type(answer) for answer in answers] == [LedgerUnavailable] * 2
    assert await funded.balance("app:demo") == 1_000
    assert await called(events) == [Posted(2), Posted(3)]


def a_call() -> Call:
    call = Call(Script("hold"))
    for _ in range(2):
        call.add(a_hold(1), Keys("usd"))
    return call


def test_a_reply_with_too_few_answers_is_believed_in_no_part() -> None:
    call = a_call()
    first = ["posted", "1", "", call.postings[0].key]
    second = ["posted", "2", "", call.postings[1].key]
    assert call.answers([first, second]) == [Posted(1), Posted(2)]
    for reply in ([first], [first, second, second], [second, first], "OK", 2, None):
        with pytest.raises(NotItsAnswer):
            call.answers(reply)


def test_an_error_in_place_of_the_reply_is_every_events_answer() -> None:
    answers = a_call().answers(ReplyError("NOSCRIPT No matching script."))
    assert [type(answer) for answer in answers] == [ScriptForgotten] * 2
