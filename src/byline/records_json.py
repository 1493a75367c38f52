"""The records that are stored or sent as JSON, and back. Pure: knows neither Redis nor HTTP.

A record's JSON is canonical (RFC 8785), so that its SHA-256 can stand in the journal as the
manifest that says why an entry was posted.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from byline.canonical import Json
from byline.limits import SCORE_UNITS_PER_NAT
from byline.records import (
    Attribution,
    AttributionJob,
    AttributionState,
    Capture,
    ExampleInfluence,
    Leg,
    Share,
    Usage,
    UsageSource,
    VerbatimRow,
    VerbatimSpan,
)

CLAIMS_SINCE = 3  # version


def attribution_fields(attribution: Attribution) -> dict[str, Json]:
    """An attribution as JSON fields."""
    return {
        "inference": attribution.inference,
        "ordinal": attribution.ordinal,
        "state": attribution.state.value,
        "reason": attribution.reason,
        "adapter_version": attribution.adapter_version,
        "index": attribution.index,
        "lift_nats": attribution.lift_nats,
        "pool_nano": attribution.pool_nano,
        "unattributed_nano": attribution.unattributed_nano,
        "unattributed_ppb": attribution.unattributed_ppb,
        "shares": [
            {
                "contributor": share.contributor,
                "score": share.score,
                "share_ppb": share.share_ppb,
                "nano": share.nano,
            }
            for share in attribution.shares
        ],
        "examples": [
            {"id": example.id, "contributor": example.contributor, "score": example.score}
            for example in attribution.examples
        ],
        "scores": dict(attribution.scores),
        **_claims(attribution),
        "v": attribution.version,
        "method": attribution.method,
        "reliability_ppb": attribution.reliability_ppb,
        "libraries": dict(attribution.libraries),
        "tokens_sha256": attribution.tokens_sha256,
        "tokens_salt": attribution.tokens_salt,
        "verbatim": [span_fields(span) for span in attribution.verbatim],
    }


def _claims(attribution: Attribution) -> dict[str, Json]:
    """None in a record from before claims: its text, and so its hash, stays what it was."""
    if attribution.version < CLAIMS_SINCE:
        return {}
    claims = attribution.claims
    return {"claims": None if claims is None else dict(claims)}


def attribution_from(fields: Mapping[str, Any]) -> Attribution:
    """The attribution that `attribution_fields` was given, or one that version 1 had written.

    Version 1 had no `v`, and scores in nats: they are rounded to the integers of today, which is
    enough to show them and not to replay its shares.
    """
    lift, claims = fields["lift_nats"], fields.get("claims")
    version = fields.get("v", 1)
    unit = 1 if version > 1 else SCORE_UNITS_PER_NAT
    return Attribution(
        inference=fields["inference"],
        ordinal=fields["ordinal"],
        state=AttributionState(fields["state"]),
        reason=fields["reason"],
        adapter_version=fields["adapter_version"],
        index=fields["index"],
        lift_nats=None if lift is None else float(lift),
        pool_nano=fields["pool_nano"],
        unattributed_nano=fields["unattributed_nano"],
        unattributed_ppb=fields["unattributed_ppb"],
        shares=tuple(
            Share(share["contributor"], float(share["score"]), share["share_ppb"], share["nano"])
            for share in fields["shares"]
        ),
        examples=tuple(
            ExampleInfluence(example["id"], example["contributor"], float(example["score"]))
            for example in fields["examples"]
        ),
        scores={name: round(score * unit) for name, score in fields["scores"].items()},
        claims=None if claims is None else {who: round(claim) for who, claim in claims.items()},
        version=version,
        method=fields.get("method"),
        reliability_ppb=fields.get("reliability_ppb"),
        libraries=fields.get("libraries", {}),
        tokens_sha256=fields.get("tokens_sha256"),
        tokens_salt=fields.get("tokens_salt"),
        verbatim=tuple(map(_span_from, fields.get("verbatim", ()))),
    )


def span_fields(span: VerbatimSpan) -> dict[str, Json]:
    """A verbatim span as JSON fields."""
    return {
        "characters": list(span.characters),
        "tokens": list(span.tokens),
        "rarity_nats": span.rarity_nats,
        "occurrences": span.occurrences,
        "rows": [
            {
                "id": row.id,
                "contributor": row.contributor,
                "characters": list(row.characters),
                "tokens": list(row.tokens),
            }
            for row in span.rows
        ],
    }


def _span_from(fields: Mapping[str, Any]) -> VerbatimSpan:
    return VerbatimSpan(
        characters=_pair(fields["characters"]),
        tokens=_pair(fields["tokens"]),
        rarity_nats=float(fields["rarity_nats"]),
        occurrences=fields["occurrences"],
        rows=tuple(
            VerbatimRow(
                row["id"], row["contributor"], _pair(row["characters"]), _pair(row["tokens"])
            )
            for row in fields["rows"]
        ),
    )


def _pair(ends: Sequence[int]) -> tuple[int, int]:
    start, end = ends
    return start, end


def capture_fields(capture: Capture) -> dict[str, Json]:
    """A capture as JSON fields."""
    return {
        "inference": capture.inference,
        "application": capture.application,
        "held_nano": capture.held_nano,
        "charge_nano": capture.charge_nano,
        "credits": [[leg.account, leg.nano] for leg in capture.credits],
        "pools": list(capture.pools),
        "skipped": capture.skipped,
        "model": capture.model,
        "served_by": capture.served_by,
        "adapter_version": capture.adapter_version,
        "index": capture.index,
        "usage": {
            "prompt_tokens": capture.usage.prompt_tokens,
            "completion_tokens": list(capture.usage.completion_tokens),
            "source": capture.usage.source.value,
        },
        "partial": capture.partial,
        "tokens_sha256": capture.tokens_sha256,
        "policy": capture.policy,
    }


def capture_from(fields: Mapping[str, Any]) -> Capture:
    """The capture that `capture_fields` was given."""
    usage = fields["usage"]
    parsed = dict(fields)
    parsed["credits"] = tuple(Leg(account, nano) for account, nano in fields["credits"])
    parsed["pools"] = tuple(fields["pools"])
    parsed["usage"] = Usage(
        usage["prompt_tokens"], tuple(usage["completion_tokens"]), UsageSource(usage["source"])
    )
    return Capture(**parsed)


def job_fields(job: AttributionJob) -> dict[str, Json]:
    """A job as JSON fields, without what the stream itself knows: its id and its attempts."""
    return {
        "inference": job.inference,
        "ordinal": job.ordinal,
        "application": job.application,
        "adapter_version": job.adapter_version,
        "index": job.index,
        "tokens_sha256": job.tokens_sha256,
        "pool_nano": job.pool_nano,
        "enqueued_ms": job.enqueued_ms,
    }


def job_from(text: str, *, attempts: int, message_id: str) -> AttributionJob:
    """The job that lies in the stream as `text`."""
    return AttributionJob(**json.loads(text), attempts=attempts, message_id=message_id)
