"""Reads the journal entry by entry and holds it against what was asked for and promised. Pure.

It knows the rules of the money, and no defect in particular.
"""

import hashlib
import json
import math
from collections import Counter
from typing import Any

from byline.records import Capture, Refund
from loadtests.faults.inferences import Inferences
from loadtests.faults.operations import (
    Hold,
    Legs,
    attribution_of,
    job_of,
    legs_of,
    legs_of_settle,
)
from loadtests.faults.record import Record
from loadtests.faults.verdict import Verdict

MAY_BE_NEGATIVE = ("funding", "payout", "refund")
DEBT_NANO_MAX = 10**12 - 1  # of a contributor, by an adjustment
LATE = "capture_late"


class Checker:
    """Follows one journal. What is wrong goes into the verdict."""

    def __init__(self, seed: int, record: Record, verdict: Verdict) -> None:
        self._seed = seed
        self._record = record
        self._verdict = verdict
        self.seq = 0  # of the newest entry
        self.newest = ""  # its text
        self.chain = hashlib.sha256()  # over every text in order
        self.seqs: dict[str, int] = {}  # event key -> its entry
        self.accounts: dict[str, int] = {}  # every account that is not zero
        self.inferences = Inferences()
        self.kinds: Counter[str] = Counter()

    def add(self, seq: int, text: str) -> None:
        """The next entry of the journal."""
        for missing in range(self.seq + 1, seq):
            self._verdict.note_gap(missing)
        self.seq, self.newest = seq, text
        self.chain.update(text.encode())
        entry = json.loads(text)
        key, kind = entry["key"], entry["kind"]
        self.kinds[kind] += 1
        if key in self.seqs:
            self._verdict.note_doubled(key, f"is entry {self.seqs[key]} and entry {seq}")
        self.seqs[key] = seq
        if entry["seq"] != seq:
            self._verdict.note(f"entry {seq} says that it is entry {entry['seq']}")
        legs: Legs = {account: int(nano) for account, nano in entry["legs"]}
        if len(legs) != len(entry["legs"]) or sum(legs.values()) != 0:
            self._verdict.note(f"entry {seq} does not sum to zero: {entry['legs']}")
        self._hold_against_payload(entry, legs)
        self._follow_inference(entry, legs)
        self._add_up(entry, legs)

    def check_promises(self) -> None:
        """Is every acknowledged operation where it was said to be?"""
        for key in self._record.fresh:
            told, found = self._record.acknowledged[key], self.seqs.get(key)
            if found is None:
                self._verdict.note_lost(key, f"was acknowledged as entry {told}")
            elif found != told:
                self._verdict.note_doubled(key, f"was acknowledged as {told} and is {found}")
        self._record.fresh.clear()
        for key, numbers in self._record.told_twice.items():
            self._verdict.note_doubled(key, f"was acknowledged under two numbers: {numbers}")
        for key in [key for key in self._record.spooled if key in self.seqs]:
            self._record.spooled.discard(key)

    def check_balances(self, stored: dict[str, int], where: str) -> None:
        """Are the balances what the journal folds to, and do they sum to zero?"""
        if self.accounts != stored:
            for account in sorted(self.accounts.keys() | stored.keys()):
                ours, theirs = self.accounts.get(account, 0), stored.get(account, 0)
                if ours != theirs:
                    self._verdict.note_drift(account, ours, theirs, where)
        if total := sum(stored.values()):
            self._verdict.note(f"the balances in {where} sum to {total}")

    def check_jobs(self, waiting: set[tuple[str, int]]) -> None:
        """Has every open pool a job, so that somebody will settle it?"""
        for account in self.accounts:
            if account.startswith("open:"):
                inference, _, ordinal = account.removeprefix("open:").partition("/")
                if (inference, int(ordinal or 0)) not in waiting:
                    self._verdict.note_unbalanced(inference, f"has no job for {account}")

    def check_ends(self) -> None:
        """At the end of the run every inference must have come to its own."""
        for inference, missing in self.inferences.unfinished():
            self._verdict.note_unbalanced(inference, missing)

    def _hold_against_payload(self, entry: dict[str, Any], legs: Legs) -> None:
        try:
            expected = self._expected(entry["key"], entry["kind"])
        except LookupError:
            self._verdict.note(f"invented: nobody asked for {entry['key']}, entry {entry['seq']}")
            return
        if expected is not None and legs != expected:
            self._verdict.note(f"changed: {entry['key']} has the legs {legs}, not {expected}")

    def _expected(self, key: str, kind: str) -> Legs | None:
        """The legs that the entry must have. Raises LookupError where nobody asked for it."""
        event, verb, ordinal = key.split("/")
        if verb == "settle":
            return self._of_settle(event, int(ordinal))
        if verb == "expire":
            return self._of_hold(event)
        operation = self._record.payloads[key]
        if verb == "void":
            return self._of_hold(event)
        return legs_of(operation, late=kind == LATE)

    def _of_settle(self, inference: str, ordinal: int) -> Legs:
        capture = self._record.payloads[f"{inference}/capture/0"]
        assert isinstance(capture, Capture)
        if ordinal >= len(capture.pools):
            raise LookupError(ordinal)
        return legs_of_settle(attribution_of(self._seed, job_of(capture, ordinal)))

    def _of_hold(self, inference: str) -> Legs:
        hold = self._record.payloads[f"{inference}/hold/0"]
        assert isinstance(hold, Hold)
        return {f"hold:{inference}": -hold.nano, f"app:{hold.application}": hold.nano}

    def _follow_inference(self, entry: dict[str, Any], legs: Legs) -> None:
        event, verb, ordinal = entry["key"].split("/")
        inference = event
        if verb == "refund":
            refund = self._record.payloads.get(entry["key"])
            if not isinstance(refund, Refund):
                return
            inference = refund.inference
            if sum(nano for account, nano in legs.items() if account[:4] == "app:") != refund.nano:
                self._verdict.note_unbalanced(inference, f"is refunded {legs}, not {refund.nano}")
        elif verb not in ("hold", "capture", "void", "expire", "settle"):
            return
        wrong = self.inferences.add(inference, entry["kind"], ordinal, legs)
        if wrong is not None:
            self._verdict.note_unbalanced(inference, wrong)

    def _add_up(self, entry: dict[str, Any], legs: Legs) -> None:
        for account, nano in legs.items():
            balance = self.accounts.pop(account, 0) + nano
            if balance:
                self.accounts[account] = balance
            if nano < 0 and balance < 0 and balance < _floor(account, entry["kind"]):
                self._verdict.note(f"overdrawn: entry {entry['seq']} leaves {account} at {balance}")


def _floor(account: str, kind: str) -> float:
    """Below this an entry of that kind must not take the account."""
    if account in MAY_BE_NEGATIVE or (kind == LATE and account.startswith("app:")):
        return -math.inf
    if kind == "adjust" and account.startswith("contrib:"):
        return -DEBT_NANO_MAX
    return 0
