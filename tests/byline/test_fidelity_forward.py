"""Coalitions beside leave-one-out effects: told apart from noise, never worse than chance alone."""

import numpy as np
import pytest

from byline.fidelity.forward import RIDGES, fitted, left_out_error, with_coalitions
from byline.fidelity.measures import Array, lds

ANSWERS, PEOPLE = 60, 8


def halves(count: int, seed: int) -> Array:
    chance = np.random.default_rng(seed)
    members = np.zeros((count, PEOPLE))
    for line in members:
        line[chance.permutation(PEOPLE)[: PEOPLE // 2]] = 1
    return members


def world(noise: float) -> tuple[Array, Array, Array]:
    """What contributors are worth in halves; what effects say of it; outcomes of 20 halves."""
    chance = np.random.default_rng(3)
    worth = chance.normal(size=(ANSWERS, PEOPLE))
    effects = (worth + noise * chance.normal(size=worth.shape)) / 7
    return worth, effects, chance.normal(size=(ANSWERS, 1)) + worth @ halves(20, 4).T


@pytest.mark.parametrize("ridge", RIDGES)
def test_effects_that_foretell_everything_are_only_scaled(ridge: float) -> None:
    worth, effects, outcomes = world(noise=0.0)
    found = fitted(effects, outcomes, halves(20, 4), ridge)
    np.testing.assert_allclose(found, worth, atol=1e-9)


def test_noisy_effects_are_mended_by_coalitions_that_were_not_asked_about() -> None:
    _, effects, outcomes = world(noise=1.5)
    members = halves(20, 4)
    known, asked = np.arange(20) < 10, np.arange(20) >= 10
    tuned_on = np.arange(ANSWERS) % 3 == 0
    found = with_coalitions(effects, outcomes[:, known], members[known], tuned_on)
    rest = ~tuned_on
    better = lds(found[rest], members[asked], outcomes[rest][:, asked])
    assert better > lds(effects[rest], members[asked], outcomes[rest][:, asked]) + 0.1


def test_coalitions_that_are_noise_leave_the_effects_as_they_are() -> None:
    _, effects, _ = world(noise=0.0)
    members = halves(10, 4)
    chance = np.random.default_rng(9).normal(size=(ANSWERS, 10))
    outcomes = 7 * effects @ members.T + 5 * chance
    found = with_coalitions(effects, outcomes, members, np.arange(ANSWERS) % 3 == 0)
    assert np.corrcoef(found.ravel(), effects.ravel())[0, 1] > 0.9


def test_a_scale_turned_round_would_be_seen() -> None:
    """Left-out coalitions are foretold worse by effects that say nothing."""
    _, effects, outcomes = world(noise=0.0)
    members = halves(20, 4)
    right = left_out_error(effects, outcomes, members, 1.0)
    wrong = left_out_error(np.roll(effects, 1, axis=1), outcomes, members, 1.0)
    assert right < 1e-9 < wrong
