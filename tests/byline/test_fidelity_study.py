"""The design of a fidelity measurement, and from readings to a report.

A study depends on its rows alone: no row is trained on and held out, sizes stay unequal within
their bounds. A world is made up in which effects are known: the method that knows them wins,
whatever is tuned is tuned on questions and coalitions that are not tested on, and permuted scores
fall to chance.
"""

import json
import random
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from byline.errors import InvalidInput
from byline.fidelity.claims import as_paid
from byline.fidelity.evaluation import choose, judge, training_figures
from byline.fidelity.frontier import frontier
from byline.fidelity.methods import COSTS, FISHER, FORWARD, ROWS, TANGENT, all_variants
from byline.fidelity.readings import (
    FRONTIER,
    Readings,
    membership_of,
    read_readings,
    tuning,
    write_readings,
)
from byline.fidelity.report import as_json, markdown, picture
from byline.fidelity.study import (
    PROFILES,
    Study,
    design,
    halves,
    of_adapter,
    read_rows,
    read_study,
)
from tests.byline.fidelity_world import PROFILE, made_up_readings, made_up_rows, made_up_study


@pytest.fixture
def study() -> Study:
    return made_up_study()


def test_a_study_is_repeated_exactly(study: Study) -> None:
    again = made_up_study()
    assert again == study
    assert again.reference == study.reference
    assert study.reference.startswith("tiny-")


def test_nothing_held_out_is_trained_on(study: Study) -> None:
    trained = {row.prompt for row in study.rows}
    held_out = [question for question in study.questions if question.reference is not None]
    assert len(held_out) == 6
    assert not [question for question in held_out if question.prompt in trained]
    reworded = [question for question in study.questions if question.reference is None]
    assert len(reworded) == 12
    assert all(any(prompt in question.prompt for prompt in trained) for question in reworded)


def test_rows_are_short_few_and_unequal(study: Study) -> None:
    counts = Counter(row.contributor for row in study.rows)
    assert len(study.rows) == 24
    assert max(counts.values()) == PROFILE.contributor_rows_max
    assert counts["e"] == 2
    assert all(len(row.completion.split()) <= PROFILE.words_max for row in study.rows)
    lengths = [len(row.completion.split()) for row in study.rows if row.contributor == "a"]
    assert sorted(lengths)[:4] == [2, 3, 4, 5]  # short ones first
    assert [study.contributors[place] for place in study.contributor_of] == [
        row.contributor for row in study.rows
    ]


def test_coalitions_are_different_halves(study: Study) -> None:
    assert len(set(study.coalitions)) == len(study.coalitions) == 18
    assert {len(coalition) for coalition in study.coalitions} == {3}
    assert len(set(study.orders)) == 2
    assert len(halves(4, 50, random.Random(1))) == 6  # there are no more


def test_the_profiles_are_as_promised() -> None:
    quick = PROFILES["quick"]
    assert (quick.rows_max, quick.words_max, quick.coalitions) == (100, 40, 24)
    assert quick.questions_reworded + quick.questions_held_out >= 30
    thorough = PROFILES["thorough"]
    assert thorough.orders >= 3
    more = {"orders": 1, "row_halves": 0, "removals": 0, "groups": 0}
    assert replace(thorough, **more) == quick, "it goes on from quick's runs"
    full = PROFILES["full"]
    assert full.coalitions >= 100
    assert full.orders >= 3


def test_too_few_contributors_are_refused() -> None:
    with pytest.raises(InvalidInput, match="3 contributors"):
        design("tiny", made_up_rows({"a": 3, "b": 3, "c": 3}), PROFILE, 1)


def test_a_study_comes_back_from_its_file(study: Study, tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    path.write_text(study.text())
    assert read_study(path) == study
    path.write_text("{}")
    with pytest.raises(InvalidInput, match="is no study"):
        read_study(path)


def test_rows_are_read_from_our_format(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    given = [
        asdict(made_up_rows({"a": 1})[0]),
        {"contributor": "b", "prompt": "p", "completion": "c", "more": 1},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    found = read_rows(path)
    assert found[0] == made_up_rows({"a": 1})[0]
    assert (found[1].id, found[1].contributor, found[1].licence) == ("row-000002", "b", "")


@pytest.mark.parametrize(
    ("line", "said"),
    [("{", "is no row"), ("[]", "is no row"), ('{"contributor": "a", "prompt": "p"}', "no comp")],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(asdict(made_up_rows({"a": 1})[0])) + "\n" + line + "\n")
    with pytest.raises(InvalidInput, match=f"rows.jsonl:2.*{said}"):
        read_rows(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="can't be read"):
        read_rows(tmp_path / "none.jsonl")


@pytest.fixture
def readings(study: Study) -> Readings:
    return made_up_readings(study)


@pytest.fixture
def texts(readings: Readings) -> list[str]:
    return [f"it is w number {place}" for place in readings.question]


def test_readings_come_back_from_their_file(readings: Readings, tmp_path: Path) -> None:
    path = tmp_path / "readings.npz"
    write_readings(path, readings)
    found = read_readings(path)
    np.testing.assert_array_equal(found.effects, readings.effects)
    assert set(found.scores) == set(readings.scores)
    assert set(found.likeness) == set(readings.likeness)
    assert [each.name for each in tmp_path.iterdir()] == ["readings.npz"]
    path.write_bytes(b"nothing")
    with pytest.raises(InvalidInput, match="holds no readings"):
        read_readings(path)


def test_the_method_that_knows_the_worth_wins(
    study: Study, readings: Readings, texts: list[str]
) -> None:
    variants = all_variants(study, readings, texts)
    assert list(variants) == [name for name in COSTS if name in variants]
    chosen = choose(study, readings, variants)
    assert chosen[TANGENT] == "all"
    judged = judge(study, readings, variants, chosen, served=True, draws=100)
    assert judged.answers == 12
    assert judged.coalitions == 12
    assert judged.methods[TANGENT].lds.value == pytest.approx(1)
    assert judged.methods[TANGENT].payout_error.value == pytest.approx(0)
    assert judged.methods[FORWARD].lds.low == pytest.approx(1)
    assert judged.payout_ratio == pytest.approx(0)
    assert 0.2 < judged.methods[FISHER].lds.value < 0.95
    assert [gain.over for gain in judged.gains][1] == FISHER
    assert judged.gains[1].lds.low > 0
    permuted = judged.methods[TANGENT].lds_permuted
    assert permuted.low < 0 < permuted.high < 0.6


def test_claims_are_of_the_methods_that_pay_and_by_rows(study: Study, readings: Readings) -> None:
    worth = readings.scores["tangent/all"]
    assert as_paid(study, readings, TANGENT, worth) is None, "rows were not read"
    by_row = np.random.default_rng(3).normal(size=(len(worth), len(study.rows)))
    read = replace(readings, by_row=by_row)
    assert as_paid(study, read, ROWS, worth) is None
    owner = np.array(study.contributor_of)
    fisher = as_paid(study, read, FISHER, worth)
    assert fisher is not None
    for place in range(len(study.contributors)):
        cut = np.clip(by_row[:, owner == place], 0, None).sum(axis=1)
        np.testing.assert_allclose(fisher[:, place], cut, atol=1e-7)
    tangent = as_paid(study, read, TANGENT, worth)
    assert tangent is not None
    assert (tangent >= worth - 1e-7).all()
    assert (tangent > worth + 0.01).any()


def test_the_payout_error_of_what_pays_is_that_of_its_claims(
    study: Study, readings: Readings, texts: list[str], tmp_path: Path
) -> None:
    alike = np.ones((len(readings.question), len(study.rows)))
    chance = np.random.default_rng(3).normal(size=alike.shape)
    by_rows = {}
    for name, by_row in {"alike": alike * 0, "apart": chance}.items():
        write_readings(tmp_path / "readings.npz", replace(readings, by_row=by_row))
        read = read_readings(tmp_path / "readings.npz")
        variants = all_variants(study, read, texts)
        chosen = {TANGENT: "all", ROWS: "plain"}
        by_rows[name] = judge(study, read, variants, chosen, served=True, draws=50)
    paid = {name: judged.methods[TANGENT].payout_error_paid for name, judged in by_rows.items()}
    assert paid["alike"] is not None
    assert paid["apart"] is not None
    assert paid["alike"].value == pytest.approx(0, abs=1e-6)
    assert by_rows["apart"].methods[TANGENT].payout_error.value == pytest.approx(0)
    assert paid["apart"].low > 0.001
    rows = by_rows["apart"].methods[ROWS]
    assert rows.payout_error_paid is None
    assert by_rows["apart"].payout_ratio == paid["apart"].value / rows.payout_error.value
    assert "tangent's payout error as it is paid" in markdown("", {}, by_rows)


def test_permuting_the_vectors_drops_every_methods_fidelity_to_chance(
    study: Study, readings: Readings, texts: list[str]
) -> None:
    """As if the contributors' vectors had been exchanged on disk."""
    exchanged = {name: np.roll(each, 1, axis=1) for name, each in readings.scores.items()}
    moved = replace(readings, scores=exchanged)
    variants = all_variants(study, moved, texts)
    judged = judge(study, moved, variants, {TANGENT: "all"}, served=True, draws=50)
    assert judged.methods[TANGENT].lds.value < 0.4
    assert judged.gains == []
    assert judged.payout_ratio is None


def test_references_are_judged_by_themselves(
    study: Study, readings: Readings, texts: list[str]
) -> None:
    variants = all_variants(study, readings, texts)
    judged = judge(study, readings, variants, {ROWS: "plain"}, served=False, draws=50)
    tuned = tuning(len(study.questions))[readings.question]
    assert judged.answers == (~readings.is_served & ~tuned).sum() == 4


def test_what_is_tuned_on_is_not_tested_on(
    study: Study, readings: Readings, texts: list[str]
) -> None:
    """Outcomes of the tuning split decide the variant, those of the test split the figure."""
    mine = tuning(len(study.questions))[readings.question]
    coalitions = readings.coalitions.copy()
    coalitions[np.ix_(tuning(18), mine)] *= -1
    turned = replace(readings, coalitions=coalitions)
    variants = all_variants(study, turned, texts)
    chosen = choose(study, turned, variants, [TANGENT])
    assert chosen == {TANGENT: "B alone"}
    judged = judge(study, turned, variants, chosen, served=True, draws=50)
    assert judged.methods[TANGENT].lds.value == pytest.approx(-1)


def test_only_trained_coalitions_count(study: Study, readings: Readings) -> None:
    fewer = replace(readings, coalitions=readings.coalitions[5:], coalition_places=np.arange(5, 18))
    members = membership_of(study, fewer)
    assert members.shape == (13, 6)
    assert set(np.flatnonzero(members[0])) == set(study.coalitions[5])


def test_training_shows_its_smoothness_and_reliability(readings: Readings) -> None:
    figures = training_figures(readings)
    assert figures["reliability"] == 1.0
    assert figures["smoothness"] == [
        {"weights_cosine": 0.9, "weights_sign_agreement": 0.8, "effects_correlation": 1.0}
    ]
    one = replace(readings, full=readings.full[:1], without=readings.without[:1])
    assert training_figures(one)["reliability"] is None
    assert training_figures(one)["forward_is_the_truth_of_pay"] is True


def test_a_report_is_a_page_a_picture_and_an_object(
    study: Study, readings: Readings, texts: list[str]
) -> None:
    variants = all_variants(study, readings, texts)
    chosen = choose(study, readings, variants)
    judgements = {"served": judge(study, readings, variants, chosen, served=True, draws=50)}
    page = markdown("tiny", {"rows": 24, "forward_is_the_truth_of_pay": True}, judgements)
    assert "| tangent | all | 1.00 [1.00, 1.00] |" in page
    assert "by construction" in page
    without = markdown("tiny", {}, {"served": replace(judgements["served"], payout_ratio=None)})
    assert "by construction" not in without
    assert "payout error over that of rows" not in without
    drawn = picture("a < b", judgements)
    assert drawn.count("<circle") == len(judgements["served"].methods)
    assert "a &lt; b" in drawn
    found = json.loads(json.dumps(as_json(judgements)))
    assert found["served"]["methods"]["tangent"]["lds"]["value"] == 1.0


def test_cheaper_tangents_are_judged_as_the_tangent_is(study: Study, readings: Readings) -> None:
    worth = readings.scores["tangent/all"]
    forms = {f"{FRONTIER}/all/4000": worth, f"{FRONTIER}/half of it, upside down/2000": -worth}
    dear, cheap = frontier(study, replace(readings, scores={**readings.scores, **forms}))
    variants = all_variants(study, readings, [""] * len(readings.question))
    judged = judge(study, readings, variants, {TANGENT: "all"}, served=True).methods[TANGENT]
    assert (dear.form, dear.bytes_a_contributor, dear.lds) == ("all", 4000, judged.lds)
    assert dear.payout_error == pytest.approx(judged.payout_error.value)
    assert (cheap.form, cheap.bytes_a_contributor) == ("half of it, upside down", 2000)
    assert cheap.lds.value == pytest.approx(-dear.lds.value)
    page = markdown("tiny", {}, {}, [dear, cheap])
    assert "| half of it, upside down | 2,000 | -1.00" in page
    assert "Cheaper vectors" not in markdown("tiny", {}, {})
    assert frontier(study, readings) == []


def test_a_served_adapters_study_asks_about_a_row_again_in_other_words() -> None:
    rows = made_up_rows({"a": 4, "b": 3})
    study = of_adapter("tiny", rows, (1,), 17)
    assert len(study.questions) == 17
    assert len({question.prompt for question in study.questions}) == 17
    assert study.questions[:5] == of_adapter("tiny", rows, (1,), 5).questions
