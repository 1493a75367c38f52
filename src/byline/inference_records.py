"""Puts together what is known of one inference, from its facts and its journal entries. Pure."""

import json
from collections.abc import Mapping, Sequence

from byline.records import (
    Attribution,
    AttributionState,
    Capture,
    EarningsLine,
    InferenceRecord,
    JournalEntry,
)
from byline.records_json import attribution_from, capture_from

NO_TOKENS = "no tokens were generated"


def entry_numbers(facts: Mapping[str, str]) -> list[int]:
    """Where the inference's entries stand: its capture, then what has been settled."""
    settled = [int(seq) for name, seq in facts.items() if name.startswith("settle_seq:")]
    return [int(facts["capture_seq"]), *sorted(settled)]


def inference_record(facts: Mapping[str, str], entries: Sequence[JournalEntry]) -> InferenceRecord:
    """The record of a captured inference; `entries` are those of `entry_numbers`."""
    capture = capture_from(json.loads(facts["capture"]))
    choices = max(len(capture.pools), len(capture.usage.completion_tokens), 1)
    return InferenceRecord(
        capture=capture,
        time_ms=entries[0].time_ms,
        legs=_net_credits(entries),
        attributions=tuple(
            _attribution(capture, ordinal, facts.get(f"attribution:{ordinal}"))
            for ordinal in range(choices)
        ),
    )


def earnings_line(entry: JournalEntry, account: str) -> EarningsLine:
    """What a settling entry paid `account`."""
    nano = sum(leg.nano for leg in entry.legs if leg.account == account)
    return EarningsLine(
        entry.seq, entry.time_ms, entry.inference or "", entry.adapter_version or "", nano
    )


def _net_credits(entries: Sequence[JournalEntry]) -> dict[str, int]:
    """What the entries together credit to whom; the payer's side is left out."""
    net: dict[str, int] = {}
    for entry in entries:
        for leg in entry.legs:
            if not leg.account.startswith(("app:", "hold:")):
                net[leg.account] = net.get(leg.account, 0) + leg.nano
    return {account: nano for account, nano in net.items() if nano}


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
