"""Splits are exact, and fair to within one nano-dollar; a charge is rounded once."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byline.limits import LEG_NANO_MAX, PPB
from byline.money import (
    POLICY,
    Policy,
    Price,
    charge_nano,
    charge_of,
    credits_of_capture,
    largest_charge_nano,
    largest_remainder,
    pools_of_choices,
    usd,
)
from byline.records import Usage, UsageSource

amounts = st.integers(0, LEG_NANO_MAX)
weights = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=6), st.integers(0, PPB), min_size=1, max_size=40
).filter(lambda found: any(found.values()))
salts = st.text(max_size=8)
tokens = st.integers(0, 10**7)
prices = st.integers(0, 10**12)


@given(amounts, weights, salts)
def test_the_parts_sum_to_the_amount_and_keep_the_quota(
    amount: int, weights: dict[str, int], salt: str
) -> None:
    parts = largest_remainder(amount, weights, salt)
    total = sum(weights.values())
    assert sum(parts.values()) == amount
    assert parts.keys() == weights.keys()
    for name, part in parts.items():
        assert part >= 0
        assert abs(part * total - amount * weights[name]) < total  # within one unit of exact
        assert part == 0 or weights[name]


@given(amounts, weights, salts, st.randoms(use_true_random=False))
def test_the_order_of_payees_changes_nothing(
    amount: int, weights: dict[str, int], salt: str, rng: random.Random
) -> None:
    names = list(weights)
    rng.shuffle(names)
    shuffled = {name: weights[name] for name in names}
    assert largest_remainder(amount, shuffled, salt) == largest_remainder(amount, weights, salt)


@given(amounts, weights, salts, st.integers(2, 1_000))
def test_only_the_ratio_of_weights_counts(
    amount: int, weights: dict[str, int], salt: str, factor: int
) -> None:
    scaled = {name: weight * factor for name, weight in weights.items()}
    assert largest_remainder(amount, scaled, salt) == largest_remainder(amount, weights, salt)


@given(amounts, weights, salts)
def test_a_bigger_weight_never_gets_less(amount: int, weights: dict[str, int], salt: str) -> None:
    parts = largest_remainder(amount, weights, salt)
    ordered = sorted(weights, key=lambda name: (weights[name], parts[name]))
    for poorer, richer in pairwise(ordered):
        assert parts[poorer] <= parts[richer] or weights[poorer] == weights[richer]


@pytest.mark.parametrize("payees", [1, 2, 50, 1_999, 2_000])
def test_one_to_two_thousand_payees_are_paid_in_full(payees: int) -> None:
    rng = random.Random(payees)
    weights = {f"c{index}": rng.randrange(1, PPB) for index in range(payees)}
    for amount in (0, 1, payees - 1, payees, 123_457, LEG_NANO_MAX):
        assert sum(largest_remainder(amount, weights, "salt").values()) == amount


@settings(max_examples=30)
@given(st.integers(1, 2_000), amounts, st.integers(1, PPB), st.randoms(use_true_random=False))
def test_every_property_holds_for_one_to_two_thousand_payees(
    payees: int, amount: int, weight_max: int, rng: random.Random
) -> None:
    given_weights = {f"c{index}": rng.randrange(weight_max + 1) for index in range(payees - 1)}
    given_weights["last"] = weight_max
    total = sum(given_weights.values())
    parts = largest_remainder(amount, given_weights, "salt")
    assert sum(parts.values()) == amount
    for name, part in parts.items():
        assert abs(part * total - amount * given_weights[name]) < total
        assert part >= 0
        assert part == 0 or given_weights[name] > 0


@given(weights, salts, st.integers(1, 1_000))
def test_an_amount_that_is_a_multiple_of_the_weights_is_split_without_remainder(
    weights: dict[str, int], salt: str, factor: int
) -> None:
    amount = factor * sum(weights.values())
    expected = {name: factor * weight for name, weight in weights.items()}
    assert largest_remainder(amount, weights, salt) == expected


@given(amounts, weights, salts, st.data())
def test_whoever_gets_a_bigger_weight_never_gets_less(
    amount: int, weights: dict[str, int], salt: str, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(weights)))
    more = {**weights, name: weights[name] + data.draw(st.integers(1, PPB))}
    before = largest_remainder(amount, weights, salt)[name]
    assert largest_remainder(amount, more, salt)[name] >= before


def test_equal_remainders_favour_no_name_for_ever() -> None:
    winners = {
        max(parts, key=parts.__getitem__)
        for parts in (largest_remainder(1, {"a": 1, "b": 1, "c": 1}, str(i)) for i in range(50))
    }
    assert winners == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("amount", "weights"), [(-1, {"a": 1}), (1, {"a": -1, "b": 2}), (1, {"a": 0}), (1, {})]
)
def test_a_split_without_sense_is_refused(amount: int, weights: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        largest_remainder(amount, weights, "salt")


@given(tokens, tokens, prices, prices)
def test_a_charge_is_the_exact_price_rounded_half_up_once(
    prompt: int, completion: int, prompt_price: int, completion_price: int
) -> None:
    exact = prompt * prompt_price + completion * completion_price  # in millionths of a nano
    charge = charge_nano(Price(prompt_price, completion_price), prompt, completion)
    assert -500_000 < charge * 1_000_000 - exact <= 500_000


def test_the_default_prices_are_those_of_the_policy() -> None:
    usage = Usage(10, (3, 4), UsageSource.ENGINE)
    assert charge_of(POLICY.adapter_price, usage) == 10 * 150 + 7 * 600
    assert charge_of(POLICY.base_price, usage) == 10 * 100 + 7 * 400
    held = largest_charge_nano(POLICY.adapter_price, prompt_tokens_max=10, usage_completion_max=7)
    assert held == 10 * 150 + 7 * 600


@given(amounts, st.booleans(), st.uuids())
def test_credits_and_pool_sum_to_the_charge(charge: int, adapter: bool, inference: object) -> None:
    legs, pool = credits_of_capture(
        POLICY,
        charge,
        inference=str(inference),
        base_model="smollm2",
        owner_of="healthcare" if adapter else None,
    )
    assert sum(leg.nano for leg in legs) + pool == charge
    assert all(leg.nano > 0 for leg in legs)
    assert adapter or pool == 0
    assert len({leg.account for leg in legs}) == len(legs)


def test_an_adapter_answer_is_split_as_published() -> None:
    legs, pool = credits_of_capture(
        POLICY, 1_000, inference="i", base_model="smollm2", owner_of="healthcare"
    )
    credited = {leg.account: leg.nano for leg in legs}
    assert credited == {"platform": 100, "host": 150, "base:smollm2": 50, "owner:healthcare": 200}
    assert pool == 500


@given(amounts, st.lists(st.integers(0, 4_096), min_size=1, max_size=8))
def test_pools_follow_tokens_and_a_choice_without_tokens_has_none(
    pool: int, completion_tokens: list[int]
) -> None:
    pools = pools_of_choices(pool, completion_tokens, "i")
    assert sum(pools) == (pool if any(completion_tokens) else 0)
    assert all(count or not nano for count, nano in zip(completion_tokens, pools, strict=True))


def test_a_split_that_is_not_whole_is_no_policy() -> None:
    with pytest.raises(ValueError, match="does not sum"):
        Policy("x", Price(1, 1), Price(1, 1), {"platform": PPB - 1}, {"platform": PPB})


@pytest.mark.parametrize(
    ("nano", "text"),
    [(0, "0.000000000"), (1, "0.000000001"), (-1, "-0.000000001"), (1_500_000_000, "1.500000000")],
)
def test_dollars_are_written_exactly(nano: int, text: str) -> None:
    assert usd(nano) == text
