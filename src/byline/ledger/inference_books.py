"""Judges each inference by itself: held once, captured once, settled once, its legs its charge, and
no more refunded than that.

Pure. Memory does not grow with the journal: what is held and what is open are accounts of the fold
itself, an expired hold is forgotten once it is too old to be captured, and only of the newest
charges is it known what may still be refunded.
"""

from collections.abc import Mapping
from typing import Any

from byline.limits import EVENT_AGE_DAYS_MAX

DAY_MS = 86_400_000
PAYEES = ("contrib:", "unattributed:")
LISTED_MAX = 1_000  # a journal with more is beyond a list
CHARGES_MAX = 50_000  # the newest; refunds of older ones are not judged
FORGET_MS = (EVENT_AGE_DAYS_MAX + 1) * DAY_MS


class InferenceBooks:
    """What is wrong with whose inference; `accounts` are those of the fold, before the entry."""

    def __init__(self, base: Mapping[str, int]) -> None:
        """Begin at the accounts of a snapshot, or with none at the first entry."""
        self.wrong: dict[str, str] = {}  # inference, or an operation's id -> what and where
        self._knows_expired = not base  # a snapshot does not say what expired before it
        self._payers: dict[str, str] = {}  # of each hold placed since: the application's account
        self._expired: dict[str, tuple[str | None, int]] = {}  # payer, and when in ms
        self._charges: dict[str, int] = {}  # of each inference captured lately, less its refunds
        self._judges = {
            "hold": self._hold, "capture": self._capture, "capture_late": self._capture_late,
            "void": self._give_back, "expire": self._give_back, "settle": self._settle,
            "refund": self._refund,
        }  # fmt: skip

    def judge(self, entry: Mapping[str, Any], accounts: Mapping[str, int]) -> None:
        """Note what is wrong with the entry as a step of its inference, if anything is."""
        problem = self._judges.get(entry["kind"], _stays_out)(entry, accounts)
        if problem is not None and len(self.wrong) < LISTED_MAX:
            event = entry["inference"] or entry["key"].partition("/")[0]
            self.wrong.setdefault(event, f"{problem} by entry {entry['seq']}")

    def _hold(self, entry: Mapping[str, Any], accounts: Mapping[str, int]) -> str | None:
        inference, legs = entry["inference"], entry["legs"]
        account = f"hold:{inference}"
        if account in accounts or inference in self._expired:
            return "held a second time"
        nano = legs.get(account, 0)
        payer = next((name for name in legs if name.startswith("app:")), "")
        if nano <= 0 or legs != {payer: -nano, account: nano}:
            return "held with other legs than a hold's"
        self._payers[inference] = payer
        return None

    def _capture(self, entry: Mapping[str, Any], accounts: Mapping[str, int]) -> str | None:
        inference = entry["inference"]
        account = f"hold:{inference}"
        held = accounts.get(account)
        payer = self._payers.pop(inference, None)
        self._remember_charge(entry)
        if held is None:
            return "captured without a hold"
        legs = dict(entry["legs"])
        if legs.pop(account, 0) != -held:
            return "captured without closing its hold"
        return _charged(entry, legs, payer, held - entry["charge"])

    def _capture_late(self, entry: Mapping[str, Any], _: Mapping[str, int]) -> str | None:
        payer, when = self._expired.pop(entry["inference"], (None, None))
        self._remember_charge(entry)
        if when is None and self._knows_expired:
            return "captured late without an expired hold"
        return _charged(entry, dict(entry["legs"]), payer, -entry["charge"])

    def _give_back(self, entry: Mapping[str, Any], accounts: Mapping[str, int]) -> str | None:
        inference, legs = entry["inference"], entry["legs"]
        account = f"hold:{inference}"
        held = accounts.get(account)
        payer = self._payers.pop(inference, None)
        if held is None:
            return "given back without a hold"
        if entry["kind"] == "expire":
            self._remember_expired(inference, payer, entry["time_ms"])
        to = payer or next((name for name in legs if name.startswith("app:")), "")
        return None if legs == {account: -held, to: held} else "given back with other legs"

    def _settle(self, entry: Mapping[str, Any], accounts: Mapping[str, int]) -> str | None:
        legs, ordinal = entry["legs"], entry["key"].rpartition("/")[2]
        pool = "open:" + entry["inference"]
        if ordinal != "0":
            pool = f"{pool}/{ordinal}"
        held = accounts.get(pool)
        if held is None:
            return "settled without an open pool"
        if legs.get(pool) != -held:
            return "settled without closing its pool"
        for name, nano in legs.items():
            if (nano <= 0 or not name.startswith(PAYEES)) and name != pool:
                return "settled to other accounts than contributors and unattributed"
        return None

    def _refund(self, entry: Mapping[str, Any], accounts: Mapping[str, int]) -> str | None:
        inference = entry["inference"]
        if inference in self._charges:
            self._charges[inference] -= sum(nano for nano in entry["legs"].values() if nano > 0)
            if self._charges[inference] < 0:
                return "refunded beyond its charge"
        return _stays_out(entry, accounts)

    def _remember_charge(self, entry: Mapping[str, Any]) -> None:
        self._charges[entry["inference"]] = entry["charge"]
        if len(self._charges) > CHARGES_MAX:
            del self._charges[next(iter(self._charges))]

    def _remember_expired(self, inference: str, payer: str | None, time_ms: int) -> None:
        self._expired[inference] = (payer, time_ms)
        oldest = next(iter(self._expired))
        if self._expired[oldest][1] < time_ms - FORGET_MS:
            del self._expired[oldest]  # one comes, one goes: the journal is in the order of time


def _charged(
    entry: Mapping[str, Any], legs: dict[str, int], payer: str | None, rest: int
) -> str | None:
    """Are these the payer's `rest` and, beside it, credits and own pools that make the charge?"""
    inference = entry["inference"]
    payer = payer or next((name for name in legs if name.startswith("app:")), "")
    if legs.pop(payer, 0) != rest:
        return "charged to its application other than its charge"
    for name, nano in legs.items():
        if nano <= 0 or name.startswith(("app:", "hold:")):
            return f"captured with a leg of {nano} for {name}"
        if name.startswith("open:") and name[5:].partition("/")[0] != inference:
            return f"captured into {name}, a pool of another inference"
    return None if sum(legs.values()) == entry["charge"] else "captured for other than its charge"


def _stays_out(entry: Mapping[str, Any], _: Mapping[str, int]) -> str | None:
    """No other operation touches a hold or an open pool."""
    found = next((name for name in entry["legs"] if name.startswith(("hold:", "open:"))), None)
    return None if found is None else f"a {entry['kind']} touched {found}"
