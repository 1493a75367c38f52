"""Each operation posts what it says, once, or is refused and writes nothing."""

import json
from dataclasses import replace

import pytest

from byline.canonical import canonical_text, digest
from byline.errors import InsufficientFunds, KeyConflict, LedgerRefused
from byline.ledger.ledger import Ledger
from byline.limits import LEGS_PER_ENTRY_MAX
from byline.posting.keys import Keys
from byline.posting.redis_client import Client
from byline.records import AttributionState, Share
from byline.records_json import attribution_fields
from tests.byline.cases import (
    ADAPTER,
    HOLD_MS,
    NOW_MS,
    a_capture,
    a_failure,
    an_attribution,
    captured,
    event_id,
    expired,
    held,
    refuses,
)  # fmt: skip

pytestmark = pytest.mark.anyio


async def test_an_answer_is_held_captured_and_settled(ledger: Ledger) -> None:
    inference = await captured(ledger)
    assert await ledger.balances() == {
        "funding": -10_000, "app:demo": 9_100, "platform": 400, f"open:{inference}": 500,
    }  # fmt: skip
    await ledger.settle(an_attribution(inference, unattributed=50), time_ms=NOW_MS)
    assert await ledger.balances() == {
        "funding": -10_000, "app:demo": 9_100, "platform": 400, "contrib:alice": 450,
        f"unattributed:{ADAPTER}": 50,
    }  # fmt: skip
    kinds = [(entry.seq, entry.kind, entry.charge) async for entry in ledger.entries()]
    assert kinds == [(1, "deposit", 0), (2, "hold", 0), (3, "capture", 900), (4, "settle", 0)]
    assert [entry.seq async for entry in ledger.entries(after_seq=2)] == [3, 4]
    assert (await ledger.check()).balanced


async def test_the_stored_bytes_are_canonical_and_name_their_manifest(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    inference = await captured(ledger)
    attribution = an_attribution(inference)
    await ledger.settle(attribution, time_ms=NOW_MS)
    stored = await redis.xrange(Keys(ledger_name).journal)
    for _, fields in stored:
        assert canonical_text(json.loads(fields["e"])) == fields["e"]
    assert json.loads(stored[3][1]["e"])["manifest_sha256"] == digest(
        attribution_fields(attribution)
    )


async def test_a_repeated_call_is_a_duplicate_whatever_the_time(ledger: Ledger) -> None:
    inference, operation, voided = event_id(), event_id(), event_id()
    for turn in range(2):
        now = NOW_MS + turn
        expires = NOW_MS + HOLD_MS
        answers = [
            await ledger.deposit(operation, "demo", 5_000, time_ms=now),
            await ledger.hold(inference, "demo", 1_000, expires_ms=expires, time_ms=now),
            await ledger.capture(a_capture(inference), time_ms=now),
            await ledger.settle(an_attribution(inference), time_ms=now),
            await ledger.hold(voided, "demo", 1_000, expires_ms=expires, time_ms=now),
            await ledger.void(voided, "demo", time_ms=now),
        ]
        assert [answer.seq for answer in answers] == [1, 2, 3, 4, 5, 6]
        assert [answer.duplicate for answer in answers] == [bool(turn)] * 6


async def test_another_payload_under_the_same_key_is_a_conflict(ledger: Ledger) -> None:
    inference, operation = await captured(ledger), event_id()
    await ledger.deposit(operation, "demo", 1, time_ms=NOW_MS)
    await ledger.settle(an_attribution(inference), time_ms=NOW_MS)
    for call in (
        ledger.deposit(operation, "demo", 2, time_ms=NOW_MS),
        ledger.hold(inference, "demo", 999, expires_ms=NOW_MS + HOLD_MS, time_ms=NOW_MS),
        ledger.capture(a_capture(inference, credit=399), time_ms=NOW_MS),
        ledger.settle(an_attribution(inference, unattributed=1), time_ms=NOW_MS),
    ):
        await refuses(ledger, call, KeyConflict, "another payload")


async def test_a_hold_stops_at_the_credit_limit(ledger: Ledger) -> None:
    await ledger.set_credit_limit("demo", 500)
    inference = await held(ledger, 1_500, funds=1_000)
    assert await ledger.balance("app:demo") == -500
    more = event_id()
    call = ledger.hold(more, "demo", 1, expires_ms=NOW_MS + HOLD_MS, time_ms=NOW_MS)
    await refuses(ledger, call, InsufficientFunds, "credit limit of 500")
    await ledger.deposit(event_id(), "demo", 100, time_ms=NOW_MS)
    await ledger.hold(more, "demo", 50, expires_ms=NOW_MS + HOLD_MS, time_ms=NOW_MS)
    await ledger.set_credit_limit("demo", 0)  # what comes back is never refused
    await ledger.void(more, "demo", time_ms=NOW_MS)
    assert await ledger.balance("app:demo") == -400
    await ledger.void(inference, "demo", time_ms=NOW_MS)
    assert await ledger.balance("app:demo") == 1_100
    with pytest.raises(LedgerRefused, match="out of bounds"):
        await ledger.set_credit_limit("demo", -1)


async def test_a_capture_without_hold_is_refused(ledger: Ledger) -> None:
    never, voided = event_id(), await held(ledger)
    await ledger.void(voided, "demo", time_ms=NOW_MS)
    for inference in (never, voided):
        call = ledger.capture(a_capture(inference), time_ms=NOW_MS)
        await refuses(ledger, call, LedgerRefused, "without hold")


@pytest.mark.parametrize("change", [{"held": 1_001}, {"application": "other"}])
async def test_a_capture_of_something_else_than_was_held_is_refused(
    ledger: Ledger, change: dict[str, object]
) -> None:
    capture = a_capture(await held(ledger), **change)  # type: ignore[arg-type]
    await refuses(ledger, ledger.capture(capture, time_ms=NOW_MS), LedgerRefused, "not of what")


async def test_what_was_captured_is_not_voided_nor_expired(ledger: Ledger) -> None:
    inference = await captured(ledger)
    call = ledger.void(inference, "demo", time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "is captured")
    assert await ledger.expire(inference, time_ms=NOW_MS + HOLD_MS) is None
    assert await ledger.expired_holds(now_ms=NOW_MS + HOLD_MS) == []


async def test_another_application_can_not_void_a_hold(ledger: Ledger) -> None:
    call = ledger.void(await held(ledger), "other", time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "void without hold")


async def test_a_hold_expires_when_its_time_is_over_and_not_before(ledger: Ledger) -> None:
    inference = await held(ledger)
    assert await ledger.expired_holds(now_ms=NOW_MS + HOLD_MS - 1) == []
    assert await ledger.expire(inference, time_ms=NOW_MS + HOLD_MS - 1) is None
    assert await ledger.expired_holds(now_ms=NOW_MS + HOLD_MS) == [inference]
    posted = await ledger.expire(inference, time_ms=NOW_MS + HOLD_MS)
    assert posted is not None
    again = await ledger.expire(inference, time_ms=NOW_MS + HOLD_MS + 1)
    assert again == replace(posted, duplicate=True)
    assert await ledger.balances() == {"funding": -10_000, "app:demo": 10_000}
    assert await ledger.expired_holds(now_ms=NOW_MS + HOLD_MS) == []


async def test_a_late_capture_posts_below_the_limit_and_is_flagged(ledger: Ledger) -> None:
    inference = await expired(ledger)
    spent = event_id()
    await ledger.hold(spent, "demo", 1_000, expires_ms=NOW_MS + HOLD_MS, time_ms=NOW_MS)
    posted = await ledger.capture(a_capture(inference), time_ms=NOW_MS + HOLD_MS)
    assert posted.late
    assert (await ledger.capture(a_capture(inference), time_ms=NOW_MS)).late
    assert await ledger.balance("app:demo") == -900
    assert [entry.kind async for entry in ledger.entries()][-1] == "capture_late"
    record = await ledger.inference(inference)
    assert record is not None
    assert sum(record.legs.values()) == 900


async def test_a_late_capture_of_nothing_posts_an_entry_without_legs(ledger: Ledger) -> None:
    nothing = a_capture(await expired(ledger), credit=0, pools=())
    assert (await ledger.capture(nothing, time_ms=NOW_MS)).late
    assert (await ledger.check()).balanced


async def test_the_whole_hold_may_be_charged_and_nothing_may_be(ledger: Ledger) -> None:
    await ledger.capture(a_capture(await held(ledger), credit=500), time_ms=NOW_MS)
    await ledger.capture(a_capture(await held(ledger), credit=0, pools=()), time_ms=NOW_MS)
    assert await ledger.balance("app:demo") == 19_000
    assert (await ledger.check()).balanced


@pytest.mark.parametrize("refused", ["unknown", "other adapter", "other pool", "no pool"])
async def test_settle_closes_exactly_what_is_open(ledger: Ledger, refused: str) -> None:
    inference = await captured(ledger, (500, 0))
    attribution = {
        "unknown": an_attribution(event_id()),
        "other adapter": replace(an_attribution(inference), adapter_version="law@1"),
        "other pool": an_attribution(inference, pool=499),
        "no pool": an_attribution(inference, 1),
    }[refused]
    call = ledger.settle(attribution, time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "does not hold|not answered")


async def test_two_shares_of_one_contributor_are_refused(ledger: Ledger) -> None:
    inference = await captured(ledger)
    share = Share("alice", 0.5, 500_000_000, 250)
    attribution = replace(an_attribution(inference), shares=(share, share))
    call = ledger.settle(attribution, time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "two legs of contrib:alice")


async def test_each_choice_has_its_own_attribution(ledger: Ledger) -> None:
    inference = await held(ledger)
    await ledger.capture(a_capture(inference, pools=(300, 0, 200)), time_ms=NOW_MS)
    record = await ledger.inference(inference)
    assert record is not None
    assert [(a.state.value, a.pool_nano) for a in record.attributions] == [
        ("pending", 300), ("skipped", 0), ("pending", 200),
    ]  # fmt: skip
    await ledger.settle(an_attribution(inference, pool=300), time_ms=NOW_MS)
    await ledger.settle(a_failure(inference, 2, pool=200), time_ms=NOW_MS)
    record = await ledger.inference(inference)
    assert record is not None
    assert record.legs == {
        "platform": 400, "contrib:alice": 300, f"unattributed:{ADAPTER}": 200,
    }  # fmt: skip
    assert [a.state for a in record.attributions] == [
        AttributionState.DONE, AttributionState.SKIPPED, AttributionState.FAILED,
    ]  # fmt: skip
    assert record.attributions[1].reason == "no tokens were generated"
    assert record.time_ms == NOW_MS


async def test_an_answer_without_pool_is_skipped_and_says_why(ledger: Ledger) -> None:
    inference = await held(ledger)
    assert await ledger.inference(inference) is None
    await ledger.capture(a_capture(inference, pools=()), time_ms=NOW_MS)
    record = await ledger.inference(inference)
    assert record is not None
    assert [(a.state.value, a.reason) for a in record.attributions] == [
        ("skipped", "the base model answered")
    ]


async def test_an_entry_holds_two_thousand_legs(ledger: Ledger) -> None:
    count = LEGS_PER_ENTRY_MAX - 2
    inference = await held(ledger)
    await ledger.capture(a_capture(inference, held=1_000, credit=1, pools=(999,)), time_ms=NOW_MS)
    shares = tuple(Share(f"c{index}", 0.0, 0, 1) for index in range(998))
    await ledger.settle(
        replace(an_attribution(inference, pool=999, unattributed=1), shares=shares), time_ms=NOW_MS
    )
    inference = await held(ledger, 10_000)
    await ledger.capture(
        a_capture(inference, held=10_000, credit=1, pools=(count,)), time_ms=NOW_MS
    )
    shares = tuple(Share(f"c{index}", 0.0, 0, 1) for index in range(count))
    await ledger.settle(
        replace(an_attribution(inference, pool=count), shares=shares), time_ms=NOW_MS
    )
    assert await ledger.balance("contrib:c997") == 2
    assert (await ledger.check()).balanced
