"""Fidelity's figures against values worked out by hand, and what a game of known worth must give.

In an additive game (an outcome is the sum of its members' worth) scores that are the worth have an
LDS of 1, scores handed round at random none, and leave-one-out effects are the worth itself.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byline.fidelity.measures import (
    Array,
    aggregate_payout_error,
    correlations,
    effect_correlation,
    lds,
    lds_by_answer,
    payout_errors,
    permuted_lds,
    predicted,
    rank_correlations,
    shares,
)
from byline.fidelity.replication import (
    half_distance,
    of_the_mean,
    orders_distance,
    reliability,
)
from byline.fidelity.resampling import Draws, draw, interval, lds_draws, mean_draws
from byline.fidelity.text_similarity import bm25, pooled, tf_idf


def lines(*rows: list[float]) -> Array:
    return np.array(rows, dtype=np.float64)


def test_correlation_is_pearsons_by_row() -> None:
    left, right = lines([1, 2, 3], [1, 2, 3], [1, 0, 1]), lines([2, 4, 6], [3, 2, 1], [1, 1, 0])
    np.testing.assert_allclose(correlations(left, right), [1, -1, -0.5])


def test_a_flat_prediction_orders_nothing() -> None:
    flat, real = lines([0.1, 0.1, 0.1], [5, 6, 7]), lines([1, 2, 3], [4, 4, 4])
    assert correlations(flat, real).tolist() == [0, 0]
    assert rank_correlations(flat, real).tolist() == [0, 0]


def test_rank_correlation_gives_ties_their_mean_rank() -> None:
    # ranks 1.5 1.5 3 4 and 1 2 3 4: covariance 4.5, variances 4.5 and 5
    found = rank_correlations(lines([7, 7, 8, 90]), lines([1, 2, 3, 4]))
    assert found[0] == pytest.approx(4.5 / np.sqrt(4.5 * 5))


def test_a_coalitions_prediction_is_its_members_sum_up_to_a_factor() -> None:
    scores, members = lines([3, 1, -2], [0, 0, 0]), lines([1, 1, 0], [0, 1, 1], [0, 0, 0])
    np.testing.assert_allclose(predicted(scores, members) * 6, [[4, -1, 0], [0, 0, 0]])


def test_equal_sums_in_another_order_are_ties() -> None:
    scores, members = lines([0.1, 0.2, 0.3, 0.0]), lines([1, 1, 0, 1], [0, 0, 1, 0])
    assert scores @ members[0] != scores @ members[1]  # 0.30000000000000004
    first, second = predicted(scores, members)[0]
    assert first == second


def test_lds_by_hand() -> None:
    """Sums 3, 4, 5 against outcomes in order, in reverse, and with the last two exchanged."""
    scores = lines([1, 2, 3], [1, 2, 3], [1, 2, 3])
    members = lines([1, 1, 0], [1, 0, 1], [0, 1, 1])
    outcomes = lines([-9, -8, -1], [3, 2, 1], [1, 3, 2])
    np.testing.assert_allclose(lds_by_answer(scores, members, outcomes), [1, -1, 0.5])
    assert lds(scores, members, outcomes) == pytest.approx(0.5 / 3)


@pytest.fixture
def game() -> tuple[Array, Array, Array]:
    """Worth [12, 8] of contributors, 40 coalitions [40, 8], and additive outcomes [12, 40]."""
    random = np.random.default_rng(3)
    worth = random.normal(size=(12, 8))
    members = np.stack([random.permutation([1.0] * 4 + [0.0] * 4) for _ in range(40)])
    return worth, members, worth @ members.T - 20


def test_in_an_additive_game_the_worth_has_an_lds_of_one(game: tuple[Array, Array, Array]) -> None:
    assert lds(*game) == pytest.approx(1)


def test_scores_handed_round_fall_to_chance(game: tuple[Array, Array, Array]) -> None:
    chance = permuted_lds(*game, random=np.random.default_rng(5), draws=200)
    assert chance.shape == (200,)
    assert abs(chance.mean()) < 0.1
    assert np.percentile(chance, 97.5) < 0.6


def test_shares_clip_what_is_negative_and_sum_to_one_or_to_nothing() -> None:
    found = shares(lines([3, 1, -2], [-1, -1, 0]))
    np.testing.assert_allclose(found, lines([0.75, 0.25, 0], [0, 0, 0]))


def test_payout_error_by_hand() -> None:
    """A quarter of the pay to the wrong person; all of it; and pay for an answer nobody made."""
    scores = lines([3, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0])
    effects = lines([2, 2, 0], [0, 0, 5], [-1, 0, 0], [0, 0, 0])
    np.testing.assert_allclose(payout_errors(scores, effects), [0.25, 1, 1, 0])


def test_payout_errors_of_opposite_sign_cancel_in_aggregate() -> None:
    scores, effects = lines([1, 0], [0, 1]), lines([0, 1], [1, 0])
    assert payout_errors(scores, effects).mean() == 1
    assert aggregate_payout_error(scores, effects) == 0
    assert aggregate_payout_error(lines([1, 0]), lines([0, 0])) == 1


def test_the_correlation_with_effects_is_a_mean_over_answers() -> None:
    assert effect_correlation(lines([1, 2, 3], [1, 2, 3]), lines([1, 2, 3], [3, 2, 1])) == 0


def test_an_interval_covers_its_draws() -> None:
    found = interval(0.5, np.linspace(0, 1, 1001))
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.025, 0.975))


def test_draws_resample_answers_and_coalitions(game: tuple[Array, Array, Array]) -> None:
    draws = draw(12, 40, 300, seed=1)
    found = lds_draws(game[0] + np.random.default_rng(7).normal(size=(12, 8)), *game[1:], draws)
    assert found.std() > 0.01
    again = draw(12, 40, 300, seed=1)
    assert np.array_equal(draws.answers, again.answers)
    assert draws.coalitions.max() == 39
    same = Draws(np.array([[0, 1]]), np.array([[3, 3, 3]]))  # one coalition thrice orders nothing
    assert lds_draws(*game, same).tolist() == [0]
    one = Draws(np.array([[0, 0, 2]]), np.array([[0]]))
    assert mean_draws(np.array([1.0, 5.0, 4.0]), one).tolist() == [2]


def test_the_draws_of_a_perfect_method_are_all_one(game: tuple[Array, Array, Array]) -> None:
    found = lds_draws(*game, draw(12, 40, 50, seed=2))
    np.testing.assert_allclose(found, 1)


def test_reliability_is_the_correlation_between_orders() -> None:
    effects = np.array([[[1.0, 2.0, 3.0]], [[2.0, 4.0, 6.0]], [[3.0, 2.0, 1.0]]])
    assert reliability(effects[:2]) == pytest.approx(1)
    assert reliability(effects) == 0  # 1, -1 and -1: nothing replicates
    assert of_the_mean(0.6, 1) == 0.6
    assert of_the_mean(0.6, 2) == pytest.approx(0.75)


def test_half_the_distance_of_two_shares_is_what_goes_elsewhere() -> None:
    paid = np.array([[0.5, 0.25, 0.25], [1.0, 0, 0]])
    assert half_distance(paid, paid) == 0
    assert half_distance(paid, paid[:, ::-1]) == pytest.approx(0.625)


def test_orders_are_compared_by_disjoint_halves_and_the_worst_is_told() -> None:
    one, other = np.array([[3.0, 1.0]]), np.array([[1.0, 3.0]])
    assert orders_distance(np.stack([one, other])) == pytest.approx(0.5)
    assert orders_distance(np.stack([one, one, other, other])) == pytest.approx(0.5)
    assert orders_distance(np.stack([one, other, one])) == pytest.approx(0.5)
    assert orders_distance(np.stack([one, one, one])) == 0
    # One strange order of four counts half in its half: (2, 2) against (3, 1).
    assert orders_distance(np.stack([one, one, one, other])) == pytest.approx(0.25)


@given(st.lists(st.lists(st.floats(-10, 10), min_size=3, max_size=3), min_size=1, max_size=5))
def test_a_payout_error_is_between_nothing_and_all(rows: list[list[float]]) -> None:
    effects = np.array(rows)
    errors = payout_errors(effects[:, ::-1], effects)
    assert ((errors >= -1e-9) & (errors <= 1 + 1e-9)).all()
    np.testing.assert_allclose(payout_errors(effects, effects), 0, atol=1e-12)


def test_bm25_by_hand() -> None:
    """Two rows of two words; `b` is in one of two: log(1 + 1.5 / 1.5), `a` in both."""
    found = bm25(["b b z"], ["a b", "a a"])
    assert found[0, 0] == pytest.approx(2 * np.log(2))  # length as the mean: 2.2 / 2.2
    assert found[0, 1] == 0


def test_tf_idf_is_a_cosine() -> None:
    found = tf_idf(["a b", "q"], ["a b", "b a", "c"])
    np.testing.assert_allclose(found, [[1, 1, 0], [0, 0, 0]], atol=1e-12)


def test_likeness_is_pooled_by_contributor() -> None:
    likeness = lines([1, 2, 3])
    owners = (0, 1, 1)
    wanted: dict[str, list[float]] = {
        "sum": [1, 5],
        "mean": [1, 2.5],
        "max": [1, 3],
        "sum of squares": [1, 13],
        "sum of fourth powers": [1, 97],
    }
    for pooling, expected in wanted.items():
        assert pooled(likeness, owners, pooling)[0].tolist() == expected
