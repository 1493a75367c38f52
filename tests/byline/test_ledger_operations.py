"""Adjust, release, refund and payout post what they say, once, or are refused and write nothing."""

import json
from dataclasses import replace

import pytest

from byline.canonical import canonical_text, sha256_hex
from byline.errors import InsufficientFunds, KeyConflict, LedgerRefused
from byline.inference_records import refundable
from byline.ledger.ledger import Ledger
from byline.limits import CENT_NANO, CONTRIBUTOR_DEBT_NANO_MAX, LEG_NANO_MAX, LEGS_PER_ENTRY_MAX
from byline.posting import operator_postings
from byline.posting.keys import Keys
from byline.posting.redis_client import Client
from byline.records import Adjustment, Leg, Posted, Share, UnattributedRelease
from tests.byline.cases import (
    ADAPTER,
    HOLD_MS,
    NOW_MS,
    a_capture,
    a_failure,
    an_attribution,
    captured,
    event_id,
    held,
    refuses,
)
from tests.byline.decisions import a_payout, a_refund, a_release, an_adjustment

pytestmark = pytest.mark.anyio


async def adjusted(ledger: Ledger, **nano: int) -> Posted:
    return await ledger.adjust(an_adjustment(**nano), time_ms=NOW_MS)


async def settled(ledger: Ledger, *, unattributed: int = 0) -> str:
    """An inference that was charged 900: 400 for the platform, 500 for alice and unattributed."""
    inference = await captured(ledger)
    await ledger.settle(an_attribution(inference, unattributed=unattributed), time_ms=NOW_MS)
    return inference


async def test_an_adjustment_moves_what_it_says(ledger: Ledger) -> None:
    await settled(ledger)
    posted = await adjusted(ledger, contrib__alice=-100, contrib__bob=70, app__demo=30)
    balances = await ledger.balances()
    assert (balances["contrib:alice"], balances["contrib:bob"]) == (400, 70)
    assert balances["app:demo"] == 9_130
    entry = [entry async for entry in ledger.entries()][-1]
    assert (entry.seq, entry.kind, entry.charge, entry.inference) == (posted.seq, "adjust", 0, None)


async def test_each_decision_is_kept_as_the_manifest_of_its_entry(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    inference = await settled(ledger, unattributed=100)
    await ledger.deposit(event_id(), "demo", 2 * CENT_NANO, time_ms=NOW_MS)
    await adjusted(ledger, app__demo=-CENT_NANO, contrib__alice=CENT_NANO)
    await ledger.release(a_release(contrib__bob=10), time_ms=NOW_MS)
    await ledger.refund(a_refund(inference, 9), time_ms=NOW_MS)
    await ledger.payout(a_payout("contrib:alice"), time_ms=NOW_MS)
    entries = [entry async for entry in ledger.entries()][-4:]
    assert [entry.kind for entry in entries] == ["adjust", "release", "refund", "payout"]
    assert [entry.adapter_version for entry in entries] == [None, ADAPTER, ADAPTER, None]
    assert [entry.inference for entry in entries] == [None, None, inference, None]
    manifests = await ledger.manifests(entries)
    for entry, manifest in zip(entries, manifests, strict=True):
        assert manifest is not None
        assert sha256_hex(manifest.encode()) == entry.manifest_sha256
        assert canonical_text(json.loads(manifest)) == manifest
    assert json.loads(manifests[0] or "")["reason"] == "counted twice"
    assert json.loads(manifests[2] or "")["parts"] == [
        ["platform", "4"], ["contrib:alice", "4"], [f"unattributed:{ADAPTER}", "1"],
    ]  # fmt: skip
    for _, fields in await redis.xrange(Keys(ledger_name).journal):
        assert canonical_text(json.loads(fields["e"])) == fields["e"]


async def test_a_repeated_operation_is_a_duplicate_at_any_age(ledger: Ledger) -> None:
    await ledger.deposit(event_id(), "demo", 2 * CENT_NANO, time_ms=NOW_MS)
    inference = await settled(ledger, unattributed=100)
    old = [event_id(NOW_MS - 4_000 * 86_400_000) for _ in range(5)]
    adjustment = an_adjustment(old[0], app__demo=-CENT_NANO, contrib__alice=CENT_NANO)
    for turn in range(2):
        now = NOW_MS + turn
        answers = [
            await ledger.adjust(adjustment, time_ms=now),
            await ledger.release(a_release(old[1], contrib__bob=10), time_ms=now),
            await ledger.refund(a_refund(inference, 900, old[2]), time_ms=now),
            await ledger.payout(a_payout("contrib:alice", 1, old[3]), time_ms=now),
            await ledger.deposit(old[4], "demo", 1, time_ms=now),
        ]
        assert [answer.seq for answer in answers] == [6, 7, 8, 9, 10]
        assert [answer.duplicate for answer in answers] == [bool(turn)] * 5


async def test_another_decision_under_the_same_id_is_a_conflict(ledger: Ledger) -> None:
    await ledger.deposit(event_id(), "demo", 2 * CENT_NANO, time_ms=NOW_MS)
    inference = await settled(ledger, unattributed=100)
    ids = [event_id() for _ in range(4)]
    await adjusted(ledger, app__demo=-CENT_NANO, contrib__alice=CENT_NANO)
    adjustment = an_adjustment(ids[0], host=5, platform=-5)
    await ledger.adjust(adjustment, time_ms=NOW_MS)
    await ledger.release(a_release(ids[1], contrib__bob=10), time_ms=NOW_MS)
    await ledger.refund(a_refund(inference, 9, ids[2]), time_ms=NOW_MS)
    await ledger.payout(a_payout("contrib:alice", 1, ids[3]), time_ms=NOW_MS)
    for call in (
        ledger.adjust(replace(adjustment, by="bob"), time_ms=NOW_MS),
        ledger.release(a_release(ids[1], contrib__bob=11), time_ms=NOW_MS),
        ledger.refund(a_refund(inference, 10, ids[2]), time_ms=NOW_MS),
        ledger.refund(a_refund(inference, 10_000, ids[2]), time_ms=NOW_MS),
        ledger.payout(a_payout("contrib:alice", 2, ids[3]), time_ms=NOW_MS),
    ):
        await refuses(ledger, call, KeyConflict, "another payload")


async def test_an_id_is_used_for_one_operation_only(ledger: Ledger) -> None:
    await settled(ledger, unattributed=100)
    operation = event_id()
    await ledger.adjust(an_adjustment(operation, platform=-1, host=1), time_ms=NOW_MS)
    call = ledger.release(a_release(operation, contrib__bob=1), time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "was used before")


async def test_a_contributor_owes_so_much_and_by_an_adjustment_alone(ledger: Ledger) -> None:
    debt = CONTRIBUTOR_DEBT_NANO_MAX
    await adjusted(ledger, contrib__alice=-debt, platform=debt)
    assert await ledger.balance("contrib:alice") == -debt
    more = an_adjustment(contrib__alice=-1, platform=1)
    await refuses(ledger, ledger.adjust(more, time_ms=NOW_MS), LedgerRefused, f"below -{debt}")
    call = ledger.payout(a_payout("contrib:alice"), time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "would fall below")
    await settled(ledger)  # what is earned pays the debt off
    assert await ledger.balance("contrib:alice") == 500 - debt


async def test_unattributed_owes_so_much_and_by_an_adjustment_alone(ledger: Ledger) -> None:
    debt, account = CONTRIBUTOR_DEBT_NANO_MAX, f"unattributed:{ADAPTER}"
    await adjusted(ledger, **{f"unattributed__{ADAPTER}": -debt, "platform": debt})
    assert await ledger.balance(account) == -debt
    more = an_adjustment(**{f"unattributed__{ADAPTER}": -1, "platform": 1})
    await refuses(ledger, ledger.adjust(more, time_ms=NOW_MS), LedgerRefused, f"below -{debt}")
    call = ledger.release(a_release(contrib__bob=1), time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, f"{account} would fall below zero")
    inference = await settled(ledger, unattributed=100)
    assert await ledger.balance(account) == 100 - debt
    await ledger.refund(a_refund(inference, 900), time_ms=NOW_MS)  # what it lacks is `refund`'s
    assert await ledger.balance(account) == 100 - debt


@pytest.mark.parametrize("account", ["platform", "host", "base__b", "owner__o"])
async def test_no_other_payee_falls_below_zero(ledger: Ledger, account: str) -> None:
    await adjusted(ledger, **{account: 5, "refund": -5})
    more = an_adjustment(**{account: -6, "contrib__a": 6})
    call = ledger.adjust(more, time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, f"{more.legs[0].account} would fall below zero")
    await adjusted(ledger, **{account: -5, "refund": 5})
    assert await ledger.balances() == {}


@pytest.mark.parametrize("account", ["funding", "payout", "refund"])
async def test_a_clearing_account_falls_to_the_last_digit(
    ledger: Ledger, ledger_name: str, redis: Client, account: str
) -> None:
    balances = Keys(ledger_name).balances
    await redis.hset(balances, account, 1 - 10**18 + 5)
    await adjusted(ledger, **{account: -5, "platform": 5})
    assert await ledger.balance(account) == 1 - 10**18
    with pytest.raises(LedgerRefused, match="too many digits"):
        await adjusted(ledger, **{account: -1, "platform": 1})


async def test_an_application_falls_to_its_credit_limit_and_no_further(ledger: Ledger) -> None:
    await ledger.set_credit_limit("demo", 5)
    await adjusted(ledger, app__demo=-5, platform=5)
    more = an_adjustment(app__demo=-1, platform=1)
    call = ledger.adjust(more, time_ms=NOW_MS)
    await refuses(ledger, call, InsufficientFunds, "credit limit of 5")
    await adjusted(ledger, app__demo=1, platform=-1)  # what comes back is never refused


async def test_two_thousand_legs_are_adjusted_and_no_more(ledger: Ledger) -> None:
    payees = tuple(Leg(f"contrib:c{index}", 1) for index in range(LEGS_PER_ENTRY_MAX - 1))
    legs = (Leg("refund", -len(payees)), *payees)
    await ledger.adjust(Adjustment(event_id(), legs, "a gift", "ann"), time_ms=NOW_MS)
    assert await ledger.balance("contrib:c1998") == 1
    more = (*legs[:-1], Leg("payout", 2), Leg("host", -1))
    call = ledger.adjust(Adjustment(event_id(), more, "a gift", "ann"), time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "2001 legs: an entry has 2000 at most")


async def test_what_is_unattributed_goes_to_whom_the_decision_names(ledger: Ledger) -> None:
    await ledger.settle(a_failure(await captured(ledger)), time_ms=NOW_MS)
    await ledger.release(a_release(contrib__bob=300, owner__healthcare=150), time_ms=NOW_MS)
    balances = await ledger.balances()
    assert balances[f"unattributed:{ADAPTER}"] == 50
    assert (balances["contrib:bob"], balances["owner:healthcare"]) == (300, 150)
    call = ledger.release(a_release(contrib__bob=51), time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, f"unattributed:{ADAPTER} would fall below zero")
    other = UnattributedRelease(event_id(), "law@1", (Leg("contrib:bob", 1),), "https://e.org")
    call = ledger.release(other, time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "unattributed:law@1 would fall below zero")


async def test_a_whole_refund_undoes_the_charge(ledger: Ledger) -> None:
    inference = await settled(ledger, unattributed=100)
    await ledger.refund(a_refund(inference, 900), time_ms=NOW_MS)
    assert await ledger.balances() == {"funding": -10_000, "app:demo": 10_000}
    call = ledger.refund(a_refund(inference, 1), time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "only 0 nano-USD of the charge are left")


async def test_refunds_come_from_what_remains_of_each_credit(ledger: Ledger) -> None:
    inference = await settled(ledger, unattributed=1)
    for nano in (1, 2, 500, 396):
        await ledger.refund(a_refund(inference, nano), time_ms=NOW_MS)
        balances = await ledger.balances()
        assert min(balances.get(name, 0) for name in ("platform", "contrib:alice")) >= 0
        assert balances.get("refund", 0) == 0
    await ledger.refund(a_refund(inference, 1), time_ms=NOW_MS)
    assert await ledger.balances() == {"funding": -10_000, "app:demo": 10_000}


async def test_what_a_payee_has_no_longer_comes_from_refund_clearing(ledger: Ledger) -> None:
    inference = await settled(ledger)
    await adjusted(ledger, contrib__alice=-450, payout=450)  # as if it was paid out
    await ledger.refund(a_refund(inference, 450), time_ms=NOW_MS)  # 200 platform, 250 alice
    balances = await ledger.balances()
    assert "contrib:alice" not in balances
    assert (balances["refund"], balances["platform"], balances["app:demo"]) == (-200, 200, 9_550)
    await adjusted(ledger, contrib__alice=-30, payout=30)  # now it owes something
    await ledger.refund(a_refund(inference, 450), time_ms=NOW_MS)
    balances = await ledger.balances()
    assert (balances["contrib:alice"], balances["refund"]) == (-30, -450)
    assert "platform" not in balances
    assert (await ledger.check()).balanced


async def test_a_refund_waits_until_every_pool_is_settled(ledger: Ledger) -> None:
    inference = await held(ledger)
    await ledger.capture(a_capture(inference, pools=(300, 0, 200)), time_ms=NOW_MS)
    await ledger.settle(an_attribution(inference, pool=300), time_ms=NOW_MS)
    call = ledger.refund(a_refund(inference, 1), time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, f"open:{inference}/2 is not settled")
    await ledger.settle(a_failure(inference, 2, pool=200), time_ms=NOW_MS)
    await ledger.refund(a_refund(inference, 900), time_ms=NOW_MS)
    assert await ledger.balances() == {"funding": -10_000, "app:demo": 10_000}


async def test_what_was_not_captured_is_not_refunded(ledger: Ledger) -> None:
    voided, waiting = await held(ledger), await held(ledger)
    await ledger.void(voided, "demo", time_ms=NOW_MS)
    for inference in (voided, waiting, event_id()):
        call = ledger.refund(a_refund(inference, 1), time_ms=NOW_MS)
        await refuses(ledger, call, LedgerRefused, "refund without capture")
    nothing = a_capture(waiting, credit=0, pools=())
    await ledger.capture(nothing, time_ms=NOW_MS)
    call = ledger.refund(a_refund(waiting, 1), time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "only 0 nano-USD")


async def test_more_than_the_charge_is_not_refunded(ledger: Ledger) -> None:
    inference = await settled(ledger)
    call = ledger.refund(a_refund(inference, 901), time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "only 900 nano-USD")
    await ledger.refund(a_refund(inference, 600), time_ms=NOW_MS)
    call = ledger.refund(a_refund(inference, 301), time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "only 300 nano-USD")


async def test_a_refund_whose_parts_are_out_of_date_is_refused(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    """As when another refund comes between the reading of the facts and the posting."""
    inference = await settled(ledger)
    facts = await redis.hgetall(Keys(ledger_name).inference(inference))
    await ledger.refund(a_refund(inference, 400), time_ms=NOW_MS)
    stale = operator_postings.refund(a_refund(inference, 500), refundable(facts), time_ms=NOW_MS)
    await refuses(ledger, ledger.post(stale), LedgerRefused, "changed meanwhile")


async def test_a_late_capture_is_refunded_too(ledger: Ledger) -> None:
    inference = await held(ledger, funds=1_000)
    await ledger.expire(inference, time_ms=NOW_MS + HOLD_MS)
    await ledger.capture(a_capture(inference, pools=()), time_ms=NOW_MS + HOLD_MS)
    await ledger.refund(a_refund(inference, 400), time_ms=NOW_MS)
    assert await ledger.balances() == {"funding": -1_000, "app:demo": 1_000}
    record = await ledger.inference(inference)
    assert record is not None
    assert record.legs == {"platform": 400}  # what was charged stays on record


async def test_whole_cents_are_paid_out_and_the_rest_stays(ledger: Ledger) -> None:
    await adjusted(ledger, contrib__alice=3 * CENT_NANO - 1, refund=1 - 3 * CENT_NANO)
    await ledger.payout(a_payout("contrib:alice", 2), time_ms=NOW_MS)
    assert await ledger.balance("contrib:alice") == CENT_NANO - 1
    assert await ledger.balance("payout") == 2 * CENT_NANO
    call = ledger.payout(a_payout("contrib:alice", first_seq=2), time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "would fall below zero")


async def test_no_line_is_paid_by_two_payouts(ledger: Ledger) -> None:
    await adjusted(ledger, contrib__alice=9 * CENT_NANO, host=CENT_NANO, refund=-10 * CENT_NANO)
    first = replace(a_payout("contrib:alice", 2), lines_nano=2 * CENT_NANO + 7, last_seq=2)
    await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    posted = await ledger.payout(first, time_ms=NOW_MS)
    for seq in (1, 2):
        call = ledger.payout(a_payout("contrib:alice", first_seq=seq), time_ms=NOW_MS)
        await refuses(ledger, call, LedgerRefused, "paid before, up to entry 2")
    next_part = replace(a_payout("contrib:alice"), first_seq=3, last_seq=2, opening_nano=7)
    await ledger.payout(next_part, time_ms=NOW_MS)  # the rest of the same lines
    left = next_part.opening_nano + next_part.lines_nano - next_part.nano
    call = ledger.payout(a_payout("contrib:alice", first_seq=2), time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "paid before")
    following = replace(a_payout("contrib:alice", first_seq=3), opening_nano=left)
    await ledger.payout(following, time_ms=NOW_MS)
    await ledger.payout(a_payout("host"), time_ms=NOW_MS)  # every account by itself
    assert await ledger.payout(first, time_ms=NOW_MS) == replace(posted, duplicate=True)


async def test_a_payout_leaves_no_line_out_and_pays_none_that_is_not_there(ledger: Ledger) -> None:
    await adjusted(ledger, host=CENT_NANO, refund=-CENT_NANO)
    call = ledger.payout(a_payout("host", first_seq=2), time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "paid up to entry 0, not to the one before 2")
    call = ledger.payout(replace(a_payout("host"), last_seq=2), time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "the journal has no entry 2")
    await ledger.payout(a_payout("host"), time_ms=NOW_MS)


async def test_a_payout_that_knew_nothing_of_the_one_before_it_is_refused(ledger: Ledger) -> None:
    await adjusted(ledger, host=9 * CENT_NANO, refund=-9 * CENT_NANO)
    await ledger.payout(replace(a_payout("host"), lines_nano=4 * CENT_NANO), time_ms=NOW_MS)
    part = replace(a_payout("host"), first_seq=2, last_seq=1, lines_nano=0)
    await ledger.payout(replace(part, opening_nano=3 * CENT_NANO), time_ms=NOW_MS)
    stale = replace(a_payout("host", 4, first_seq=2), opening_nano=3 * CENT_NANO)
    call = ledger.payout(stale, time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, f"which left {2 * CENT_NANO} nano-USD, not")


async def test_a_blocked_account_is_not_paid_until_it_is_allowed(ledger: Ledger) -> None:
    await adjusted(ledger, contrib__alice=CENT_NANO, refund=-CENT_NANO)
    await ledger.block_payouts("contrib:alice", "a dispute")
    assert await ledger.payout_blocks() == {"contrib:alice": "a dispute"}
    payout = a_payout("contrib:alice")
    call = ledger.payout(payout, time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "held back: a dispute")
    await settled(ledger)  # earnings go on
    await ledger.allow_payouts("contrib:alice")
    await ledger.payout(payout, time_ms=NOW_MS)
    assert await ledger.balance("contrib:alice") == 500


async def test_a_refund_of_many_payees_takes_a_part_of_each(ledger: Ledger) -> None:
    count = LEGS_PER_ENTRY_MAX - 2
    inference = await held(ledger, 10_000)
    await ledger.capture(
        a_capture(inference, held=10_000, credit=0, pools=(3 * count,)), time_ms=NOW_MS
    )
    shares = tuple(Share(f"c{index}", 0.0, 0, 3) for index in range(count))
    attribution = replace(an_attribution(inference, pool=3 * count), shares=shares)
    await ledger.settle(attribution, time_ms=NOW_MS)
    await ledger.refund(a_refund(inference, count), time_ms=NOW_MS)
    assert {await ledger.balance(f"contrib:c{index}") for index in (0, 7, count - 1)} == {2}
    await adjusted(ledger, contrib__c7=-2, host=2)
    await ledger.refund(a_refund(inference, 2 * count), time_ms=NOW_MS)
    assert await ledger.balances() == {
        "funding": -10_000, "app:demo": 10_000, "host": 2, "refund": -2,
    }  # fmt: skip


async def test_every_application_that_ever_had_money_is_known(ledger: Ledger) -> None:
    await ledger.set_credit_limit("shop", 7)
    await ledger.deposit(event_id(), "shop", LEG_NANO_MAX, time_ms=NOW_MS)
    await ledger.deposit(event_id(), "demo", 5, time_ms=NOW_MS)
    await adjusted(ledger, app__demo=-5, refund=5)
    assert await ledger.credit_limits() == {"shop": 7, "demo": 0}


@pytest.mark.parametrize("account", ["hold:other", "open:other", "funding", "payout", "contrib:al"])
async def test_a_capture_credits_nobody_but_those_who_served(ledger: Ledger, account: str) -> None:
    inference = await held(ledger)
    astray = replace(a_capture(inference), credits=(Leg(account, 400),))
    call = ledger.capture(astray, time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, f"does not credit {account}")
