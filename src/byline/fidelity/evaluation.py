"""From readings to figures: variants tuned on one split, everything reported on the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from byline.canonical import Json
from byline.fidelity.claims import as_paid
from byline.fidelity.measures import (
    Array,
    aggregate_payout_error,
    correlations,
    effect_correlation,
    lds,
    payout_errors,
    permuted_lds,
)
from byline.fidelity.methods import COSTS, FISHER, FORWARD, ROWS, TANGENT, Cost, Variants
from byline.fidelity.readings import Readings, membership_of, tuning
from byline.fidelity.replication import reliability
from byline.fidelity.resampling import Draws, Figure, draw, interval, lds_draws, mean_draws
from byline.fidelity.study import Study

PERMUTATIONS = 100


@dataclass(frozen=True, slots=True)
class Judged:
    """One method on one kind of answers of the test split."""

    variant: str
    cost: Cost
    lds: Figure
    lds_permuted: Figure
    payout_error: Figure  # of scores cut at zero by contributor
    payout_error_aggregate: float
    payout_error_paid: Figure | None  # of the claims, where the method pays and rows were read
    effect_correlation: float


@dataclass(frozen=True, slots=True)
class Gain:
    """The difference of two methods' LDS, from the same draws."""

    over: str
    lds: Figure


@dataclass(frozen=True, slots=True)
class Judgement:
    """All methods on one kind of answers; gains are the tangent's, where it was measured."""

    answers: int
    coalitions: int
    methods: Mapping[str, Judged]
    gains: Sequence[Gain]
    payout_ratio: float | None  # the tangent's payout error, as paid if known, over pay-by-rows'


@dataclass(frozen=True, slots=True)
class Test:
    """What one kind of answers is judged by: outcomes and effects of the test split."""

    answers: NDArray[np.int64]
    membership: Array
    outcomes: Array
    effects: Array
    draws: Draws


def choose(
    study: Study, readings: Readings, variants: Variants, wanted: Sequence[str] = ()
) -> dict[str, str]:
    """Each method's variant of most LDS on the served answers and coalitions of the tuning split.

    A question is tuned on or tested on with all its answers.
    """
    mine = tuning(len(study.questions))[readings.question] & readings.is_served
    coalitions = tuning(len(readings.coalitions))
    members = membership_of(study, readings)[coalitions]
    outcomes = readings.coalitions[coalitions][:, mine].T

    def of(scores: Array) -> float:
        return lds(scores[mine], members, outcomes)

    return {
        method: max(each, key=lambda variant: of(each[variant]))  # the first of equals
        for method, each in variants.items()
        if not wanted or method in wanted
    }


def judge(
    study: Study,
    readings: Readings,
    variants: Variants,
    chosen: Mapping[str, str],
    *,
    served: bool,
    draws: int = 1_000,
) -> Judgement:
    """The chosen variants on the test split of the served answers, or of the references."""
    test = judged_on(study, readings, served=served, draws=draws)
    mine = test.answers
    drawn = {
        method: lds_draws(
            variants[method][variant][mine], test.membership, test.outcomes, test.draws
        )
        for method, variant in chosen.items()
    }
    judged = {}
    for method, variant in chosen.items():
        scores = variants[method][variant]
        each = _judged(method, variant, scores[mine], test, drawn[method])
        claims = as_paid(study, readings, method, scores)
        if claims is not None:
            each = replace(each, payout_error_paid=_payout_error(claims[mine], test))
        judged[method] = each
    ratio = None
    if TANGENT in judged and ROWS in judged:
        tangent = judged[TANGENT].payout_error_paid or judged[TANGENT].payout_error
        ratio = tangent.value / judged[ROWS].payout_error.value
    return Judgement(len(mine), len(test.membership), judged, _gains(judged, drawn), ratio)


def judged_on(study: Study, readings: Readings, *, served: bool, draws: int = 1_000) -> Test:
    """What nothing was tuned on, of the served answers or of the references."""
    of_kind = readings.is_served if served else ~readings.is_served
    mine = np.flatnonzero(of_kind & ~tuning(len(study.questions))[readings.question])
    coalitions = ~tuning(len(readings.coalitions))
    return Test(
        answers=mine,
        membership=membership_of(study, readings)[coalitions],
        outcomes=readings.coalitions[coalitions][:, mine].T,
        effects=_truth(readings)[mine],
        draws=draw(len(mine), int(coalitions.sum()), draws, seed=1),
    )


def _truth(readings: Readings) -> Array:
    """Retrained leave-one-out effects [A, C]: of the orders that no method has seen, if any."""
    effects = readings.effects
    truth: Array = effects[1:].mean(axis=0) if len(effects) > 1 else effects[0]
    return truth


def _judged(method: str, variant: str, scores: Array, test: Test, drawn: Array) -> Judged:
    chance = permuted_lds(
        scores, test.membership, test.outcomes, np.random.default_rng(2), PERMUTATIONS
    )
    return Judged(
        variant=variant,
        cost=COSTS[method],
        lds=interval(lds(scores, test.membership, test.outcomes), drawn),
        lds_permuted=interval(float(chance.mean()), chance),
        payout_error=_payout_error(scores, test),
        payout_error_aggregate=aggregate_payout_error(scores, test.effects),
        payout_error_paid=None,
        effect_correlation=effect_correlation(scores, test.effects),
    )


def _payout_error(scores: Array, test: Test) -> Figure:
    errors = payout_errors(scores, test.effects)
    return interval(float(errors.mean()), mean_draws(errors, test.draws))


def _gains(judged: Mapping[str, Judged], drawn: Mapping[str, Array]) -> list[Gain]:
    """The tangent's over the best similarity (by the test itself: the hardest), and over Fisher."""
    if TANGENT not in judged:
        return []
    alike = [name for name, each in judged.items() if each.cost is Cost.SIMILARITY]
    rivals = [max(alike, key=lambda name: judged[name].lds.value)] if alike else []
    rivals += [name for name in (FISHER,) if name in judged]
    return [
        Gain(
            over=rival,
            lds=interval(
                judged[TANGENT].lds.value - judged[rival].lds.value,
                drawn[TANGENT] - drawn[rival],
            ),
        )
        for rival in rivals
    ]


def training_figures(readings: Readings) -> dict[str, Json]:
    """What training itself shows: smoothness, lift, how much of it single effects add up to."""
    served = readings.is_served
    lift = (readings.full[0] - readings.base)[served]
    effects = readings.effects[0][served]
    halves = []
    for number, place in enumerate(readings.halved_places):
        first = readings.full[0] - readings.halved[number]
        second = readings.halved[number] - readings.without[0, :, place]
        halves.append({
            "weights_cosine": round(float(readings.smoothness[number, 0]), 4),
            "weights_sign_agreement": round(float(readings.smoothness[number, 1]), 4),
            "effects_correlation": round(float(correlations(first[None], second[None])[0]), 4),
        })  # fmt: skip
    orders = len(readings.effects)
    return {
        "orders": orders,
        "reliability": round(reliability(readings.effects), 4) if orders > 1 else None,
        "smoothness": halves,
        "lift_nats_per_token": round(float((lift / readings.tokens[served]).mean()), 4),
        "effect_nats_per_token": round(
            float((np.abs(effects) / readings.tokens[served][:, None]).mean()), 4
        ),
        "effects_over_lift_median": round(float(np.median(effects.sum(axis=1) / lift)), 4),
        "truth_is_of_another_order": orders > 1,
        "forward_is_the_truth_of_pay": orders == 1 and FORWARD in COSTS,
    }
