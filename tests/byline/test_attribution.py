"""Scores become shares and money.

Where rows are scored by themselves, who owns them decides nothing but whose pay it is: no split
earns and no merger loses, beyond rounding. For every job and every set of believable scores: the
parts sum to one whole in parts per billion and to the pool in nano-USD; nobody who claims nothing
is paid; the order of pay is the order of claims; where the adapter lifted nothing, nothing was
positive or nothing is reliable, nobody is paid; names and the order of scores decide nothing; a
record replays to itself, and one whose claim, share or money was changed does not.
"""

import json
import math
import random
from collections.abc import Callable, Sequence
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
    divided,
    failed,
    integer_scores,
    replayed,
    row_claims,
    skipped,
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


row_values = st.floats(-1e4, 1e4) | st.floats(-1e-6, 1e-6) | st.integers(-3, 3).map(float)
rows = st.lists(st.tuples(people, row_values), min_size=1, max_size=40)
parts = st.lists(st.integers(0, 3), min_size=40, max_size=40)


def paid_by_rows(
    given_rows: Sequence[tuple[str, float]], reliability: int | None = None
) -> dict[str, int]:
    """Everybody's ppb; scores are the sums, as an index makes them."""
    sums: dict[str, float] = {}
    for owner, score in given_rows:
        sums[owner] = sums.get(owner, 0.0) + score
    measurement = replace(measured(sums, 1.0, reliability), row_scores=given_rows)
    return shares_of(attribute(JOB, measurement))


@given(rows, st.integers(0, 40), believable)
def test_a_row_of_weight_zero_counts_for_nobody_and_its_sender_is_paid_exactly_nothing(
    given_rows: list[tuple[str, float]], place: int, score: float
) -> None:
    copied: list[tuple[str | None, float]] = [*given_rows]
    copied.insert(place, (None, score))
    assert row_claims(copied) == row_claims(given_rows)


@given(rows)
def test_claims_are_sums_of_rows_that_are_each_cut_at_zero(
    given_rows: list[tuple[str, float]],
) -> None:
    claims = row_claims(given_rows)
    for who in {owner for owner, _ in given_rows}:
        cut = sum(max(round(score * SCORE_UNITS_PER_NAT), 0) for own, score in given_rows
                  if own == who)  # fmt: skip
        assert claims.get(who, 0) == cut
    assert set(paid_by_rows(given_rows)) <= set(claims)


@given(rows, parts, reliabilities)
def test_splitting_or_merging_accounts_gains_and_costs_nothing_but_rounding(
    given_rows: list[tuple[str, float]], given_parts: list[int], reliability: int | None
) -> None:
    """Whatever the partition: c0's rows in up to four accounts are paid together what c0 is, and
    every other account is paid what it was, each to one part per billion."""
    split = [
        (f"c0-{part}" if owner == "c0" else owner, score)
        for (owner, score), part in zip(given_rows, given_parts, strict=False)
    ]
    before, after = paid_by_rows(given_rows, reliability), paid_by_rows(split, reliability)
    own = {who: share for who, share in after.items() if who.startswith("c0-")}
    assert abs(sum(own.values()) - before.get("c0", 0)) <= max(len(own), 1)
    for who in {*before, *after} - {"c0", *own}:
        assert abs(before.get(who, 0) - after.get(who, 0)) <= 1


@given(st.dictionaries(people, believable, min_size=1), st.integers(-(10**9), 10**9))
def test_where_contributors_are_scored_whole_a_split_gains_its_negative_part(
    given_scores: dict[str, float], shed: int
) -> None:
    """The cap by rule 3: what is shed joins the claim, and no more does."""
    whole = integer_scores({**given_scores, "c0": 1.0})
    others = sum(max(score, 0) for who, score in whole.items() if who != "c0")
    part = abs(shed) / SCORE_UNITS_PER_NAT
    kept = {who: score for who, score in given_scores.items() if who != "c0"}
    split = {**kept, "c0": 1.0 + part, "c0-1": -part}
    paid = shares_of(attribute(JOB, measured(split)))
    claim = SCORE_UNITS_PER_NAT + abs(shed)
    assert abs(paid.get("c0", 0) - PPB * claim / (claim + others)) <= 2
    assert "c0-1" not in paid


@given(scores, st.lists(st.tuples(people, row_values), max_size=40))
def test_divided_rows_sum_to_their_contributors_score_and_differ_as_the_other_method_says(
    given_scores: dict[str, float], given_rows: list[tuple[str, float]]
) -> None:
    known = [(who, score) for who, score in given_rows if who in given_scores]
    found = divided(given_scores, known)
    assert [who for who, _ in found[: len(known)]] == [who for who, _ in known]
    assert {who for who, _ in found} == set(given_scores)
    size = sum(map(abs, given_scores.values())) + 1
    for who, score in given_scores.items():
        own = [row for owner, row in found if owner == who]
        others = [row for owner, row in known if owner == who]
        assert sum(own) == pytest.approx(score, abs=1e-6 * size)
        if len(others) > 1:
            rises = [a >= b for a, b in pairwise(others)]
            assert all(a >= b - 1e-6 * size for (a, b), up in zip(pairwise(own), rises, strict=True)
                       if up)  # fmt: skip


def test_rows_are_divided_by_the_rule_as_it_is_written() -> None:
    """|T| = 5, |f| = 3, so k = 0.5: a's rows are 0.5 f + (3 - 0.5 * 3) / 2."""
    rows = [("a", 1.0), ("a", 2.0), ("b", -2.0)]
    found = divided({"a": 3.0, "b": -4.0, "c": 0.0}, rows)
    assert [who for who, _ in found] == ["a", "a", "b", "c"]
    assert [score for _, score in found] == pytest.approx([1.25, 1.75, -4.0, 0.0])
    assert divided({"a": 3.0}, [("a", 0.0), ("a", 0.0)]) == [("a", 1.5), ("a", 1.5)]


def test_who_was_shown_to_do_nothing_claims_next_to_nothing() -> None:
    """Its rows' differences alone, which are a part of what all contributors' scores are long."""
    rows = [("a", 0.01), ("a", -0.01), ("b", 1.0), ("c", 1.0)]
    claims = row_claims(divided({"a": 0.0, "b": 1.0, "c": 1.0}, rows))
    assert 0 < claims["a"] < 0.01 * claims["b"]


def test_rows_that_nobody_would_believe_fail_the_attribution() -> None:
    for bad in (math.nan, math.inf, -SCORE_NATS_MAX * 1.01):
        with pytest.raises(AttributionFailed, match="a row of a scores"):
            row_claims([("a", bad)])
    with pytest.raises(AttributionFailed, match="add up to more"):
        row_claims([("a", SCORE_NATS_MAX * 0.6), ("b", SCORE_NATS_MAX * 0.6)])


@given(rows, pools, st.integers(1, 10**9))
def test_a_record_of_rows_replays_by_its_claims_alone(
    given_rows: list[tuple[str, float]], pool: int, more: int
) -> None:
    """Without the scores, which are what the claims' rows sum to before they are cut."""
    measurement = replace(measured({"c0": 1.0}), row_scores=given_rows)
    attribution = attribute(replace(JOB, pool_nano=pool), measurement)
    text = canonical_text(attribution_fields(attribution))
    read = attribution_from(json.loads(text))
    assert canonical_text(attribution_fields(replayed(read))) == text
    assert replayed(replace(read, scores={})).shares == attribution.shares
    forged = replace(read, claims={**(read.claims or {}), "c13": more})
    total = sum((read.claims or {}).values())
    assume(more * PPB > 2 * (total + more))
    assert replayed(forged) != forged


def test_a_record_of_version_2_replays_by_its_scores_and_its_text_is_what_it_was() -> None:
    old = replace(attribute(JOB, measured({"a": 1.0, "b": 3.0, "c": -1.0})), version=2)
    fields = attribution_fields(old)
    assert "claims" not in fields
    read = attribution_from(json.loads(canonical_text(fields)))
    assert replayed(read) == read == old
    assert shares_of(read) == {"a": 250_000_000, "b": 750_000_000}


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
