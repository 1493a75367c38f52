"""From influence scores to an attribution: who is paid what part of one answer. Pure.

The rules, in order:
1. Scores become integers once, in 1e-9 nats. All that follows is exact and can be replayed by
   anyone from the record alone, to the last digit.
2. The unit of pay is the contributor with the rows it owns: row scores are summed by owner, and
   rows that are copies of another's are nobody's (`byline.datasets.copies`).
3. Only then are negative sums cut to zero; the record carries them. Cutting row by row would pay
   for noise, about n s / sqrt(2 pi) of it for n rows of spread s.
4. The base model is the zero point: an answer that the adapter made no likelier owes nothing.
5. Scores are shrunken by their measured reliability (of effects that replicate under another
   training order); the rest of the pool is `unattributed`.
6. Shares are quantised once, to whole parts per billion; money follows the shares in whole
   nano-USD. Both by largest remainder, so nothing is lost or made up.

Splitting a contributor's rows into several accounts leaves the sum of their scores as it was. So
the sum of their pay changes by rounding alone (a few ppb), except that a part whose own sum is
negative no longer weighs against the others: the gain is that negative sum, never more. It can be
much: `byline attacks` measures it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from byline.errors import AttributionFailed
from byline.limits import PPB, SCORE_NATS_MAX, SCORE_UNITS_PER_NAT
from byline.money import largest_remainder
from byline.records import (
    Attribution,
    AttributionJob,
    AttributionState,
    ExampleInfluence,
    Share,
    VerbatimSpan,
)

NO_LIFT = "no_lift"
NO_POSITIVE_INFLUENCE = "no_positive_influence"
NO_TOKENS = "no_tokens"
NOT_RELIABLE = "not_reliable"
REPLAYED_VERSION = 2


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the model says of one answer, before any rule of pay."""

    lift_nats: float  # log p(answer | adapter) - log p(answer | base model)
    scores: Mapping[str, float]  # of every contributor, in nats
    examples: Sequence[ExampleInfluence]  # the ones to show, strongest first
    method: str | None = None  # how the scores were made
    reliability_ppb: int | None = None  # None: never measured, so nothing is withheld for it
    libraries: Mapping[str, str] = field(default_factory=dict)  # what made them -> version
    tokens_salt: str | None = None
    verbatim: Sequence[VerbatimSpan] = ()


def attribute(job: AttributionJob, measurement: Measurement) -> Attribution:
    """The attribution of one choice. Raises AttributionFailed if a number is not to be believed."""
    shown = [example.score for example in measurement.examples]
    if not all(math.isfinite(number) for number in (measurement.lift_nats, *shown)):
        raise AttributionFailed(f"the lift or the examples of {job.inference} are not finite")
    return shared_out(
        Attribution(
            inference=job.inference,
            ordinal=job.ordinal,
            state=AttributionState.DONE,
            adapter_version=job.adapter_version,
            index=job.index,
            lift_nats=measurement.lift_nats,
            pool_nano=job.pool_nano,
            examples=tuple(measurement.examples),
            scores=integer_scores(measurement.scores),
            method=measurement.method,
            reliability_ppb=measurement.reliability_ppb,
            libraries=dict(measurement.libraries),
            tokens_sha256=job.tokens_sha256,
            tokens_salt=measurement.tokens_salt,
            verbatim=tuple(measurement.verbatim),
        )
    )


def failed(job: AttributionJob, reason: str) -> Attribution:
    """The visible state of an answer that could not be attributed: nobody is paid for it."""
    return _closed(job, AttributionState.FAILED, reason)


def skipped(job: AttributionJob, reason: str) -> Attribution:
    """The state of a choice that holds nothing to attribute."""
    return _closed(job, AttributionState.SKIPPED, reason)


def integer_scores(scores: Mapping[str, float]) -> dict[str, int]:
    """Scores in nats as whole 1e-9 nats. AttributionFailed if one is beyond SCORE_NATS_MAX."""
    for who, score in scores.items():
        if not abs(score) <= SCORE_NATS_MAX:  # nor NaN
            raise AttributionFailed(f"the score of {who} is {score} nats: not to be believed")
    return {who: round(score * SCORE_UNITS_PER_NAT) for who, score in scores.items()}


def unit_scores(row_scores: Mapping[str, int], owners: Mapping[str, str | None]) -> dict[str, int]:
    """Each contributor's score: the sum over the rows it owns, zero for whom none is left.

    `owners` names every row's contributor; None for a row of weight 0, which counts for nobody.
    """
    sums = {owner: 0 for owner in owners.values() if owner is not None}
    for row, score in row_scores.items():
        owner = owners[row]
        if owner is not None:
            sums[owner] += score
    return sums


def shared_out(attribution: Attribution) -> Attribution:
    """The attribution with reason, shares and money as its scores, lift and reliability say.

    Needs nothing beside the record: inference and ordinal salt the largest remainder.
    """
    positive = {who: score for who, score in attribution.scores.items() if score > 0}
    reliability = PPB if attribution.reliability_ppb is None else attribution.reliability_ppb
    reason = None
    if attribution.lift_nats is None or attribution.lift_nats <= 0:
        reason = NO_LIFT
    elif not positive:
        reason = NO_POSITIVE_INFLUENCE
    elif reliability <= 0:
        reason = NOT_RELIABLE
    if reason is not None:
        pool = attribution.pool_nano
        return replace(
            attribution, reason=reason, shares=(), unattributed_ppb=PPB, unattributed_nano=pool
        )
    return _paid(replace(attribution, reason=None), positive, min(reliability, PPB))


def _paid(
    attribution: Attribution, positive: Mapping[str, int], reliability_ppb: int
) -> Attribution:
    """Shares of what is reliable, in proportion to the scores; the rest is unattributed."""
    salt = f"{attribution.inference}/{attribution.ordinal}"
    parts = largest_remainder(reliability_ppb, positive, salt)
    unattributed = PPB - reliability_ppb
    weights = {**parts, "": unattributed} if unattributed else parts  # no contributor is called ""
    paid = largest_remainder(attribution.pool_nano, weights, salt)
    ranked = sorted(parts, key=lambda who: (-parts[who], -positive[who], who))
    return replace(
        attribution,
        unattributed_ppb=unattributed,
        unattributed_nano=paid.get("", 0),
        shares=tuple(
            Share(who, positive[who] / SCORE_UNITS_PER_NAT, parts[who], paid[who])
            for who in ranked
            if parts[who]
        ),
    )


def replayed(attribution: Attribution) -> Attribution:
    """The record again, its shares computed from its integer scores.

    Equal to what was given, or the record is wrong. Raises AttributionFailed for one that can't be
    replayed: of version 1, or still pending.
    """
    if attribution.version != REPLAYED_VERSION:
        raise AttributionFailed(
            f"the record is of version {attribution.version}, and {REPLAYED_VERSION} alone can be "
            "replayed: version 1 had no integer scores"
        )
    if attribution.state is AttributionState.PENDING:
        raise AttributionFailed(f"{attribution.inference} is still pending: try again later")
    if attribution.state is AttributionState.DONE:
        return shared_out(attribution)
    return replace(
        attribution,
        shares=(),
        unattributed_ppb=PPB,
        unattributed_nano=attribution.pool_nano,
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
        tokens_sha256=job.tokens_sha256,
    )
