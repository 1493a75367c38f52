"""Scores become shares and money.

For every job and every set of believable scores: the parts sum to one whole in parts per billion
and to the pool in nano-USD; nobody with a score of zero or less is paid; the order of pay is the
order of scores; where the adapter lifted nothing, nothing was positive or nothing is reliable,
nobody is paid; names and the order of scores decide nothing; a record replays to itself, and one
whose score, share or money was changed does not.
"""

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from byline.attribution import (
    NO_LIFT,
    NO_POSITIVE_INFLUENCE,
    NOT_RELIABLE,
    Measurement,
    attribute,
    failed,
    integer_scores,
    replayed,
    skipped,
    unit_scores,
)
from byline.canonical import canonical_text
from byline.errors import AttributionFailed
from byline.limits import LEG_NANO_MAX, PPB, SCORE_NATS_MAX, SCORE_UNITS_PER_NAT
from byline.records import Attribution, AttributionJob, AttributionState, ExampleInfluence
from byline.records_json import attribution_fields, attribution_from

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
believable = st.floats(-SCORE_NATS_MAX, SCORE_NATS_MAX) | st.floats(-1e-6, 1e-6)
people = st.sampled_from([f"c{i}" for i in range(12)])
scores = st.dictionaries(people, believable, min_size=1)
pools = st.integers(min_value=0, max_value=LEG_NANO_MAX)
reliabilities = st.none() | st.integers(0, PPB)
small = st.integers(-(10**9), 10**9)


def measured(
    scores: dict[str, float], lift: float = 1.0, reliability: int | None = None
) -> Measurement:
    return Measurement(lift_nats=lift, scores=scores, examples=(), reliability_ppb=reliability)


def whole(attribution: Attribution) -> bool:
    ppb = sum(share.share_ppb for share in attribution.shares) + attribution.unattributed_ppb
    nano = sum(share.nano for share in attribution.shares) + attribution.unattributed_nano
    return ppb == PPB and nano == attribution.pool_nano


def shares_of(attribution: Attribution) -> dict[str, int]:
    return {share.contributor: share.share_ppb for share in attribution.shares}


@given(scores, pools, finite, reliabilities)
def test_shares_and_money_sum_to_the_whole(
    given_scores: dict[str, float], pool: int, lift: float, reliability: int | None
) -> None:
    attribution = attribute(replace(JOB, pool_nano=pool), measured(given_scores, lift, reliability))
    assert attribution.state is AttributionState.DONE
    assert whole(attribution)
    assert all(share.nano >= 0 and share.share_ppb > 0 for share in attribution.shares)


@given(scores)
def test_only_positive_scores_are_paid_and_in_their_order(given_scores: dict[str, float]) -> None:
    attribution = attribute(JOB, measured(given_scores))
    paid = shares_of(attribution)
    assert all(given_scores[who] > 0 for who in paid)
    ranked = sorted(paid, key=lambda who: -given_scores[who])
    assert all(more >= less - 1 for more, less in pairwise(paid[who] for who in ranked))


@given(scores, st.floats(max_value=0, allow_nan=False, allow_infinity=False))
def test_without_lift_nobody_is_paid_and_the_record_keeps_every_score(
    given_scores: dict[str, float], lift: float
) -> None:
    attribution = attribute(JOB, measured(given_scores, lift))
    assert attribution.reason == NO_LIFT
    assert attribution.shares == ()
    assert attribution.unattributed_nano == JOB.pool_nano
    assert attribution.scores == integer_scores(given_scores)


@given(st.dictionaries(people, st.floats(-SCORE_NATS_MAX, 0)))
def test_without_a_positive_score_nobody_is_paid(given_scores: dict[str, float]) -> None:
    attribution = attribute(JOB, measured(given_scores))
    assert attribution.reason == NO_POSITIVE_INFLUENCE
    assert attribution.unattributed_ppb == PPB
    assert whole(attribution)


@given(scores, st.integers(1, PPB))
def test_what_does_not_replicate_is_unattributed_and_the_rest_keeps_its_proportions(
    given_scores: dict[str, float], reliability: int
) -> None:
    every = attribute(JOB, measured(given_scores))
    assume(every.shares)
    shrunken = attribute(JOB, measured(given_scores, reliability=reliability))
    assert shrunken.unattributed_ppb == PPB - reliability
    paid = shares_of(shrunken)
    for who, share in shares_of(every).items():
        assert abs(paid.get(who, 0) - share * reliability / PPB) <= 2
    assert abs(shrunken.unattributed_nano - JOB.pool_nano * (PPB - reliability) / PPB) <= 1


def test_what_never_replicates_is_paid_to_nobody() -> None:
    attribution = attribute(JOB, measured({"a": 1.0}, reliability=0))
    assert (attribution.reason, attribution.unattributed_ppb) == (NOT_RELIABLE, PPB)
    assert whole(attribution)


@given(scores, reliabilities, st.randoms())
def test_the_order_of_the_scores_decides_nothing(
    given_scores: dict[str, float], reliability: int | None, chance: random.Random
) -> None:
    names = list(given_scores)
    chance.shuffle(names)
    turned = {name: given_scores[name] for name in names}
    one, other = (attribute(JOB, measured(s, 1.0, reliability)) for s in (given_scores, turned))
    assert canonical_text(attribution_fields(one)) == canonical_text(attribution_fields(other))


@given(scores, st.randoms())
def test_names_decide_nothing_but_the_last_part_per_billion(
    given_scores: dict[str, float], chance: random.Random
) -> None:
    others = [f"d{place}" for place in range(len(given_scores))]
    chance.shuffle(others)
    renamed = dict(zip(given_scores, others, strict=True))
    one = shares_of(attribute(JOB, measured(given_scores)))
    score_of = {renamed[who]: score for who, score in given_scores.items()}
    other = shares_of(attribute(JOB, measured(score_of)))
    assert all(abs(one.get(who, 0) - other.get(new, 0)) <= 1 for who, new in renamed.items())


rows = st.lists(st.tuples(people | st.none(), small), min_size=1, max_size=40)


@given(rows)
def test_a_row_of_weight_zero_counts_for_nobody_and_its_sender_is_paid_exactly_nothing(
    given_rows: list[tuple[str | None, int]],
) -> None:
    row_scores = {f"row-{place}": score for place, (_, score) in enumerate(given_rows)}
    owners = {f"row-{place}": owner for place, (owner, _) in enumerate(given_rows)}
    copied = {"copy": 10**15, **row_scores}
    sums = unit_scores(copied, {"copy": None, **owners})
    assert sums == unit_scores(row_scores, owners)
    assert sum(sums.values()) == sum(score for owner, score in given_rows if owner is not None)
    assert set(sums) == {owner for owner, _ in given_rows if owner is not None}


@given(rows, st.lists(st.integers(0, 3), min_size=40, max_size=40))
def test_splitting_an_account_gains_its_negative_parts_and_rounding_alone(
    given_rows: list[tuple[str | None, int]], parts: list[int]
) -> None:
    """The sum of scores is the same; a part below zero no longer weighs against the others."""
    row_scores = {f"row-{place}": score for place, (_, score) in enumerate(given_rows)}
    owners = {f"row-{place}": owner or "c0" for place, (owner, _) in enumerate(given_rows)}
    split = {
        row: f"c0-{parts[place]}" if owner == "c0" else owner
        for place, (row, owner) in enumerate(owners.items())
    }
    before, after = unit_scores(row_scores, owners), unit_scores(row_scores, split)
    own = {who: score for who, score in after.items() if who.startswith("c0-")}
    assert sum(own.values()) == before.get("c0", 0)
    assume(any(score > 0 for score in before.values()))
    below_zero = sum(-score for score in own.values() if score < 0)
    others = sum(max(score, 0) for who, score in before.items() if who != "c0")
    most = max(before.get("c0", 0), 0)
    allowed = PPB * (most + below_zero) / max(most + below_zero + others, 1)
    paid = attribute(JOB, measured({who: s / SCORE_UNITS_PER_NAT for who, s in after.items()}))
    gained = sum(share for who, share in shares_of(paid).items() if who in own)
    assert gained <= allowed + len(after)
    if not below_zero and most:
        as_one = attribute(
            JOB, measured({who: s / SCORE_UNITS_PER_NAT for who, s in before.items()})
        )
        assert abs(gained - shares_of(as_one).get("c0", 0)) <= len(after)


@given(scores, pools, finite, reliabilities)
def test_a_record_replays_to_itself_through_its_json(
    given_scores: dict[str, float], pool: int, lift: float, reliability: int | None
) -> None:
    attribution = attribute(replace(JOB, pool_nano=pool), measured(given_scores, lift, reliability))
    text = canonical_text(attribution_fields(attribution))
    again = replayed(attribution_from(json.loads(text)))
    assert canonical_text(attribution_fields(again)) == text


@given(scores, st.data())
def test_a_share_that_was_changed_does_not_replay(
    given_scores: dict[str, float], data: st.DataObject
) -> None:
    attribution = attribute(JOB, measured(given_scores))
    assume(len(attribution.shares) > 1)
    place = data.draw(st.integers(0, len(attribution.shares) - 1))
    field = data.draw(st.sampled_from(["share_ppb", "nano"]))
    changed = replace(
        attribution.shares[place], **{field: getattr(attribution.shares[place], field) + 1}
    )
    shares = (*attribution.shares[:place], changed, *attribution.shares[place + 1 :])
    forged = replace(attribution, shares=shares)
    assert replayed(forged) != forged


@given(scores, people, st.integers(1, 10**6))
def test_a_positive_score_that_was_changed_does_not_replay(
    given_scores: dict[str, float], who: str, more: int
) -> None:
    attribution = attribute(JOB, measured({"other": 1.0, **given_scores}))
    known = attribution.scores.get(who, 0)
    forged = replace(attribution, scores={**attribution.scores, who: max(known, 0) + more})
    assume(more * PPB > sum(abs(score) for score in forged.scores.values()) * 2)
    assert replayed(forged) != forged


def test_what_can_not_be_replayed_says_so() -> None:
    done = attribute(JOB, measured({"a": 1.0}))
    with pytest.raises(AttributionFailed, match="version 1"):
        replayed(replace(done, version=1))
    with pytest.raises(AttributionFailed, match="pending"):
        replayed(replace(done, state=AttributionState.PENDING))


def test_a_record_of_version_1_is_read_with_its_scores_rounded() -> None:
    fields = dict(attribution_fields(attribute(JOB, measured({"a": 1.0}))))
    new = (
        "v",
        "method",
        "reliability_ppb",
        "libraries",
        "tokens_sha256",
        "tokens_salt",
        "verbatim",
    )
    old = {name: value for name, value in fields.items() if name not in new}
    read = attribution_from({**old, "scores": {"a": 0.1234567891}})
    assert (read.version, read.scores) == (1, {"a": 123_456_789})
    assert read.shares[0].share_ppb == PPB


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
    assert replayed(attribution) == attribution
    assert replayed(replace(attribution, unattributed_ppb=1)) != replace(
        attribution, unattributed_ppb=1
    )
    assert (attribution.state, attribution.reason) == (state, "because")
    assert attribution.adapter_version == JOB.adapter_version
    assert whole(attribution)


def test_a_score_that_nobody_would_believe_fails_the_attribution() -> None:
    with pytest.raises(AttributionFailed, match="not to be believed"):
        attribute(JOB, measured({"a": SCORE_NATS_MAX * 1.01}))
