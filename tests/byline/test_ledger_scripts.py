"""The scripts trust no client: what a wrong one sends is refused before anything is written."""

from dataclasses import replace

import pytest

from byline import poster, postings
from byline.errors import LedgerRefused
from byline.ledger import Ledger
from byline.limits import LEG_NANO_MAX, LEGS_PER_ENTRY_MAX
from byline.poster import Keys
from byline.redis_client import Client
from tests.byline.cases import (
    HOLD_MS,
    NOW_MS,
    a_capture,
    an_attribution,
    captured,
    event_id,
    held,
    refuses,
)  # fmt: skip

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("nano", ["1.5", "-5", "0", "01", "1e3", "", str(LEG_NANO_MAX + 1)])
async def test_an_amount_that_is_no_small_integer_is_refused(ledger: Ledger, nano: str) -> None:
    posting = postings.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    wrong = replace(posting, arguments=("app:demo", nano))
    await refuses(ledger, ledger._poster.post(wrong), LedgerRefused, "bad amount")


async def test_legs_that_do_not_sum_to_zero_are_refused(ledger: Ledger) -> None:
    posting = postings.capture(a_capture(await held(ledger)), time_ms=NOW_MS)
    wrong = replace(posting, arguments=(*posting.arguments[:-1], "501"))
    await refuses(ledger, ledger._poster.post(wrong), LedgerRefused, "not sum to zero")


async def test_more_legs_than_can_be_summed_exactly_are_refused(ledger: Ledger) -> None:
    posting = postings.capture(a_capture(await held(ledger)), time_ms=NOW_MS)
    more = [word for i in range(LEGS_PER_ENTRY_MAX) for word in (f"contrib:{i}", "1")]
    wrong = replace(posting, arguments=(*posting.arguments, *more))
    await refuses(ledger, ledger._poster.post(wrong), LedgerRefused, "more legs than")


async def test_only_clearing_accounts_and_applications_fall_below_zero(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    inference = await held(ledger)
    await redis.hdel(Keys(ledger_name).balances, f"hold:{inference}")
    with pytest.raises(LedgerRefused, match=f"hold:{inference} would fall below zero"):
        await ledger.void(inference, "demo", time_ms=NOW_MS)
    with pytest.raises(LedgerRefused, match="does not hold what was held"):
        await ledger.capture(a_capture(inference), time_ms=NOW_MS)


async def test_an_inference_is_held_once_even_when_its_mark_is_lost(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    inference = await held(ledger)
    await redis.delete(Keys(ledger_name).marks(NOW_MS // postings.DAY_MS))
    call = ledger.hold(inference, "demo", 1_000, expires_ms=NOW_MS + HOLD_MS, time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "was held before")


async def test_a_pool_is_settled_once_even_when_its_mark_is_lost(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    inference = await captured(ledger)
    await ledger.settle(an_attribution(inference), time_ms=NOW_MS)
    await redis.delete(Keys(ledger_name).marks(NOW_MS // postings.DAY_MS))
    call = ledger.settle(an_attribution(inference), time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "does not hold the pool")


async def test_only_so_many_lines_of_a_contributor_are_kept(
    redis_url: str, ledger_name: str, redis: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poster, "LINES_PER_CONTRIBUTOR_MAX", 2)
    ledger = await Ledger.open(redis_url, name=ledger_name)
    for _ in range(3):
        await ledger.settle(an_attribution(await captured(ledger)), time_ms=NOW_MS)
    assert await redis.lrange(Keys(ledger_name).lines("alice"), 0, -1) == ["12", "8"]
    await ledger.close()
