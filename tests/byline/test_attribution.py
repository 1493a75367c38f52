"""Scores become shares and money.

For every job and every set of finite scores: the parts sum to one whole in parts per billion and to
the pool in nano-USD; nobody with a score of zero or less is paid; the order of pay is the order of
scores; and where the adapter lifted nothing, or nothing was positive, nobody is paid.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byline.attribution import (
    NO_LIFT,
    NO_POSITIVE_INFLUENCE,
    Measurement,
    attribute,
    failed,
    integer_weights,
    skipped,
)
from byline.errors import AttributionFailed
from byline.limits import LEG_NANO_MAX, PPB
from byline.records import Attribution, AttributionJob, AttributionState, ExampleInfluence

JOB = AttributionJob(
    inference="0192f000-0000-7000-8000-000000000001",
    ordinal=0,
    application="clinic",
    adapter_version="healthcare@0123456789ab",
    index="healthcare@ba9876543210",
    tokens_sha256="0" * 64,
    pool_nano=12_345,
    enqueued_ms=1,
)
finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
scores = st.dictionaries(st.sampled_from([f"c{i}" for i in range(12)]), finite, min_size=1)
pools = st.integers(min_value=0, max_value=LEG_NANO_MAX)


def measured(scores: dict[str, float], lift: float = 1.0) -> Measurement:
    return Measurement(lift_nats=lift, scores=scores, examples=())


def whole(attribution: Attribution) -> bool:
    ppb = sum(share.share_ppb for share in attribution.shares) + attribution.unattributed_ppb
    nano = sum(share.nano for share in attribution.shares) + attribution.unattributed_nano
    return ppb == PPB and nano == attribution.pool_nano


@given(scores, pools, finite)
def test_shares_and_money_sum_to_the_whole(
    given_scores: dict[str, float], pool: int, lift: float
) -> None:
    attribution = attribute(replace(JOB, pool_nano=pool), measured(given_scores, lift))
    assert attribution.state is AttributionState.DONE
    assert whole(attribution)
    assert all(share.nano >= 0 and share.share_ppb > 0 for share in attribution.shares)


@given(scores)
def test_only_positive_scores_are_paid_and_in_their_order(given_scores: dict[str, float]) -> None:
    attribution = attribute(JOB, measured(given_scores))
    paid = {share.contributor: share for share in attribution.shares}
    assert all(given_scores[who] > 0 for who in paid)
    ranked = sorted(paid, key=lambda who: -given_scores[who])
    by_rank = [paid[who].share_ppb for who in ranked]
    assert all(more >= less - 1 for more, less in pairwise(by_rank))


@given(scores, st.floats(max_value=0, allow_nan=False, allow_infinity=False))
def test_without_lift_nobody_is_paid(given_scores: dict[str, float], lift: float) -> None:
    attribution = attribute(JOB, measured(given_scores, lift))
    assert attribution.reason == NO_LIFT
    assert attribution.shares == ()
    assert attribution.unattributed_nano == JOB.pool_nano
    assert attribution.scores == given_scores


@given(st.dictionaries(st.text(max_size=3), st.floats(max_value=0, allow_infinity=False)))
def test_without_a_positive_score_nobody_is_paid(given_scores: dict[str, float]) -> None:
    attribution = attribute(JOB, measured(given_scores))
    assert attribution.reason == NO_POSITIVE_INFLUENCE
    assert attribution.unattributed_ppb == PPB
    assert whole(attribution)


@given(st.dictionaries(st.text(max_size=3), st.floats(min_value=1e-300, max_value=1e300)))
def test_integer_weights_are_exactly_proportional(given_scores: dict[str, float]) -> None:
    if not given_scores:
        return
    weights = integer_weights(given_scores)
    names = list(given_scores)
    for one, other in pairwise(names):
        left_numerator, left_denominator = given_scores[one].as_integer_ratio()
        right_numerator, right_denominator = given_scores[other].as_integer_ratio()
        left = left_numerator * right_denominator * weights[other]
        assert left == right_numerator * left_denominator * weights[one]


def test_equal_scores_share_equally() -> None:
    attribution = attribute(replace(JOB, pool_nano=10), measured({"a": 0.25, "b": 0.25}))
    assert {share.contributor: share.nano for share in attribution.shares} == {"a": 5, "b": 5}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_fails_the_attribution(bad: float) -> None:
    with pytest.raises(AttributionFailed):
        attribute(JOB, measured({"a": bad}))
    with pytest.raises(AttributionFailed):
        attribute(JOB, measured({"a": 1.0}, lift=bad))
    shown = (ExampleInfluence("row", "a", bad),)
    with pytest.raises(AttributionFailed):
        attribute(JOB, Measurement(lift_nats=1.0, scores={"a": 1.0}, examples=shown))


@pytest.mark.parametrize(
    ("close", "state"),
    [(failed, AttributionState.FAILED), (skipped, AttributionState.SKIPPED)],
)
def test_what_is_not_done_leaves_the_whole_pool_unattributed(
    close: Callable[[AttributionJob, str], Attribution], state: AttributionState
) -> None:
    attribution = close(JOB, "because")
    assert (attribution.state, attribution.reason) == (state, "because")
    assert attribution.adapter_version == JOB.adapter_version
    assert whole(attribution)
