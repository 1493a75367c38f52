"""The reason that a frozen ledger keeps is true: before, during and after a rebuild."""

import asyncio

import pytest

from byline.errors import LedgerRefused, LedgerUnavailable
from byline.ledger import journal
from byline.ledger.freezes import GIVEN_UP, REBUILDING
from byline.ledger.ledger import Ledger
from byline.posting.keys import Keys
from byline.posting.redis_client import Client
from tests.byline.cases import captured

pytestmark = pytest.mark.anyio


async def reason(ledger: Ledger) -> str | None:
    return (await ledger.unfinished()).frozen


async def break_journal(redis: Client, ledger_name: str) -> None:
    await redis.xdel(Keys(ledger_name).journal, "2-1")


async def test_a_refused_rebuild_leaves_why_it_was_refused(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    await captured(ledger)
    (_, fields), *_ = await redis.xrange(Keys(ledger_name).journal, "2-1", "2-1")
    await break_journal(redis, ledger_name)
    for _ in range(2):
        with pytest.raises(LedgerRefused, match="the journal is broken"):
            await ledger.rebuild()
        frozen = await reason(ledger)
        assert frozen is not None
        assert frozen.startswith(GIVEN_UP + "the journal is broken")
        assert "missing [2]" in frozen
    key = Keys(ledger_name).journal
    last = await redis.xrange(key, "3-1", "3-1")
    first = await redis.xrange(key, "1-1", "1-1")
    await redis.delete(key)
    for stream_id, each in (*first, ("2-1", fields), *last):
        await redis.xadd(key, each, id=stream_id)
    await ledger.rebuild()
    assert await reason(ledger) is None


async def test_the_reason_of_somebody_else_stays_whatever_becomes_of_the_rebuild(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    await captured(ledger)
    await ledger.freeze("the bookkeeper found a gap")
    await ledger.rebuild()
    assert await reason(ledger) == "the bookkeeper found a gap"
    await break_journal(redis, ledger_name)
    with pytest.raises(LedgerRefused):
        await ledger.rebuild()
    assert await reason(ledger) == "the bookkeeper found a gap"


@pytest.mark.parametrize(
    ("problem", "says"),
    [
        (LedgerUnavailable("no answer"), "no answer"),
        (asyncio.CancelledError(), "it was stopped"),
        (KeyError("x"), "x"),
    ],
)
async def test_a_rebuild_that_failed_or_was_stopped_says_so(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, problem: BaseException, says: str
) -> None:
    async def fail(*_: object) -> None:
        assert await reason(ledger) == REBUILDING
        raise problem

    await captured(ledger)
    monkeypatch.setattr(journal.Journal, "_write_folded", fail)
    with pytest.raises(type(problem)):
        await ledger.rebuild()
    assert await reason(ledger) == GIVEN_UP + (repr(says) if says == "x" else says)
