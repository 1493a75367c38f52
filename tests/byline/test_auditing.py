"""Audits: anyone recomputes the lottery, what an audit moves sums to 0, and pay becomes unbiased.

The difference estimator: with probability p the inference is audited and (audited - paid) / p is
moved, so the mean of paid + moved is the audited reading, however biased the cheap method is.
"""

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byline.attribution import Measurement, attribute
from byline.auditing.audit import Audit, Draw, audit_from, audit_of, audit_operation, nano_of
from byline.auditing.estimator import adjustment
from byline.auditing.gauges import fidelity_of
from byline.auditing.lottery import is_drawn, parse_rate
from byline.auditing.plan import read_plan
from byline.auditing.store import AuditStore
from byline.canonical import canonical_bytes
from byline.errors import ArtifactError, InvalidInput, NotFound, StartFailed
from byline.money import largest_remainder
from byline.posting.postings import event_ms
from byline.records import Attribution, AttributionJob
from byline.transparency.tree import leaf_hash, nodes_over, root_of
from tests.byline.logs import a_log, published

INFERENCE = "0192f000-0000-7000-8000-000000000001"
VERSION = "healthcare@0123456789ab"
NAMES = ["contrib:ann", "contrib:bob", "contrib:cem", f"unattributed:{VERSION}"]
RATES = st.fractions(min_value=Fraction(1, 1_000), max_value=1)
WEIGHTS = st.lists(st.integers(0, 10**9), min_size=4, max_size=4).filter(any)
POOLS = st.integers(1, 10**9)


def divided(pool: int, weights: list[int]) -> dict[str, int]:
    return largest_remainder(pool, dict(zip(NAMES, weights, strict=True)), "salt")


def paid_for(scores: Mapping[str, float], *, pool: int = 1_000, lift: float = 2.0) -> Attribution:
    job = AttributionJob(
        inference=INFERENCE, ordinal=0, application="clinic", adapter_version=VERSION,
        index="healthcare@ba9876543210", tokens_sha256="0" * 64, pool_nano=pool, enqueued_ms=1,
    )  # fmt: skip
    return attribute(job, Measurement(lift_nats=lift, scores=scores, examples=()))


def an_audit(rate: Fraction = Fraction(1)) -> Audit:
    paid = paid_for({"ann": 3.0, "bob": 1.0, "cem": -1.0})
    scores = {"ann": 1.0, "bob": 1.0, "cem": 2.0}
    draw = Draw("log.example/usd\n7\nAAAA\n", rate)
    return audit_of(paid, scores, 1.5, draw, reliability_ppb=750_000_000)


@given(POOLS, WEIGHTS, WEIGHTS, RATES)
def test_an_adjustment_sums_to_nothing_and_is_exact_but_for_one_rounding(
    pool: int, paid: list[int], audited: list[int], rate: Fraction
) -> None:
    before, after = divided(pool, paid), divided(pool, audited)
    moved = adjustment(before, after, rate, salt="a")
    assert sum(moved.values()) == 0
    assert 0 not in moved.values()
    for name in NAMES:
        assert abs(moved.get(name, 0) - (after[name] - before[name]) / rate) < 1


@given(POOLS, WEIGHTS, WEIGHTS, RATES, st.permutations(NAMES))
def test_the_order_of_accounts_moves_nothing(
    pool: int, paid: list[int], audited: list[int], rate: Fraction, order: list[str]
) -> None:
    before, after = divided(pool, paid), divided(pool, audited)
    again = adjustment(
        {name: before[name] for name in order},
        {name: after[name] for name in order},
        rate,
        salt="a",
    )
    assert again == adjustment(before, after, rate, salt="a")


@given(POOLS, WEIGHTS, WEIGHTS)
def test_where_all_is_audited_pay_is_the_audited_reading(
    pool: int, paid: list[int], audited: list[int]
) -> None:
    before, after = divided(pool, paid), divided(pool, audited)
    moved = adjustment(before, after, Fraction(1), salt="a")
    assert {name: before[name] + moved.get(name, 0) for name in NAMES} == after


def test_two_pools_are_no_audit() -> None:
    with pytest.raises(ValueError, match="same pool"):
        adjustment({"a": 1}, {"a": 2}, Fraction(1), salt="")


def test_long_run_pay_is_the_audited_reading_though_the_cheap_method_is_biased() -> None:
    """The mean of paid + moved differs from the audited mean by less than 4 standard errors, that
    of paid alone by more than 40: with a method that gives ann thrice what she is due."""
    draws = random.Random(7)
    rate, pool, count = Fraction(1, 10), 100_000, 4_000
    errors: list[int] = []
    cheap_errors: list[int] = []
    for number in range(count):
        truth = [draws.randint(1, 100) for _ in NAMES]
        cheap = [3 * truth[0], max(0, truth[1] + draws.randint(-30, 30)), *truth[2:]]
        before, after = divided(pool, cheap), divided(pool, truth)
        inference = f"{number:032x}"
        drawn = is_drawn(b"a tree head", inference, rate)
        moved = adjustment(before, after, rate, salt=inference) if drawn else {}
        cheap_errors.append(before[NAMES[0]] - after[NAMES[0]])
        errors.append(cheap_errors[-1] + moved.get(NAMES[0], 0))
    assert abs(z(errors)) < 4
    assert z(cheap_errors) > 40


def z(values: list[int]) -> float:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return float(mean / (variance / len(values)) ** 0.5)


def test_the_lottery_is_the_documented_hash_and_draws_its_rate() -> None:
    head = b"log.example/usd\n7\nAAAA\n"
    number = int(hashlib.sha256(head + INFERENCE.encode()).hexdigest(), 16)
    just = Fraction(number, 2**256)
    assert not is_drawn(head, INFERENCE, just)
    assert is_drawn(head, INFERENCE, just + Fraction(1, 2**256))
    assert is_drawn(head, INFERENCE, Fraction(1))
    drawn = sum(is_drawn(head, f"{number}", Fraction(1, 20)) for number in range(20_000))
    assert abs(drawn - 1_000) < 4 * (20_000 * 0.05 * 0.95) ** 0.5


@pytest.mark.parametrize("text", ["0", "-1/2", "1.01", "1/0", "often", "nan"])
def test_a_rate_is_more_than_0_and_1_at_most(text: str) -> None:
    assert parse_rate("1/20") == parse_rate("0.05") == Fraction(1, 20)
    with pytest.raises(InvalidInput):
        parse_rate(text)


@pytest.mark.anyio
async def test_a_ticket_needs_a_signed_head_and_is_the_same_ever_after(tmp_path: Path) -> None:
    log = a_log(tmp_path)
    await log.export()
    notary = log.notary()
    key = next(key for text in log.journal.texts if "/capture/" in (key := json.loads(text)["key"]))
    with pytest.raises(NotFound):
        log.reader().smallest_covering(key)
    found = set()
    while await notary.once(entries_max=3):
        try:
            found.add(log.reader().smallest_covering(key))
        except NotFound:
            continue
    (head,) = found
    _, leaves = published(log.folder)
    assert leaves[head.size - 1]["key"] == key  # so anyone finds it in the published log
    hashes = [leaf_hash(canonical_bytes(leaf)) for leaf in leaves[: head.size]]
    assert head.root == root_of(head.size, nodes_over(hashes))


def test_a_record_says_all_that_the_adjustment_follows_from() -> None:
    audit = an_audit()
    assert nano_of(audit.paid) == {
        "contrib:ann": 750, "contrib:bob": 250, f"unattributed:{VERSION}": 0,
    }  # fmt: skip
    legs = {leg.account: leg.nano for leg in audit.legs()}
    assert sum(legs.values()) == 0
    assert legs[f"unattributed:{VERSION}"] == 250
    audited = nano_of(audit.audited)
    assert {who: nano_of(audit.paid).get(who, 0) + legs.get(who, 0) for who in audited} == audited
    assert audit_from(audit.text()) == audit
    assert hashlib.sha256(audit.text().encode()).hexdigest() in audit.adjustment().reason


@pytest.mark.parametrize(
    ("old", "new"),
    [('"rate":"1"', '"rate":"1/2"'), ('"750"', '"751"'), ('"v":1', '"v":3'), ("{", "")],
)
def test_a_record_that_was_changed_is_refused(old: str, new: str) -> None:
    text = an_audit().text()
    with pytest.raises(ArtifactError):
        audit_from(text.replace(old, new, 1) if old in text else text + " ")


def test_an_inference_that_was_not_drawn_has_no_record() -> None:
    with pytest.raises(ArtifactError):
        audit_from(an_audit(Fraction(1, 10**9)).text())


def test_an_audit_posts_under_a_key_of_its_choice_alone() -> None:
    one, other = audit_operation(INFERENCE, 0), audit_operation(INFERENCE, 1)
    assert one == audit_operation(INFERENCE, 0) != other
    assert event_ms(one) == event_ms(INFERENCE)
    assert one != INFERENCE


def test_the_first_record_of_a_choice_is_the_one_that_is_kept(tmp_path: Path) -> None:
    store, audit = AuditStore(tmp_path / "audits"), an_audit()
    assert store.read(INFERENCE, 0) is None
    assert store.write(audit) == audit
    later = replace(audit, audited=replace(paid_for({"ann": 9.0}), method=audit.audited.method))
    assert store.write(later) == audit == store.read(INFERENCE, 0)
    assert len(list(store.root.iterdir())) == 1


def test_fidelity_is_one_where_paid_is_audited_and_says_how_far_it_is_else() -> None:
    same = audit_of(
        paid_for({"ann": 3.0, "bob": 1.0}), {"ann": 3.0, "bob": 1.0}, 2.0, an_audit().draw,
        reliability_ppb=None,
    )  # fmt: skip
    opposite = audit_of(
        paid_for({"ann": 3.0, "bob": 1.0}), {"ann": 1.0, "bob": 3.0}, 2.0, an_audit().draw,
        reliability_ppb=None,
    )  # fmt: skip
    assert same.legs() == ()
    alike = fidelity_of([same])
    assert alike is not None
    assert alike.rank_correlation.mean == pytest.approx(1.0)
    assert alike.payout_error.mean == 0.0
    mixed = fidelity_of([same, opposite] * 8)
    assert mixed is not None
    assert mixed.rank_correlation.mean == pytest.approx(0.0)
    assert mixed.payout_error.mean == pytest.approx(0.25)
    assert 0.1 < mixed.payout_error.half_width < 0.2
    assert fidelity_of([]) is None


def test_a_plan_names_its_runs_and_never_a_path(tmp_path: Path) -> None:
    path = tmp_path / "audit_plan.json"
    assert read_plan(path) is None
    plan = '{"rate": "1/4", "adapters": {"%s": {"orders": [{"everybody": "%s", "without": %s}]}}}'
    path.write_text(plan % (VERSION, "full", '{"ann": "less-ann"}'))
    read = read_plan(path)
    assert read is not None
    assert read.adapters[VERSION].orders[0].runs == ("full", "less-ann")
    for run, without in [("../x", '{"ann": "y"}'), ("x", "{}"), ("x", '{"ann": "/etc"}')]:
        path.write_text(plan % (VERSION, run, without))
        with pytest.raises(StartFailed):
            read_plan(path)
