"""The JSON form of an attribution, for the one who paid and for one contributor in it.

With one choice the top level repeats that choice. With several, money is summed over the choices,
and shares are quantised again from the sums; the choices stand beside it, each by itself.
"""

from collections.abc import Iterable, Sequence

from byline.limits import EXAMPLES_SHOWN, PPB
from byline.money import largest_remainder
from byline.records import (
    Attribution,
    AttributionState,
    ExampleInfluence,
    InferenceRecord,
    Share,
)
from byline.records_json import attribution_fields, span_fields

Fields = dict[str, object]

# The state of several choices is the first of these that any of them is in.
STATES = (
    AttributionState.PENDING,
    AttributionState.FAILED,
    AttributionState.DONE,
    AttributionState.SKIPPED,
)


def payer_fields(record: InferenceRecord) -> Fields:
    """Everything there is to say of one inference."""
    capture = record.capture
    return {
        **_head(record),
        "application": capture.application,
        "time_ms": record.time_ms,
        "prompt_tokens": capture.usage.prompt_tokens,
        "completion_tokens": sum(capture.usage.completion_tokens),
        "usage_source": capture.usage.source,
        "partial": capture.partial,
        "charge_nano": capture.charge_nano,
        "legs": dict(record.legs),
        **_attributed(total(record)),
        # Each choice's record as it was settled: its shares can be computed from it again, and the
        # SHA-256 of its canonical JSON stands in the journal.
        "choices": [attribution_fields(choice) for choice in record.attributions],
    }


def contributor_fields(record: InferenceRecord, contributor: str) -> Fields | None:
    """One contributor's line of an inference, or None if the contributor is not in it."""
    own = [_only(choice, contributor) for choice in record.attributions]
    if not any(choice.shares or choice.examples for choice in own):
        return None
    whole = _only(total(record), contributor)
    return {
        **_head(record),
        "time_ms": record.time_ms,
        "index": whole.index,
        "shares": _shares(whole.shares),
        "examples": _examples(whole.examples),
        "choices": [
            {
                "ordinal": choice.ordinal,
                "state": choice.state,
                "reason": choice.reason,
                "shares": _shares(choice.shares),
                "examples": _examples(choice.examples),
            }
            for choice in own
        ],
    }


def _head(record: InferenceRecord) -> Fields:
    whole = total(record)
    return {
        "object": "attribution",
        "id": record.capture.inference,
        "state": whole.state,
        "reason": whole.reason,
        "model": record.capture.model,
        "adapter": record.capture.served_by,
    }


def _attributed(attribution: Attribution) -> Fields:
    return {
        "pool_nano": attribution.pool_nano,
        "unattributed_nano": attribution.unattributed_nano,
        "unattributed_ppb": attribution.unattributed_ppb,
        "lift_nats": attribution.lift_nats,
        "shares": _shares(attribution.shares),
        "examples": _examples(attribution.examples),
        "index": attribution.index,
        "method": attribution.method,
        "reliability_ppb": attribution.reliability_ppb,
        "verbatim": [span_fields(span) for span in attribution.verbatim],
    }


def _shares(shares: Iterable[Share]) -> list[Fields]:
    return [
        {
            "contributor": share.contributor,
            "share_ppb": share.share_ppb,
            "nano": share.nano,
            "score": share.score,
        }
        for share in shares
    ]


def _examples(examples: Iterable[ExampleInfluence]) -> list[Fields]:
    return [
        {"id": example.id, "contributor": example.contributor, "score": example.score}
        for example in examples
    ]


def _only(attribution: Attribution, contributor: str) -> Attribution:
    """The attribution with no line but this contributor's."""
    return Attribution(
        inference=attribution.inference,
        ordinal=attribution.ordinal,
        state=attribution.state,
        reason=attribution.reason,
        index=attribution.index,
        shares=tuple(s for s in attribution.shares if s.contributor == contributor),
        examples=tuple(e for e in attribution.examples if e.contributor == contributor),
    )


def total(record: InferenceRecord) -> Attribution:
    """All choices as one attribution."""
    choices = record.attributions
    capture = record.capture
    if len(choices) == 1:
        return choices[0]
    if not choices:
        skipped = AttributionState.SKIPPED
        return Attribution(capture.inference, 0, skipped, capture.skipped, capture.adapter_version)
    state = next(state for state in STATES if any(c.state is state for c in choices))
    shares, unattributed_ppb = _summed_shares(choices, capture.inference)
    lifts = [choice.lift_nats for choice in choices if choice.lift_nats is not None]
    return Attribution(
        inference=capture.inference,
        ordinal=0,
        state=state,
        reason=next((c.reason for c in choices if c.state is state and c.reason), None),
        adapter_version=capture.adapter_version,
        index=capture.index,
        lift_nats=sum(lifts) if len(lifts) == len(choices) else None,
        pool_nano=sum(choice.pool_nano for choice in choices),
        unattributed_nano=sum(choice.unattributed_nano for choice in choices),
        unattributed_ppb=unattributed_ppb,
        shares=shares,
        examples=_merged_examples(choices),
    )


def _summed_shares(choices: Sequence[Attribution], salt: str) -> tuple[tuple[Share, ...], int]:
    """Nano and scores summed by contributor; shares of the summed pool, one whole together."""
    nano: dict[str, int] = {}
    score: dict[str, float] = {}
    for share in (share for choice in choices for share in choice.shares):
        nano[share.contributor] = nano.get(share.contributor, 0) + share.nano
        score[share.contributor] = score.get(share.contributor, 0.0) + share.score
    weights = {**nano, "": sum(choice.unattributed_nano for choice in choices)}  # no one's is ""
    if not any(weights.values()):
        return (), 0
    ppb = largest_remainder(PPB, weights, salt=salt)
    ordered = sorted(nano, key=lambda name: (-nano[name], name))
    return tuple(Share(name, score[name], ppb[name], nano[name]) for name in ordered), ppb[""]


def _merged_examples(choices: Sequence[Attribution]) -> tuple[ExampleInfluence, ...]:
    """The strongest examples over all choices. Never sums: each list is cut off somewhere."""
    strongest: dict[str, ExampleInfluence] = {}
    for example in (example for choice in choices for example in choice.examples):
        known = strongest.get(example.id)
        if known is None or example.score > known.score:
            strongest[example.id] = example
    ordered = sorted(strongest.values(), key=lambda example: (-example.score, example.id))
    return tuple(ordered[:EXAMPLES_SHOWN])
