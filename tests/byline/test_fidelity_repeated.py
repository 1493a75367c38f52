"""Noise ceiling and Banzhaf shares, by their invariants.

Orders that agree have a ceiling of 1, orders that share nothing one near 0, and a known part of
noise gives the root of its reliability; in an additive game Banzhaf values are the leave-one-out
effects.
"""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from byline.fidelity.banzhaf import anchored_values, compare
from byline.fidelity.measures import Array
from byline.fidelity.noise_ceiling import noise_ceiling, stepped
from byline.fidelity.readings import read_readings, write_readings
from byline.fidelity.repeated import repeated, repeated_json, repeated_page
from byline.fidelity.resampling import draw
from tests.byline.fidelity_world import made_up_readings, made_up_study

HALVES = np.array([[float(c in half) for c in range(6)] for half in combinations(range(6), 3)])


def outcomes(orders: int, noise: float) -> Array:
    """[orders, 40, 60]: one truth of variance 1, and noise of each order's own."""
    chance = np.random.default_rng(5)
    truth = chance.normal(size=(1, 40, 60))
    return np.asarray(truth + noise * chance.normal(size=(orders, 40, 60)))


@pytest.mark.parametrize("orders", [2, 3, 4])
def test_orders_that_agree_have_a_ceiling_of_one(orders: int) -> None:
    found = noise_ceiling(outcomes(orders, 0.0), draw(40, 60, 10, 1))
    assert found.lds_max.value == pytest.approx(1)
    assert found.reliability.low == pytest.approx(1)
    assert found.orders == orders


@pytest.mark.parametrize("orders", [2, 3, 4])
def test_the_ceiling_is_of_one_order_however_many_there_are(orders: int) -> None:
    found = noise_ceiling(outcomes(orders, 1.0), draw(40, 60, 20, 1))
    assert found.reliability.value == pytest.approx(0.5, abs=0.06)
    assert found.lds_max.value == pytest.approx(0.5**0.5, abs=0.05)


def test_orders_that_share_nothing_have_none() -> None:
    chance = np.random.default_rng(1).normal(size=(3, 40, 60))
    assert noise_ceiling(chance, draw(40, 60, 10, 1)).reliability.value < 0.05


def test_spearman_and_browns_formula() -> None:
    given = np.array([-0.2, 0.5, 1.0])
    np.testing.assert_allclose(stepped(given, 2), [0, 2 / 3, 1])
    np.testing.assert_allclose(stepped(stepped(given, 3), 1 / 3), [0, 0.5, 1])


@pytest.mark.parametrize("everybody", [True, False])
def test_banzhaf_is_leave_one_out_in_an_additive_game(everybody: bool) -> None:
    worth = np.random.default_rng(2).normal(size=(5, 6))
    base: Array = np.asarray(np.arange(5), dtype=np.float64)
    anchor = base + worth @ np.ones(6) if everybody else base
    found = anchored_values(base[:, None] + worth @ HALVES.T, HALVES, anchor, everybody=everybody)
    np.testing.assert_allclose(found, worth)
    same = compare("x", found, worth, draw(5, 20, 10, 1))
    assert same.change_by_answer.high == pytest.approx(0)
    assert same.change_in_aggregate == pytest.approx(0)
    other = compare("x", np.roll(found, 1, axis=1), worth, draw(5, 20, 10, 1))
    assert other.change_by_answer.low > 0.1


def test_too_few_coalitions_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        anchored_values(np.zeros((1, 4)), HALVES[:4], np.zeros(1), everybody=True)


def test_they_stand_on_the_page_and_in_the_object(tmp_path: Path) -> None:
    study = made_up_study()
    plain = made_up_readings(study)
    assert repeated(study, plain, served=True, draws=10).noise_ceiling is None
    again = replace(plain, repeated=plain.coalitions[None] + 1)
    write_readings(tmp_path / "readings.npz", again)
    found = repeated(study, read_readings(tmp_path / "readings.npz"), served=True, draws=10)
    assert found.noise_ceiling is not None
    assert found.noise_ceiling.lds_max.value == pytest.approx(1)
    by_base = {one.anchor: one for one in found.banzhaf}["base"]
    assert by_base.change_by_answer.value == pytest.approx(0)
    page = repeated_page({"served": found})
    assert "noise ceiling over 2 orders: LDS 1.00 [1.00, 1.00]" in page
    assert "anchored at base would change pay by 0.00" in page
    assert repeated_page({}) == ""
    told = repeated_json({"served": found})["repeated"]
    assert isinstance(told, dict)
    assert list(told) == ["served"]


def test_coalitions_that_tell_nobody_apart_give_no_banzhaf() -> None:
    study = made_up_study()
    plain = made_up_readings(study)
    few = replace(plain, coalitions=plain.coalitions[:4], coalition_places=np.arange(4))
    found = repeated(study, few, served=True, draws=10)
    assert found.banzhaf == []
    assert "Banzhaf shares anchored" not in repeated_page({"served": found})
