"""From influence scores to an attribution: who is paid what part of one answer. Pure.

The rules, in order:
1. An answer that the adapter made no likelier than the base model owes its contributors nothing.
2. A contributor's score is the sum over its rows; only then are negative sums cut to zero.
3. Shares are the positive scores over their sum, in whole parts per billion; money follows the
   shares in whole nano-USD. Both by largest remainder, so nothing is lost or made up.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from byline.errors import AttributionFailed
from byline.limits import PPB
from byline.money import largest_remainder
from byline.records import (
    Attribution,
    AttributionJob,
    AttributionState,
    ExampleInfluence,
    Share,
)

NO_LIFT = "no_lift"
NO_POSITIVE_INFLUENCE = "no_positive_influence"
NO_TOKENS = "no_tokens"


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the model says of one answer, before any rule of pay."""

    lift_nats: float  # log p(answer | adapter) - log p(answer | base model)
    scores: Mapping[str, float]  # of every contributor, in nats
    examples: Sequence[ExampleInfluence]  # the ones to show, strongest first


def attribute(job: AttributionJob, measurement: Measurement) -> Attribution:
    """The attribution of one choice. Raises AttributionFailed if a number is not finite."""
    shown = [example.score for example in measurement.examples]
    numbers = [measurement.lift_nats, *measurement.scores.values(), *shown]
    if not all(math.isfinite(number) for number in numbers):
        raise AttributionFailed(f"the scores of {job.inference} are not finite")
    positive = {who: score for who, score in measurement.scores.items() if score > 0}
    if measurement.lift_nats <= 0:
        return _attribution(job, measurement, (), NO_LIFT)
    if not positive:
        return _attribution(job, measurement, (), NO_POSITIVE_INFLUENCE)
    return _attribution(job, measurement, _shares(job, positive), None)


def failed(job: AttributionJob, reason: str) -> Attribution:
    """The visible state of an answer that could not be attributed: nobody is paid for it."""
    return _closed(job, AttributionState.FAILED, reason)


def skipped(job: AttributionJob, reason: str) -> Attribution:
    """The state of a choice that holds nothing to attribute."""
    return _closed(job, AttributionState.SKIPPED, reason)


def _shares(job: AttributionJob, positive: Mapping[str, float]) -> tuple[Share, ...]:
    salt = f"{job.inference}/{job.ordinal}"
    parts = largest_remainder(PPB, integer_weights(positive), salt)
    paid = largest_remainder(job.pool_nano, parts, salt)
    ranked = sorted(parts, key=lambda who: (-parts[who], -positive[who], who))
    return tuple(
        Share(contributor=who, score=positive[who], share_ppb=parts[who], nano=paid[who])
        for who in ranked
        if parts[who]
    )


def integer_weights(scores: Mapping[str, float]) -> dict[str, int]:
    """Integers in exactly the scores' proportions: a float is a fraction over a power of two."""
    fractions = {who: score.as_integer_ratio() for who, score in scores.items()}
    common = max(denominator for _, denominator in fractions.values())
    return {
        who: numerator * (common // denominator)
        for who, (numerator, denominator) in fractions.items()
    }


def _attribution(
    job: AttributionJob, measurement: Measurement, shares: tuple[Share, ...], reason: str | None
) -> Attribution:
    return Attribution(
        inference=job.inference,
        ordinal=job.ordinal,
        state=AttributionState.DONE,
        reason=reason,
        adapter_version=job.adapter_version,
        index=job.index,
        lift_nats=measurement.lift_nats,
        pool_nano=job.pool_nano,
        unattributed_nano=0 if shares else job.pool_nano,
        unattributed_ppb=0 if shares else PPB,
        shares=shares,
        examples=tuple(measurement.examples),
        scores=dict(measurement.scores),
    )


def _closed(job: AttributionJob, state: AttributionState, reason: str) -> Attribution:
    return Attribution(
        inference=job.inference,
        ordinal=job.ordinal,
        state=state,
        reason=reason,
        adapter_version=job.adapter_version,
        index=job.index,
        pool_nano=job.pool_nano,
        unattributed_nano=job.pool_nano,
        unattributed_ppb=PPB,
    )
