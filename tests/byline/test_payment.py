"""A version is paid unless its audits say clearly that it should not be, until an operator's word.

What is decided follows from the audits and the words alone; a file that says nothing clear pays
nobody.
"""

import json
import re
import uuid
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from byline.attribution import Measurement, attribute
from byline.auditing.audit import Audit, Draw, audit_of
from byline.auditing.payment import (
    AUDITS_JUDGED,
    AUDITS_JUDGED_MIN,
    Pause,
    PaymentJudge,
    PaymentPauses,
    why_below,
)
from byline.auditing.plan import AuditPlan, Counterfactuals, Order, read_plan
from byline.auditing.store import AuditStore
from byline.command.payment_commands import paused, resume
from byline.errors import ArtifactError, NotFound, StartFailed
from byline.records import AttributionJob

VERSION = "healthcare@0123456789ab"
ORDER = Order("full", {"ann": "less-ann"})
PLAN = AuditPlan(Fraction(1), {VERSION: Counterfactuals((ORDER,), None)})
TRUE = {"ann": 3.0, "bob": 2.0, "cem": 1.0}
WRONG = {"ann": 0.0, "bob": 1.0, "cem": 9.0}


def an_audit(at_ms: int, paid: dict[str, float], *, version: str = VERSION) -> Audit:
    """What was paid by these scores for an answer of this time, against the truth."""
    inference = str(uuid.UUID(int=at_ms << 80 | 7 << 76 | 2 << 62))
    job = AttributionJob(
        inference=inference, ordinal=0, application="clinic", adapter_version=version,
        index="healthcare@ba9876543210", tokens_sha256="0" * 64, pool_nano=1_000, enqueued_ms=1,
    )  # fmt: skip
    cheap = attribute(job, Measurement(lift_nats=2.0, scores=paid, examples=()))
    draw = Draw("log.example/usd\n7\nAAAA\n", Fraction(1))
    return audit_of(cheap, TRUE, 2.0, draw, reliability_ppb=None)


def audits(count: int, paid: dict[str, float], *, first_ms: int = 1_000) -> list[Audit]:
    return [an_audit(first_ms + number, paid) for number in range(count)]


@pytest.fixture
def pauses(tmp_path: Path) -> PaymentPauses:
    return PaymentPauses(tmp_path / "payment")


def judged(pauses: PaymentPauses, *taken: Audit, now_ms: int = 5_000) -> PaymentJudge:
    judge = PaymentJudge(PLAN, pauses)
    judge.take(taken)
    judge.decide(now_ms=now_ms)
    return judge


def test_wrong_pay_is_below_the_floor_and_true_pay_is_not() -> None:
    reason = why_below(audits(AUDITS_JUDGED_MIN, WRONG), PLAN)
    assert reason == (
        "rank correlation -1.00 +- 0.00, below 0.2; payout error 0.73 +- 0.00, above 0.5, "
        "over 10 audits"
    )
    assert why_below(audits(50, TRUE), PLAN) is None


def test_too_few_audits_say_nothing() -> None:
    assert why_below(audits(AUDITS_JUDGED_MIN - 1, WRONG), PLAN) is None


def test_each_figure_is_judged_by_its_better_end() -> None:
    """The mean is beyond the floor; its interval is not."""
    mixed = [*audits(6, WRONG), *audits(5, TRUE, first_ms=2_000)]
    assert why_below(mixed, PLAN) is None
    assert why_below(mixed, replace(PLAN, payout_error_ceiling=0.3)) is None  # 0.40 is its mean
    for strict, says in (
        (replace(PLAN, rank_correlation_floor=0.7), "rank correlation -0.09"),
        (replace(PLAN, payout_error_ceiling=0.1), "payout error 0.40"),
    ):
        assert re.match(says, why_below(mixed, strict) or "")


def test_noise_is_paused_and_never_by_pools_of_nothing() -> None:
    """Pay without any order: half of the answers right, half the wrong way round."""
    noise = [an_audit(n, (TRUE, WRONG)[n % 2]) for n in range(1, AUDITS_JUDGED + 1)]
    assert "rank correlation 0.00" in (
        why_below(noise, replace(PLAN, rank_correlation_floor=0.3)) or ""
    )
    assert why_below([], PLAN) is None


def test_a_pause_holds_until_its_audits_are_good_again(pauses: PaymentPauses) -> None:
    judge = judged(pauses, *audits(20, WRONG))
    assert pauses.in_force().keys() == {VERSION}
    first = pauses.in_force()[VERSION]
    assert (first.since_ms, first.reason[:16]) == (5_000, "rank correlation")
    judge.take(audits(1, WRONG, first_ms=2_000))
    judge.decide(now_ms=6_000)
    assert pauses.in_force()[VERSION] == first  # since then, and for what was found then
    judge.take(audits(AUDITS_JUDGED, TRUE, first_ms=3_000))
    judge.decide(now_ms=7_000)
    assert pauses.in_force() == {}


def test_a_judge_that_is_killed_is_followed_by_one_that_decides_the_same(
    pauses: PaymentPauses, tmp_path: Path
) -> None:
    store = AuditStore(tmp_path / "audits")
    for audit in audits(AUDITS_JUDGED_MIN, WRONG):
        store.write(audit)
    damaged = store.root / f"{uuid.UUID(int=9_000 << 80 | 7 << 76 | 2 << 62)}-0.json"
    damaged.write_text("{}")
    found = list(store.newest(100))
    assert [audit.paid.inference for audit in found] == sorted(
        (audit.paid.inference for audit in found), reverse=True
    )
    assert store.of(found[0].paid.inference) == found[:1]
    assert list(store.newest(1)) == []  # the newest is the damaged one
    judged(pauses, *found)
    assert pauses.in_force().keys() == {VERSION}


def test_only_the_newest_audits_of_a_version_in_the_plan_count(pauses: PaymentPauses) -> None:
    others = [an_audit(9_000 + n, WRONG, version="other@0123456789ab") for n in range(60)]
    old, new = audits(60, WRONG), audits(AUDITS_JUDGED, TRUE, first_ms=3_000)
    judge = PaymentJudge(PLAN, pauses)
    judge.take(others)
    assert not judge.has_enough
    judge.take([*new, *old])  # in whatever order they come
    assert judge.has_enough
    judge.decide(now_ms=5_000)
    assert pauses.in_force() == {}


def test_an_operators_word_covers_what_was_served_before_it(pauses: PaymentPauses) -> None:
    judge = judged(pauses, *audits(20, WRONG))
    pauses.resume(VERSION, now_ms=5_500)
    assert pauses.in_force() == {}
    judge.take(audits(20, WRONG, first_ms=5_300))
    judge.decide(now_ms=5_600)
    assert pauses.in_force() == {}
    judge.take(audits(AUDITS_JUDGED_MIN, WRONG, first_ms=5_501))
    judge.decide(now_ms=5_400)  # by a clock that is behind the operator's
    assert pauses.in_force()[VERSION].since_ms == 5_501


def test_a_version_without_a_plan_stays_as_it_is(pauses: PaymentPauses) -> None:
    old = Pause(1, "bad")
    pauses.write({"gone@0123456789ab": old})
    judged(pauses, *audits(20, WRONG))
    assert pauses.in_force().keys() == {VERSION, "gone@0123456789ab"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("paused.json", "{"), ("paused.json", "[]"), ("paused.json", '{"v": 3}'),
        ("paused.json", '{"v": {"since_ms": "1", "reason": "bad"}}'),
        ("paused.json", '{"v": {"since_ms": 1}}'), ("resumed.json", '{"v": "now"}'),
    ],
)  # fmt: skip
def test_a_file_that_says_nothing_clear_pays_nobody(
    pauses: PaymentPauses, tmp_path: Path, name: str, text: str
) -> None:
    folder = tmp_path / "payment"
    folder.mkdir()
    (folder / name).write_text(text)
    with pytest.raises(ArtifactError, match=name):
        pauses.in_force()


def test_the_plan_may_name_its_floor(tmp_path: Path) -> None:
    path = tmp_path / "audit_plan.json"
    plan = {"rate": "1", "adapters": {}}
    path.write_text(json.dumps(plan))
    found = read_plan(path)
    assert found is not None
    assert (found.rank_correlation_floor, found.payout_error_ceiling) == (0.2, 0.5)
    path.write_text(json.dumps({**plan, "rank_correlation_floor": -1, "payout_error_ceiling": 1}))
    found = read_plan(path)
    assert found is not None
    assert (found.rank_correlation_floor, found.payout_error_ceiling) == (-1, 1)
    path.write_text(json.dumps({**plan, "payout_error_ceiling": "much"}))
    with pytest.raises(StartFailed, match="much"):
        read_plan(path)


def test_the_command_shows_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pauses = PaymentPauses(tmp_path / "payment")
    paused(tmp_path)
    assert capsys.readouterr().out == "every adapter version is paid\n"
    ahead_ms = 1 << 47  # the auditor's clock is ahead
    pauses.write({VERSION: Pause(ahead_ms, "payout error 0.73")})
    paused(tmp_path)
    assert capsys.readouterr().out == f"{VERSION}: payout error 0.73\n"
    paused(tmp_path, as_json=True)
    (fact,) = json.loads(capsys.readouterr().out)["paused"]
    assert fact == {"adapter_version": VERSION, "since_ms": ahead_ms, "reason": "payout error 0.73"}
    resume(VERSION, tmp_path, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert said == {"adapter_version": VERSION, "resumed_ms": ahead_ms}
    assert pauses.in_force() == {}
    with pytest.raises(NotFound, match="is not paused"):
        resume(VERSION, tmp_path)
