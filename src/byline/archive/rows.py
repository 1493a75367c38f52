"""A page of the journal as rows of the archive's tables. Pure.

Checks what it is given: an entry that is unbalanced, or a text that does not have its entry's hash,
is never archived.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from byline.canonical import sha256_hex
from byline.errors import ArchiveMismatch
from byline.posting.postings import DAY_MS, parse_entry
from byline.records import Capture, JournalEntry
from byline.records_json import capture_from

Row: TypeAlias = dict[str, Any]

TRANSIENT = ("hold:", "open:")  # accounts of one inference, empty when it is finished
CAPTURES = ("capture", "capture_late")


@dataclass(frozen=True, slots=True)
class Found:
    """One entry as the ledger has it: its record, its exact text, and the text that explains it."""

    entry: JournalEntry
    text: str
    manifest: str | None


def entry_from(seq: int, text: str) -> JournalEntry:
    """The entry that lies in the journal at `seq`. Raises ArchiveMismatch if it is broken."""
    try:
        entry = parse_entry(text)
    except (ValueError, KeyError, TypeError) as problem:
        raise ArchiveMismatch(f"journal entry {seq} can't be read: {problem}") from problem
    if entry.seq != seq or sum(leg.nano for leg in entry.legs) != 0:
        raise ArchiveMismatch(f"journal entry {seq} is unbalanced, or says that it is another one")
    return entry


def is_transient(account: str) -> bool:
    """True for an account that one inference uses and empties."""
    return account.startswith(TRANSIENT)


class Rows:
    """The rows that some consecutive entries of one ledger add.

    `balances` are those of the entries' accounts before the first of them; an account that is not
    in it is new. When every entry is added, it has the balances after the last.
    """

    def __init__(self, ledger: str, balances: Mapping[str, int]) -> None:
        self.balances = dict(balances)
        self.entries: list[Row] = []
        self.legs: list[Row] = []
        self.inferences: list[Row] = []
        self._manifests: dict[str, str | None] = {}
        self._ledger = ledger
        self._account_days: dict[tuple[str, int, str, str], Row] = {}
        self._usage_days: dict[tuple[str, int, str, str], Row] = {}

    def add(self, found: Iterable[Found]) -> None:
        """Add entries, in the order of the journal."""
        for each in found:
            self.entries.append(self._entry_row(each))
            self._add_legs(each.entry)
            if each.entry.manifest_sha256 is not None:
                self._add_manifest(each, each.entry.manifest_sha256)

    @property
    def account_days(self) -> list[Row]:
        """What the entries add to the sums of each account's day."""
        return list(self._account_days.values())

    @property
    def usage_days(self) -> list[Row]:
        """What the entries add to the sums of each application's day."""
        return list(self._usage_days.values())

    @property
    def manifests(self) -> list[Row]:
        """The texts behind the entries' hashes."""
        return [{"sha256": sha256, "text": text} for sha256, text in self._manifests.items()]

    @property
    def missing(self) -> int:
        """How many texts the ledger had no more."""
        return list(self._manifests.values()).count(None)

    def _entry_row(self, found: Found) -> Row:
        entry = found.entry
        return {
            "ledger": self._ledger, "seq": entry.seq, "key": entry.key, "kind": entry.kind,
            "inference": entry.inference, "adapter_version": entry.adapter_version,
            "time_ms": entry.time_ms, "policy": entry.policy,
            "manifest_sha256": entry.manifest_sha256, "charge": entry.charge, "text": found.text,
        }  # fmt: skip

    def _add_legs(self, entry: JournalEntry) -> None:
        for position, leg in enumerate(entry.legs):
            balance = self.balances.get(leg.account, 0) + leg.nano
            self.balances[leg.account] = balance
            self.legs.append({
                "ledger": self._ledger, "seq": entry.seq, "position": position,
                "account": leg.account, "nano": leg.nano, "balance": balance,
            })  # fmt: skip
            if not is_transient(leg.account):
                self._add_to_account_day(entry, leg.account, leg.nano)

    def _add_to_account_day(self, entry: JournalEntry, account: str, nano: int) -> None:
        day, version = entry.time_ms // DAY_MS, entry.adapter_version or ""
        row = self._account_days.setdefault((account, day, entry.kind, version), {
            "account": account, "ledger": self._ledger, "day": day, "kind": entry.kind,
            "adapter_version": version, "nano": 0, "legs": 0, "first_seq": entry.seq,
        })  # fmt: skip
        row["nano"] += nano
        row["legs"] += 1
        row["last_seq"] = entry.seq

    def _add_manifest(self, found: Found, sha256: str) -> None:
        entry, text = found.entry, found.manifest
        if text is not None and sha256_hex(text.encode()) != sha256:
            raise ArchiveMismatch(
                f"the text behind journal entry {entry.seq} ({entry.key}) does not have the hash "
                f"{sha256} that the entry names: it was changed after it was posted"
            )
        self._manifests[sha256] = text  # the same hash is the same text
        if text is not None and entry.kind in CAPTURES:
            self._add_inference(entry, capture_from(json.loads(text)))

    def _add_inference(self, entry: JournalEntry, capture: Capture) -> None:
        row: Row = {
            "ledger": self._ledger, "inference": capture.inference, "seq": entry.seq,
            "time_ms": entry.time_ms, "application": capture.application, "model": capture.model,
            "served_by": capture.served_by, "adapter_version": capture.adapter_version,
            "prompt_tokens": capture.usage.prompt_tokens,
            "completion_tokens": sum(capture.usage.completion_tokens),
            "usage_source": capture.usage.source.value, "partial": capture.partial,
            "charge": capture.charge_nano,
        }  # fmt: skip
        self.inferences.append(row)
        day = entry.time_ms // DAY_MS
        sums = self._usage_days.setdefault(
            (capture.application, day, capture.model, capture.served_by), {
                "application": capture.application, "ledger": self._ledger, "day": day,
                "model": capture.model, "served_by": capture.served_by, "inferences": 0,
                "partial": 0, "prompt_tokens": 0, "completion_tokens": 0, "charge": 0,
                "first_seq": entry.seq,
            },
        )  # fmt: skip
        sums["inferences"] += 1
        for name in ("partial", "prompt_tokens", "completion_tokens", "charge"):
            sums[name] += int(row[name])
        sums["last_seq"] = entry.seq
