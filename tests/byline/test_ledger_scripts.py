"""The scripts trust no client: what a wrong one sends is refused before anything is written."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import redis as blocking
from hypothesis import given, settings
from hypothesis import strategies as st

from byline.errors import KeyConflict, LedgerDamaged, LedgerRefused
from byline.ledger.ledger import Ledger
from byline.limits import CENT_NANO, LEG_NANO_MAX, LEGS_PER_ENTRY_MAX
from byline.posting import operator_postings, postings
from byline.posting.keys import Keys
from byline.posting.redis_client import Client
from byline.posting.scripts import prelude
from byline.records import Refundable
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
)
from tests.byline.decisions import a_payout, a_refund, a_release, an_adjustment

pytestmark = pytest.mark.anyio
Call = Callable[[], Awaitable[object]]


@pytest.mark.parametrize("nano", ["1.5", "-5", "0", "01", "1e3", "", str(LEG_NANO_MAX + 1)])
async def test_an_amount_that_is_no_small_integer_is_refused(ledger: Ledger, nano: str) -> None:
    posting = postings.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    wrong = replace(posting, arguments=("demo", nano))
    await refuses(ledger, ledger.post(wrong), LedgerRefused, "bad amount")


async def test_legs_that_do_not_sum_to_zero_are_refused(ledger: Ledger) -> None:
    posting = postings.capture(a_capture(await held(ledger)), time_ms=NOW_MS)
    wrong = replace(posting, arguments=(*posting.arguments[:-1], "501"))
    await refuses(ledger, ledger.post(wrong), LedgerRefused, "not sum to zero")


async def test_more_legs_than_can_be_summed_exactly_are_refused(ledger: Ledger) -> None:
    posting = postings.capture(a_capture(await held(ledger)), time_ms=NOW_MS)
    more = [word for i in range(LEGS_PER_ENTRY_MAX) for word in (f"contrib:{i}", "1")]
    wrong = replace(posting, arguments=(*posting.arguments, *more))
    await refuses(ledger, ledger.post(wrong), LedgerRefused, "more legs than")


@pytest.mark.parametrize(("at", "word"), [(7, "soon"), (8, "none"), (8, "")])
async def test_arguments_without_sense_are_refused(ledger: Ledger, at: int, word: str) -> None:
    posting = postings.capture(a_capture(await held(ledger)), time_ms=NOW_MS)
    arguments = list(posting.arguments)
    arguments[at] = word
    wrong = replace(posting, arguments=tuple(arguments))
    error = LedgerRefused if word == "soon" else LedgerDamaged
    await refuses(ledger, ledger.post(wrong), error, "bad time|arithmetic")
    hold = postings.hold(event_id(), "demo", 1, expires_ms=NOW_MS, time_ms=NOW_MS)
    endless = replace(hold, arguments=(*hold.arguments[:3], "inf"))
    await refuses(ledger, ledger.post(endless), LedgerRefused, "bad time")


async def test_only_what_is_listed_falls_below_zero(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    inference = await held(ledger)
    await redis.hdel(Keys(ledger_name).balances, f"hold:{inference}")
    with pytest.raises(LedgerRefused, match=f"hold:{inference} would fall below zero"):
        await ledger.void(inference, "demo", time_ms=NOW_MS)
    with pytest.raises(LedgerRefused, match=f"hold:{inference} does not hold 1000"):
        await ledger.capture(a_capture(inference), time_ms=NOW_MS)


async def marks_dropped(redis: Client, ledger_name: str) -> None:
    """As after 35 days."""
    assert await redis.delete(Keys(ledger_name).marks(NOW_MS // postings.DAY_MS))


async def test_an_inference_is_held_once_even_when_its_mark_is_dropped(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    inference = await held(ledger)
    await marks_dropped(redis, ledger_name)
    call = ledger.hold(inference, "demo", 1_000, expires_ms=NOW_MS + HOLD_MS, time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "was held before")


async def test_a_hold_ends_once_even_when_the_marks_are_dropped(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    voided, gone, done = await held(ledger), await expired(ledger), await captured(ledger)
    await ledger.void(voided, "demo", time_ms=NOW_MS)
    await marks_dropped(redis, ledger_name)
    for inference in (voided, gone, done):
        call = ledger.void(inference, "demo", time_ms=NOW_MS)
        await refuses(ledger, call, LedgerRefused, "void without hold")
        assert await ledger.expire(inference, time_ms=NOW_MS + HOLD_MS) is None
    for inference in (voided, done):
        call = ledger.capture(a_capture(inference), time_ms=NOW_MS)
        await refuses(ledger, call, LedgerRefused, "capture without hold")
    assert (await ledger.check()).journal_entries == 9


async def test_a_pool_is_settled_once_even_when_its_mark_is_dropped(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    inference = await captured(ledger)
    settled = await ledger.settle(an_attribution(inference), time_ms=NOW_MS)
    await marks_dropped(redis, ledger_name)
    again = await ledger.settle(an_attribution(inference), time_ms=NOW_MS)
    assert again == replace(settled, duplicate=True)
    call = ledger.settle(a_failure(inference), time_ms=NOW_MS)
    await refuses(ledger, call, KeyConflict, "another attribution")


async def test_an_operation_is_posted_once_even_when_its_mark_is_lost(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    await captured(ledger)
    adjustment = an_adjustment(platform=-1, host=1)
    await ledger.adjust(adjustment, time_ms=NOW_MS)
    await redis.delete(Keys(ledger_name).marks(postings.OPERATIONS))
    call = ledger.adjust(adjustment, time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "was used before")


async def test_an_operation_does_not_take_the_id_of_an_inference(ledger: Ledger) -> None:
    inference = await captured(ledger)
    call = ledger.adjust(an_adjustment(inference, platform=-1, host=1), time_ms=NOW_MS)
    await refuses(ledger, call, LedgerRefused, "was used before")


@pytest.mark.parametrize("account", ["hold:x", "open:x"])
async def test_no_script_adjusts_what_an_inference_closes(ledger: Ledger, account: str) -> None:
    await captured(ledger)
    posting = operator_postings.adjust(an_adjustment(platform=-1, host=1), time_ms=NOW_MS)
    wrong = replace(posting, arguments=(posting.arguments[0], "platform", "-1", account, "1"))
    await refuses(ledger, ledger.post(wrong), LedgerRefused, "can not be adjusted")


@pytest.mark.parametrize(
    ("legs", "says"),
    [
        (("platform", "5"), "nothing is released to platform"),
        (("open:x", "5"), "nothing is released to open:x"),
        (("contrib:a", "10", "contrib:b", "-5"), "takes nothing from contrib:b"),
        (("contrib:a", "4"), "not sum to zero"),
    ],
)
async def test_no_script_releases_otherwise(
    ledger: Ledger, legs: tuple[str, ...], says: str
) -> None:
    await ledger.settle(a_failure(await captured(ledger)), time_ms=NOW_MS)
    posting = operator_postings.release(a_release(contrib__a=5), time_ms=NOW_MS)
    wrong = replace(posting, arguments=(*posting.arguments[:3], *legs))
    await refuses(ledger, ledger.post(wrong), LedgerRefused, says)


@pytest.mark.parametrize(
    ("account", "nano", "says"),
    [
        ("contrib:alice", str(CENT_NANO + 1), "whole cents"),
        ("contrib:alice", f"-{CENT_NANO}", "whole cents"),
        ("app:demo", str(CENT_NANO), "app:demo is not paid out"),
        ("hostess", str(CENT_NANO), "hostess is not paid out"),
    ],
)
async def test_no_script_pays_out_otherwise(
    ledger: Ledger, account: str, nano: str, says: str
) -> None:
    await held(ledger, funds=2 * CENT_NANO)
    posting = operator_postings.payout(a_payout("contrib:alice"), time_ms=NOW_MS)
    wrong = replace(
        posting, arguments=(posting.arguments[0], account, nano, *posting.arguments[3:])
    )
    await refuses(ledger, ledger.post(wrong), LedgerRefused, says)


@pytest.mark.parametrize(
    "lines",
    [("1", "x", "0", "0"), ("11", "9", "0", "0"), ("x", "9", "0", "0"), ("1", "9", "0", "")],
)
async def test_no_script_pays_out_lines_without_sense(
    ledger: Ledger, lines: tuple[str, ...]
) -> None:
    await ledger.adjust(an_adjustment(host=CENT_NANO, refund=-CENT_NANO), time_ms=NOW_MS)
    posting = operator_postings.payout(a_payout("host"), time_ms=NOW_MS)
    wrong = replace(posting, arguments=(*posting.arguments[:3], *lines))
    await refuses(ledger, ledger.post(wrong), LedgerRefused, "can not pay lines|arithmetic")


@pytest.mark.parametrize(
    ("payees", "says"),
    [({"platform": 1_000}, "not sum to zero"), ({"platform": -5, "host": 10}, "bad amount -5")],
)
async def test_no_script_refunds_other_parts(
    ledger: Ledger, payees: dict[str, int], says: str
) -> None:
    inference = await captured(ledger, ())
    posting = operator_postings.refund(
        a_refund(inference, 5), Refundable({"platform": 400}, 0, None), time_ms=NOW_MS
    )
    parts = [word for account, nano in payees.items() for word in (account, str(nano))]
    wrong = replace(posting, arguments=(*posting.arguments[:5], *parts))
    await refuses(ledger, ledger.post(wrong), LedgerRefused, says)


WRITTEN = {
    "deposit": ("marks", "balances", "journal", "meta", "limits"),
    "hold": ("marks", "balances", "journal", "meta", "facts", "holds"),
    "void": ("marks", "balances", "journal", "meta", "facts", "holds"),
    "capture": ("marks", "balances", "journal", "meta", "facts", "holds", "pools", "jobs"),
    "settle": ("marks", "balances", "journal", "meta", "facts", "pools"),
    "adjust": ("marks", "balances", "journal", "meta", "facts"),
    "release": ("marks", "balances", "journal", "meta", "facts"),
    "refund": ("marks", "balances", "journal", "meta", "facts", "concerned"),
    "payout": ("marks", "balances", "journal", "meta", "facts", "blocked", "paid"),
}


@pytest.mark.parametrize(
    ("operation", "key"), [(name, key) for name, keys in WRITTEN.items() for key in keys]
)
async def test_a_key_of_the_wrong_type_is_refused_before_anything_is_written(
    ledger: Ledger, ledger_name: str, redis: Client, operation: str, key: str
) -> None:
    waiting, open_, settled = await held(ledger), await captured(ledger), await captured(ledger)
    await ledger.settle(an_attribution(settled, unattributed=100), time_ms=NOW_MS)
    posting = {
        "deposit": postings.deposit(event_id(), "shop", 1, time_ms=NOW_MS),
        "hold": postings.hold(event_id(), "demo", 1, expires_ms=NOW_MS, time_ms=NOW_MS),
        "void": postings.void(waiting, "demo", time_ms=NOW_MS),
        "capture": postings.capture(a_capture(waiting), time_ms=NOW_MS),
        "settle": postings.settle(an_attribution(open_), time_ms=NOW_MS),
        "adjust": operator_postings.adjust(an_adjustment(platform=-1, host=1), time_ms=NOW_MS),
        "release": operator_postings.release(a_release(contrib__bob=1), time_ms=NOW_MS),
        "refund": operator_postings.refund(
            a_refund(settled, 400), Refundable({"platform": 400}, 0, ADAPTER), time_ms=NOW_MS
        ),
        "payout": operator_postings.payout(a_payout("contrib:alice"), time_ms=NOW_MS),
    }[operation]
    keys = Keys(ledger_name)
    name = {
        "marks": keys.marks(posting.bucket), "facts": keys.inference(posting.inference),
        "concerned": keys.inference(posting.concerns or ""),
    }.get(key) or getattr(keys, key)  # fmt: skip
    await redis.delete(name)
    await redis.set(name, "not ours")
    before = await everything(redis, keys)
    with pytest.raises(LedgerDamaged, match="wrong type"):
        await ledger.post(posting)
    assert await everything(redis, keys) == before


async def everything(redis: Client, keys: Keys) -> dict[str, object]:
    """All that the ledger holds, by key."""
    read = {"hash": redis.hgetall, "stream": redis.xrange, "string": redis.get}
    found: dict[str, object] = {}
    for name in await redis.keys(keys.tag + "*"):
        kind = await redis.type(name)
        found[name] = await (
            redis.zrange(name, 0, -1, withscores=True) if kind == "zset" else read[kind](name)
        )
    return found


async def test_nothing_is_posted_behind_an_entry_that_was_deleted(
    ledger: Ledger, ledger_name: str, redis: Client
) -> None:
    journal = Keys(ledger_name).journal
    await captured(ledger)
    await redis.xadd(journal, {"e": "{}"}, id="9-1")
    call = ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
    with pytest.raises(LedgerDamaged, match="does not end where"):
        await call
    await redis.xdel(journal, "9-1")
    with pytest.raises(LedgerDamaged, match="does not end where"):
        await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)


decimal = st.integers(-(10**18) + 1, 10**18 - 1)
smaller = st.integers(-(10**16), 10**16)
edges = st.sampled_from([s * 10**e + d for s in (-1, 1) for e in (9, 15, 17) for d in (-1, 0, 1)])


@settings(max_examples=300)
@given(decimal | smaller | edges, decimal | smaller | edges)
def test_the_scripts_add_eighteen_digits_exactly(redis_url: str, one: int, other: int) -> None:
    script = prelude() + "return plus(GIVEN[1], GIVEN[2])"
    with blocking.Redis.from_url(redis_url) as client:
        assert client.eval(script, 0, one, other) == str(one + other).encode()
