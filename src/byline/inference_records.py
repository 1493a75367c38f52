"""Puts together what is known of one inference, from its facts in the ledger. Pure.

The facts are kept when the journal is trimmed: they hold the capture's record, each settled
attribution, and the decision of each refund.
"""

import json
from collections import Counter
from collections.abc import Mapping

from byline.canonical import sha256_hex
from byline.posting.postings import open_account
from byline.records import Attribution, AttributionState, Capture, InferenceRecord, Refundable
from byline.records_json import attribution_from, capture_from

NO_TOKENS = "no tokens were generated"
ATTRIBUTION = "attribution:"  # and the ordinal: a settled attribution's record
REFUND = "refund:"  # and the operation: a field of the facts, the refund's decision in it


def inference_record(facts: Mapping[str, str]) -> InferenceRecord:
    """The record of a captured inference."""
    capture = capture_from(json.loads(facts["capture"]))
    attributions = _attributions(capture, facts)
    return InferenceRecord(
        capture=capture,
        time_ms=int(facts["captured_ms"]),
        legs=_credits(capture, attributions),
        attributions=attributions,
        is_late="late" in facts,
    )


def manifest_hashes(facts: Mapping[str, str]) -> dict[str, str]:
    """The hashes that the inference's entries name, by event key: its capture, each settle."""
    texts = {name: text for name, text in facts.items() if name.startswith(ATTRIBUTION)}
    found = {f"settle/{name.removeprefix(ATTRIBUTION)}": text for name, text in texts.items()}
    if "capture" in facts:
        found["capture/0"] = facts["capture"]
    return {name: sha256_hex(text.encode()) for name, text in found.items()}


def refundable(facts: Mapping[str, str]) -> Refundable:
    """What may be refunded of the inference with these facts."""
    left: Mapping[str, int] = {}
    if "capture" in facts:
        record = inference_record(facts)
        is_open = any(a.state is AttributionState.PENDING for a in record.attributions)
        left = {} if is_open else Counter(record.legs) - _refunded(facts)
    return Refundable(
        credits=left,
        refunded_nano=int(facts.get("refunded", 0)),
        adapter_version=facts.get("adapter_version") or None,
    )


def _refunded(facts: Mapping[str, str]) -> Counter[str]:
    """What each payee's part of the refunds so far comes to, whoever it was taken from."""
    parts: Counter[str] = Counter()
    for name, decision in facts.items():
        if name.startswith(REFUND):
            parts.update({who: int(nano) for who, nano in json.loads(decision)["parts"]})
    return parts


def _credits(capture: Capture, attributions: tuple[Attribution, ...]) -> dict[str, int]:
    """Whom the charge is credited to: its payees, and the open account of each open pool."""
    net: Counter[str] = Counter({leg.account: leg.nano for leg in capture.credits})
    for attribution in attributions:
        if attribution.state is AttributionState.PENDING:
            net[open_account(capture.inference, attribution.ordinal)] += attribution.pool_nano
        for share in attribution.shares:
            net[f"contrib:{share.contributor}"] += share.nano
        net[f"unattributed:{attribution.adapter_version}"] += attribution.unattributed_nano
    return {account: nano for account, nano in net.items() if nano}


def _attributions(capture: Capture, facts: Mapping[str, str]) -> tuple[Attribution, ...]:
    choices = max(len(capture.pools), len(capture.usage.completion_tokens), 1)
    return tuple(
        _attribution(capture, ordinal, facts.get(f"{ATTRIBUTION}{ordinal}"))
        for ordinal in range(choices)
    )


def _attribution(capture: Capture, ordinal: int, stored: str | None) -> Attribution:
    """As stored; else pending while the choice's pool is open, or skipped if it never had one."""
    if stored is not None:
        return attribution_from(json.loads(stored))
    pool = capture.pools[ordinal] if ordinal < len(capture.pools) else 0
    return Attribution(
        inference=capture.inference,
        ordinal=ordinal,
        state=AttributionState.PENDING if pool else AttributionState.SKIPPED,
        reason=None if pool else capture.skipped or NO_TOKENS,
        adapter_version=capture.adapter_version,
        index=capture.index,
        pool_nano=pool,
    )
