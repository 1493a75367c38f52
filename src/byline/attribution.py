"""From influence scores to an attribution: who is paid what part of one answer. Pure.

The rules, in order:
1. Scores become integers once, in 1e-9 nats. All that follows is exact and can be replayed by
   anyone from the record alone, to the last digit.
2. Pay is in proportion to *claims*. Where every row is scored by itself, each score below zero is
   cut to zero, and an owner's claim is the sum over its rows; rows that are copies of another's are
   nobody's (`byline.datasets.copies`). The cut is made by row and never by account, so that who
   owns which rows changes no claim but its own: an account that is split, or several that are
   merged, claim together what they claimed before, to the last unit.
3. Where a method scores contributors whole (retrained without each), its score is first divided
   among its rows: evenly, and apart from that as another method tells the rows apart (`divided`).
   Without that other method, as in an audit, a claim is the score, zero if it is negative. The
   record carries the scores either way, negative ones too.
4. The base model is the zero point: an answer that the adapter made no likelier owes nothing.
5. Scores are shrunken by their measured reliability (of effects that replicate under another
   training order); the rest of the pool is `unattributed`.
6. Shares are quantised once, to whole parts per billion; money follows the shares in whole
   nano-USD. Both by largest remainder, so nothing is lost or made up.

A row's negative score can be shed by whoever pays the row to an account of its own. So the only
rules by which no split earns and no merger loses are sums over rows, of some part of each row's
score that is never negative; among those the positive part is what today's cut by account would pay
if everybody split. It pays for noise, about n s / sqrt(2 pi) of it for n rows of spread s. By rule
3 a split still sheds its negative parts, whatever they are. docs/fidelity.md has what was measured.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
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
REPLAYED_VERSIONS = (2, 3)
# How far apart `divided` puts a contributor's rows, of how far the other method does. Chosen on one
# data set's tuning answers, where 0.2 to 0.4 serve about as well; a second bore it out
# (docs/decisions.md).
ROW_SPREAD = 0.3


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
    row_scores: Sequence[tuple[str, float]] | None = None  # owner and nats; None: none by itself


def attribute(job: AttributionJob, measurement: Measurement) -> Attribution:
    """The attribution of one choice. Raises AttributionFailed if a number is not to be believed."""
    shown = [example.score for example in measurement.examples]
    if not all(math.isfinite(number) for number in (measurement.lift_nats, *shown)):
        raise AttributionFailed(f"the lift or the examples of {job.inference} are not finite")
    rows = measurement.row_scores
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
            claims=None if rows is None else row_claims(rows),
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


def row_claims(row_scores: Iterable[tuple[str | None, float]]) -> dict[str, int]:
    """What each owner's rows add up to, in 1e-9 nats, each row at zero if it is below.

    A row with no owner, one of weight 0, counts for nobody; who claims nothing is left out.
    AttributionFailed if a row's score, or all claims together, are beyond SCORE_NATS_MAX.
    """
    claims: dict[str, int] = {}
    for owner, score in row_scores:
        if not abs(score) <= SCORE_NATS_MAX:  # nor NaN
            raise AttributionFailed(f"a row of {owner} scores {score} nats: not to be believed")
        units = round(score * SCORE_UNITS_PER_NAT)
        if owner is not None and units > 0:
            claims[owner] = claims.get(owner, 0) + units
    if sum(claims.values()) > SCORE_NATS_MAX * SCORE_UNITS_PER_NAT:  # whoever shares them
        raise AttributionFailed("the rows' scores add up to more than is to be believed")
    return claims


def divided(
    scores: Mapping[str, float], row_scores: Sequence[tuple[str, float]]
) -> list[tuple[str, float]]:
    """Contributors' scores divided among their rows, in the order of `row_scores`; nats.

    A row of contributor c gets k f + (T_c - k F_c) / n_c: f the row's score by another method, F_c
    its sum over c's n_c rows, T_c c's own score, k = ROW_SPREAD |T| / |f|, lengths over all
    contributors and over all rows. So a contributor's rows sum to T_c. Who has no row is one row.
    """
    length = math.hypot(*(score for _, score in row_scores))
    spread = ROW_SPREAD * math.hypot(*scores.values())
    apart = [(who, spread * (score / length) if length else 0.0) for who, score in row_scores]
    left = dict(scores)
    count = dict.fromkeys(scores, 0)
    for who, part in apart:
        left[who] -= part
        count[who] += 1
    rows = [(who, part + left[who] / count[who]) for who, part in apart]
    return rows + [(who, score) for who, score in scores.items() if not count[who]]


def divided_in_groups(
    scores: Mapping[str, float],
    row_scores: Sequence[tuple[str, float]],
    group_of: Mapping[str, str],
) -> tuple[dict[str, float], list[tuple[str, float]]]:
    """Groups' scores divided among their members' rows: contributors' scores, and the rows' parts.

    As `divided` has it, with the group in the contributor's place; then a row's part is its owner's
    again. So a group's members add up to its score, whoever owns which of its rows. What a group
    without a known row scores, its members have in equal parts.
    """
    parts = divided(scores, [(group_of[who], score) for who, score in row_scores])
    rows = [(who, part) for (who, _), (_, part) in zip(row_scores, parts, strict=False)]
    for group, rest in parts[len(rows) :]:
        members = [who for who, each in group_of.items() if each == group]
        rows += [(who, rest / len(members)) for who in members]
    totals = dict.fromkeys(group_of, 0.0)
    for who, part in rows:
        totals[who] += part
    return totals, rows


def shared_out(attribution: Attribution) -> Attribution:
    """The attribution with reason, shares and money as its claims, lift and reliability say.

    Needs nothing beside the record: inference and ordinal salt the largest remainder.
    """
    claimed = attribution.scores if attribution.claims is None else attribution.claims
    positive = {who: claim for who, claim in claimed.items() if claim > 0}
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
    """Shares of what is reliable, in proportion to the claims; the rest is unattributed."""
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
    """The record again, its shares computed from its integer claims or scores.

    Equal to what was given, or the record is wrong. Raises AttributionFailed for one that can't be
    replayed: of version 1, or still pending.
    """
    if attribution.version not in REPLAYED_VERSIONS:
        raise AttributionFailed(
            f"the record is of version {attribution.version}, and {REPLAYED_VERSIONS} alone can be "
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
