"""What attacks earn: pay is production's, gains are ratios of money, bars are on upper bounds."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from byline.attacks.pay import RETURN_CAP, Outcome, as_json, outcomes, pay
from byline.attacks.reading_files import read_reading, reading_path, write_reading
from byline.attacks.worlds import NEWCOMER, Arena, Attack
from byline.errors import InvalidInput
from tests.byline.attack_world import made_up_arena, made_up_readings


@pytest.fixture(scope="module")
def arena() -> Arena:
    return made_up_arena()


def judged(arena: Arena, worth: dict[str, float] | None = None) -> list[Outcome]:
    return outcomes(arena, arena.worlds, made_up_readings(arena, worth))


def of(found: list[Outcome], attack: Attack) -> list[Outcome]:
    return [each for each in found if each.world.attack is attack]


def test_pay_is_half_of_each_price_to_the_nano_and_in_proportion_to_owners_sums(
    arena: Arena,
) -> None:
    world = arena.worlds[0]
    reading = made_up_readings(arena)[world.training]
    paid = pay(world, reading)
    together = np.sum(list(paid.values()), axis=0).tolist()
    assert together == [charge // 2 for charge in reading.charges]
    owner_of = {row.id: row.contributor for row in world.rows}
    for who, each in paid.items():
        mine = [owner_of[row] == who for row in reading.rows]
        share = reading.scores[:, mine].sum(axis=1) / reading.scores.sum(axis=1)
        np.testing.assert_allclose(each, share * np.array(reading.charges) / 2, atol=1.01)


def test_nobody_is_paid_without_lift(arena: Arena) -> None:
    world = arena.worlds[0]
    paid = pay(world, made_up_readings(arena, lift=-1.0)[world.training])
    assert not sum(each.sum() for each in paid.values())


def test_copies_that_are_found_gain_and_cost_exactly_nothing(arena: Arena) -> None:
    found = [each for each in of(judged(arena), Attack.COPIES) if each.found]
    assert [each.found for each in found] == [1, 3, 9] * 3
    for each in found:
        assert each.gain is not None
        assert each.owner_loss is not None
        assert (each.gain.low, each.gain.value, each.gain.high) == (1, 1, 1)
        assert (each.owner_loss.low, each.owner_loss.high) == (0, 0)
        assert each.passed


def test_copies_that_escape_gain_what_they_are_worth_and_miss_the_bar(arena: Arena) -> None:
    escaping = [each for each in of(judged(arena), Attack.COPIES) if not each.found]
    gains = [each.gain.value for each in escaping if each.gain]
    assert gains[0] < gains[1] < gains[2]
    losses = [each.owner_loss.value for each in escaping if each.owner_loss]
    assert 0 < losses[0] < losses[1] < losses[2]
    assert not any(each.passed for each in escaping)
    harmless = {row.id: 0.0 for row in arena.study.rows if row.id.startswith("copy:0.5")}
    again = [each for each in of(judged(arena, harmless), Attack.COPIES) if not each.found]
    assert [each.passed for each in again] == [False, False, False, True, True, True]


def test_a_second_account_keeps_nothing_that_bad_copies_would_cost_the_first(arena: Arena) -> None:
    bad = {row.id: -0.2 for row in arena.study.rows if row.id.startswith("copy:0.5")}
    found = [each for each in judged(arena, bad) if each.world.edit_rate == 0.5]
    together = [each.paid_nano for each in of(found, Attack.COPIES)]
    aside = [each.paid_nano for each in of(found, Attack.COPIES_ASIDE)]
    assert len(together) == len(aside) == 3
    answers = len(arena.study.questions)
    assert all(abs(one - other) <= answers for one, other in zip(together, aside, strict=True))


def test_the_owners_loss_alone_misses_the_bar(arena: Arena) -> None:
    """An attacker who gains nothing and takes from the owner has not passed."""
    readings = made_up_readings(arena)
    (world,) = [
        w for w in arena.worlds if (w.attack, w.edit_rate, w.sent) == (Attack.COPIES, 0.5, 9)
    ]
    theirs = (arena.owner, arena.attacker)
    halved = {row.id for row in world.rows if row.contributor in theirs}
    reading = readings[world.training]
    factor = [0 if row.startswith("copy:") else 0.5 if row in halved else 1 for row in reading.rows]
    readings[world.training] = replace(reading, scores=reading.scores * np.array(factor))
    (found,) = outcomes(arena, [world], readings)
    assert found.gain is not None
    assert found.gain.high < 1
    assert found.owner_loss is not None
    assert found.owner_loss.value > 0.2
    assert found.passed is False


def test_bars_are_on_upper_bounds(arena: Arena) -> None:
    """One lucky answer of fourteen: the gain is below the bar, and may well be above it."""
    readings = made_up_readings(arena)
    (world,) = [
        w for w in arena.worlds if (w.attack, w.edit_rate, w.sent) == (Attack.COPIES, 0.5, 1)
    ]
    reading = readings[world.training]
    (place,) = [n for n, row in enumerate(reading.rows) if row.startswith("copy:")]
    scores = reading.scores.copy()
    scores[:, place] = 0
    scores[6, place] = 1.2
    readings[world.training] = replace(reading, scores=scores)
    (found,) = outcomes(arena, [world], readings)
    assert found.gain is not None
    assert found.owner_loss is not None
    assert found.owner_loss.high < 0.05
    assert 1 < found.gain.value < 1.05 < found.gain.high
    assert found.passed is False


@pytest.mark.parametrize("worth", [None, -1.0])
def test_splitting_gains_nothing_even_where_it_sheds_a_negative_row(
    arena: Arena, worth: float | None
) -> None:
    (first, *_) = [row.id for row in arena.worlds[0].rows if row.contributor == arena.attacker]
    found = of(judged(arena, {} if worth is None else {first: worth}), Attack.SPLIT)
    assert len(found) == 3
    for each in found:
        assert each.gain is not None
        assert each.gain.value == pytest.approx(1, abs=1e-3)  # rounding of small sums
        assert each.passed


def test_a_split_would_earn_and_miss_the_bar_if_scores_were_cut_by_account(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_account(row_scores: Iterable[tuple[str, float]]) -> dict[str, int]:
        sums: dict[str, float] = {}
        for owner, score in row_scores:
            sums[owner] = sums.get(owner, 0.0) + score
        return {owner: max(round(score * 10**9), 0) for owner, score in sums.items()}

    monkeypatch.setattr("byline.attribution.row_claims", by_account)
    (first, *_) = [row.id for row in arena.worlds[0].rows if row.contributor == arena.attacker]
    a_row_each = of(judged(arena, {first: -1.0}), Attack.SPLIT)[-1]
    assert a_row_each.gain is not None
    assert a_row_each.gain.value > 1.1
    assert a_row_each.passed is False


def test_a_row_of_weight_0_is_paid_exactly_nothing_and_costs_nobody(arena: Arena) -> None:
    (zero,) = of(judged(arena), Attack.ZERO_WEIGHT)
    assert (zero.paid_nano, zero.passed) == (0, True)
    assert zero.found == zero.world.sent
    honest, readings = arena.worlds[0], made_up_readings(arena)
    reading = readings[honest.training]
    trained = replace(
        reading,
        rows=(*reading.rows, zero.world.rows[-1].id),
        scores=np.hstack([reading.scores, np.ones((len(reading.lift), 1))]),
    )
    assert pay(zero.world, trained)[NEWCOMER].sum() > 0  # were it trained after all


@pytest.mark.parametrize("worth", [1.0, -1.0])
def test_a_newcomer_whose_row_was_trained_is_told_from_one_of_weight_0(
    arena: Arena, worth: float
) -> None:
    """Be it paid, or be it that others' pay is another."""
    (zero,) = [world for world in arena.worlds if world.attack is Attack.ZERO_WEIGHT]
    (junk,) = [world for world in arena.worlds if world.attack is Attack.JUNK]
    taught = replace(zero, rows=(*zero.rows, junk.rows[-1]))
    honest = made_up_readings(arena)[arena.worlds[0].training]
    scores = honest.scores[:, [honest.rows.index(row) for row in arena.worlds[0].trained]]
    column = np.full((len(scores), 1), worth)
    reading = replace(
        honest,
        rows=(*honest.rows, junk.rows[-1].id),
        scores=np.hstack([scores * np.linspace(1, 2, scores.shape[1]), column]),
    )
    readings = {arena.worlds[0].training: honest, taught.training: reading}
    (found,) = outcomes(arena, [taught], readings)
    assert (found.paid_nano > 0) is (worth > 0)
    assert found.passed is False


def test_a_bought_question_returns_at_most_the_contributors_part(arena: Arena) -> None:
    own = {row.id: 100.0 for row in arena.worlds[0].rows if row.contributor == arena.attacker}
    (wash,) = of(judged(arena, own), Attack.WASH)
    assert wash.gain is not None
    assert 0.9 * RETURN_CAP < wash.gain.value <= wash.gain.high <= RETURN_CAP == 0.5
    assert wash.passed


def test_junk_is_compared_with_as_many_honest_rows(arena: Arena) -> None:
    junk = {row.id: 0.25 for row in arena.study.rows if row.id.startswith("junk:")}
    (found,) = of(judged(arena, junk), Attack.JUNK)
    assert found.gain is not None
    assert found.gain.low < found.gain.value < found.gain.high
    assert found.gain.value == pytest.approx(0.25, abs=0.06)
    assert found.passed is None


def test_without_honest_pay_a_gain_has_no_meaning(arena: Arena) -> None:
    nothing = {row.id: -1.0 for row in arena.worlds[0].rows if row.contributor == arena.attacker}
    escaping = [each for each in of(judged(arena, nothing), Attack.COPIES) if not each.found]
    assert [each.gain for each in escaping] == [None] * 6
    assert not any(each.passed for each in escaping)
    assert {"gain": None, "passed": False}.items() <= as_json(escaping)[0].items()  # type: ignore[union-attr]


def test_readings_come_back_as_they_were_written(arena: Arena, tmp_path: Path) -> None:
    reading = made_up_readings(arena)[arena.worlds[0].training]
    path = reading_path(tmp_path, "ab")
    write_reading(path, reading)
    found = read_reading(path)
    assert found.rows == reading.rows
    np.testing.assert_array_equal(found.scores, reading.scores)
    assert found.charges == reading.charges
    assert [each.name for each in tmp_path.iterdir()] == ["ab.npz"]
    path.write_bytes(b"no file of arrays")
    with pytest.raises(InvalidInput, match="no reading"):
        read_reading(path)
