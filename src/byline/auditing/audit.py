"""One audit: the audited reading of one choice, the adjustment that it makes, its record. Pure.

The reading is put through the very rules of pay (`byline.attribution`): scores to integers once,
negatives clipped (by contributor, since it has no rows' scores), no lift no pay, shrunken by the
reliability. The record holds all that the adjustment follows from, so that anyone recomputes it.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from byline.attribution import Measurement, attribute, shared_out
from byline.auditing.estimator import adjustment
from byline.auditing.lottery import is_drawn
from byline.canonical import Json, canonical_text, sha256_hex
from byline.errors import ArtifactError
from byline.posting.postings import event_ms
from byline.records import Adjustment, Attribution, AttributionJob, Leg
from byline.records_json import attribution_fields, attribution_from

METHOD = "counterfactual_log_probability"
AUDITOR = "auditor"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Draw:
    """Why an inference is audited: the tree head that its ticket is made of, and the rate."""

    commitment: str  # origin, size, root, a line each
    rate: Fraction


@dataclass(frozen=True, slots=True)
class Audit:
    """One choice as it was paid and as it was audited."""

    paid: Attribution
    audited: Attribution
    draw: Draw

    def legs(self) -> tuple[Leg, ...]:
        """What the audit moves; empty where it found what was paid."""
        salt = f"{self.paid.inference}/{self.paid.ordinal}"
        moved = adjustment(nano_of(self.paid), nano_of(self.audited), self.draw.rate, salt=salt)
        return tuple(Leg(account, nano) for account, nano in moved.items())

    def text(self) -> str:
        """The audit's record: RFC 8785 canonical JSON."""
        fields: dict[str, Json] = {
            "v": VERSION,
            "paid": attribution_fields(self.paid),
            "audited": attribution_fields(self.audited),
            "commitment": self.draw.commitment,
            "rate": str(self.draw.rate),
            "legs": [[leg.account, str(leg.nano)] for leg in self.legs()],
        }
        return canonical_text(fields)

    def adjustment(self) -> Adjustment:
        """The posting of the audit; its reason names the record's hash, and the manifest that."""
        paid = self.paid
        return Adjustment(
            operation=audit_operation(paid.inference, paid.ordinal),
            legs=self.legs(),
            reason=f"audit of {paid.inference}/{paid.ordinal}: {sha256_hex(self.text().encode())}",
            by=AUDITOR,
            adapter_version=paid.adapter_version,
        )


def audit_from(text: str) -> Audit:
    """The audit in a record. Raises ArtifactError unless everything in it follows from the rest."""
    try:
        fields = json.loads(text)
        audit = _parsed(fields)
        follows = fields["v"] == VERSION and audit.text() == text
        drawn = is_drawn(audit.draw.commitment.encode(), audit.paid.inference, audit.draw.rate)
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ArtifactError(f"this is no record of an audit: {problem!r}") from problem
    if not (follows and drawn and shared_out(audit.audited) == audit.audited):
        raise ArtifactError("the record of an audit contradicts itself")
    return audit


def audit_of(
    paid: Attribution, scores: Mapping[str, float], lift_nats: float, draw: Draw, *,
    reliability_ppb: int | None,
) -> Audit:  # fmt: skip
    """The audit of what was paid. `scores` are effects, in nats: log-probability of the served
    tokens with everybody, minus that without the contributor. Raises AttributionFailed if a number
    is not to be believed.
    """
    job = AttributionJob(
        inference=paid.inference, ordinal=paid.ordinal, application="",
        adapter_version=paid.adapter_version or "", index=paid.index or "",
        tokens_sha256=paid.tokens_sha256 or "", pool_nano=paid.pool_nano, enqueued_ms=0,
    )  # fmt: skip
    reading = Measurement(
        lift_nats=lift_nats, scores=scores, examples=(), method=METHOD,
        reliability_ppb=reliability_ppb,
    )  # fmt: skip
    return Audit(paid, attribute(job, reading), draw)


def nano_of(attribution: Attribution) -> dict[str, int]:
    """What each account was paid of the choice's pool, `unattributed` included."""
    nano = {f"contrib:{share.contributor}": share.nano for share in attribution.shares}
    nano[f"unattributed:{attribution.adapter_version}"] = attribution.unattributed_nano
    return nano


def audit_operation(inference: str, ordinal: int) -> str:
    """The UUIDv7 of a choice's adjustment: the same, whoever audits it and when; one at most.

    The time of the inference, and 74 bits of SHA-256("byline-audit", inference, ordinal).
    """
    digest = hashlib.sha256(f"byline-audit\n{inference}\n{ordinal}".encode()).digest()
    tail = int.from_bytes(digest[:10]) >> 6
    high, low = tail >> 62, tail & ((1 << 62) - 1)
    return str(uuid.UUID(int=event_ms(inference) << 80 | 7 << 76 | high << 64 | 2 << 62 | low))


def _parsed(fields: Mapping[str, Any]) -> Audit:
    draw = Draw(fields["commitment"], Fraction(fields["rate"]))
    return Audit(attribution_from(fields["paid"]), attribution_from(fields["audited"]), draw)
