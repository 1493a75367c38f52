"""What an operator's operation posts; decisions without sense don't reach the ledger."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byline.errors import LedgerRefused
from byline.inference_records import refundable
from byline.limits import CENT_NANO, LEG_NANO_MAX
from byline.posting import operator_postings
from byline.posting.postings import OPERATIONS
from byline.records import Adjustment, Leg, Refundable
from tests.byline.cases import NOW_MS, event_id
from tests.byline.decisions import a_payout, a_refund, a_release, an_adjustment

INFERENCE = event_id()


@pytest.mark.parametrize(
    ("legs", "says"),
    [
        ((), "sum to zero"),
        ((Leg("host", 5),), "sum to zero"),
        ((Leg("host", 5), Leg("platform", -4)), "sum to zero"),
        ((Leg("host", 0), Leg("platform", 0)), "must be positive"),
        ((Leg("host", -LEG_NANO_MAX - 1), Leg("platform", LEG_NANO_MAX + 1)), "in parts"),
        ((Leg(f"hold:{INFERENCE}", 5), Leg("platform", -5)), "none of"),
        ((Leg(f"open:{INFERENCE}", 5), Leg("platform", -5)), "none of"),
        ((Leg("contirb:alice", 5), Leg("platform", -5)), "'contirb:alice' is none of"),
        ((Leg("platform:x", 5), Leg("platform", -5)), "none of"),
        ((Leg("contrib:a b", 5), Leg("platform", -5)), "is no account"),
    ],
)
def test_an_adjustment_without_sense_is_refused(legs: tuple[Leg, ...], says: str) -> None:
    adjustment = Adjustment(event_id(), legs, "counted twice", "ann")
    with pytest.raises(LedgerRefused, match=says):
        operator_postings.adjust(adjustment, time_ms=NOW_MS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"reason": " "}, "a reason"),
        ({"by": ""}, "who decided"),
        ({"operation": "x"}, "no UUIDv7"),
    ],
)
def test_an_adjustment_says_why_and_by_whom(change: dict[str, str], says: str) -> None:
    adjustment = replace(an_adjustment(host=1, platform=-1), **change)  # type: ignore[arg-type]
    with pytest.raises(LedgerRefused, match=says):
        operator_postings.adjust(adjustment, time_ms=NOW_MS)


@pytest.mark.parametrize(
    ("credited", "says"),
    [
        ({}, "must be positive"),
        ({"contrib__a": 0}, "must be positive"),
        ({"contrib__a": -1, "contrib__b": 2}, "must be positive"),
        ({"contrib__a": LEG_NANO_MAX, "contrib__b": 1}, "send it in parts"),
        ({"platform": 1}, "'platform' is none of"),
        ({"unattributed__law": 1}, "none of"),
    ],
)
def test_a_release_without_sense_is_refused(credited: dict[str, int], says: str) -> None:
    with pytest.raises(LedgerRefused, match=says):
        operator_postings.release(a_release(**credited), time_ms=NOW_MS)


def test_a_release_names_its_decision_and_a_version() -> None:
    release = a_release(contrib__a=1)
    with pytest.raises(LedgerRefused, match="decision is published"):
        operator_postings.release(replace(release, decision=""), time_ms=NOW_MS)
    with pytest.raises(LedgerRefused, match="is no account"):
        operator_postings.release(replace(release, adapter_version='"'), time_ms=NOW_MS)


@pytest.mark.parametrize("nano", [0, -1, LEG_NANO_MAX + 1])
def test_a_refund_has_an_amount_a_reason_and_an_inference(nano: int) -> None:
    nothing = Refundable({}, 0, None)
    with pytest.raises(LedgerRefused, match=r"must be positive|send it in parts"):
        operator_postings.refund(a_refund(INFERENCE, nano), nothing, time_ms=NOW_MS)
    refund = a_refund(INFERENCE, 1)
    with pytest.raises(LedgerRefused, match="a reason"):
        operator_postings.refund(replace(refund, reason=""), nothing, time_ms=NOW_MS)
    with pytest.raises(LedgerRefused, match="no UUIDv7"):
        operator_postings.refund(replace(refund, inference="x"), nothing, time_ms=NOW_MS)


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, LEG_NANO_MAX // 8), min_size=1),
    st.data(),
)
def test_no_part_of_a_refund_is_more_than_what_is_left(
    left: dict[str, int], data: st.DataObject
) -> None:
    total = sum(left.values())
    nano = data.draw(st.integers(1, total))
    posting = operator_postings.refund(
        a_refund(INFERENCE, nano), Refundable(left, 3, None), time_ms=NOW_MS
    )
    flat = posting.arguments[5:]
    parts = dict(zip(flat[::2], map(int, flat[1::2]), strict=True))
    assert sum(parts.values()) == nano
    for account, part in parts.items():
        assert 0 < part <= left[account]
        assert abs(part * total - nano * left[account]) < total  # within one unit of exact


def test_only_what_is_asked_for_decides_whether_a_refund_is_the_same() -> None:
    refund = a_refund(INFERENCE, 5)
    first = operator_postings.refund(refund, Refundable({"host": 9}, 0, None), time_ms=NOW_MS)
    later = operator_postings.refund(refund, Refundable({"host": 2}, 7, None), time_ms=NOW_MS + 1)
    other = operator_postings.refund(
        replace(refund, reason="another"), Refundable({"host": 9}, 0, None), time_ms=NOW_MS
    )
    assert (first.key, first.digest) == (later.key, later.digest)
    assert first.arguments != later.arguments
    assert other.digest != first.digest
    assert first.concerns == INFERENCE


def test_nothing_of_an_unknown_inference_is_refundable() -> None:
    assert refundable({}) == Refundable({}, 0, None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"nano": CENT_NANO + 1}, "no whole cents"),
        ({"nano": 0}, "must be positive"),
        ({"nano": -CENT_NANO}, "must be positive"),
        ({"account": "app:demo"}, "'app:demo' is none of"),
        ({"account": "payout"}, "none of"),
        ({"account": "host:x"}, "none of"),
        ({"account": f"unattributed:{INFERENCE}"}, "none of"),
    ],
)
def test_a_payout_without_sense_is_refused(change: dict[str, object], says: str) -> None:
    payout = replace(a_payout("contrib:alice"), **change)  # type: ignore[arg-type]
    with pytest.raises(LedgerRefused, match=says):
        operator_postings.payout(payout, time_ms=NOW_MS)


def test_an_operations_mark_is_kept_for_ever_and_its_amounts_are_strings() -> None:
    posting = operator_postings.payout(a_payout("contrib:alice", 3), time_ms=NOW_MS)
    assert posting.bucket == OPERATIONS
    assert json.loads(posting.payload)["nano"] == "30000000"
