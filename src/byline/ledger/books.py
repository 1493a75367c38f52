"""Folds a journal: what the balances must be, and whether the journal itself is whole. Pure.

An entry is judged twice: by itself (it is well-formed, its legs sum to zero, it stands where its
number says) and as a step of its inference (`inference_books`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

import orjson

from byline.ledger.inference_books import InferenceBooks
from byline.posting.postings import VERSION
from byline.records import Books, JournalEntry

# Journal entries as the server answers them: the stream's id, then the field `e` and the text.
Page: TypeAlias = Sequence[tuple[bytes, Sequence[bytes]]]

GAPS_LISTED_MAX = 1_000  # a journal with more is beyond a list
WAITING = ("hold:", "open:")  # accounts that come and go with an inference
ENTRY_FIELDS = len(fields(JournalEntry)) + 1  # and the version
BALANCE = re.compile(r"0|-?[1-9][0-9]{0,18}")  # as the scripts write one
BROKEN = (ValueError, KeyError, TypeError, AttributeError)  # what a text that is no entry raises


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every account that is not zero, after the journal's entry `seq`."""

    seq: int = 0
    accounts: Mapping[str, int] = field(default_factory=dict)


class Fold:
    """Adds up entries in the order of the journal. Memory grows with accounts, not with entries."""

    def __init__(self, base: Snapshot | None = None) -> None:
        base = base or Snapshot()
        self.seq = base.seq  # of the newest entry
        self.entries = base.seq  # how many there are, with those behind the snapshot
        self.accounts = dict(base.accounts)  # every account that is not zero
        self.unbalanced: list[int] = []
        self.gaps: list[int] = []
        self.inferences = InferenceBooks(base.accounts)
        self.waiting = {
            prefix: sum(account.startswith(prefix) for account in self.accounts)
            for prefix in WAITING
        }  # how many accounts begin so

    @property
    def problems(self) -> int:
        """How much is wrong with the journal so far."""
        return len(self.unbalanced) + len(self.gaps) + len(self.inferences.wrong)

    def add_page(self, page: Page) -> list[Mapping[str, int]]:
        """Add the next entries; answers their legs."""
        posted = []
        for stream_id, (_, text) in page:
            if stream_id == b"%d-1" % (self.seq + 1):
                self.seq += 1
            else:
                self._jump(stream_id)
            self.entries += 1
            try:
                entry = _parsed(text)
                legs: Mapping[str, int] = entry["legs"]
                self.inferences.judge(entry, self.accounts)
                self._post(legs)
                is_whole = entry["seq"] == self.seq and not sum(legs.values())
            except BROKEN:
                self.unbalanced.append(self.seq)
                continue
            if not is_whole:
                self.unbalanced.append(self.seq)
            posted.append(legs)
        return posted

    def books(self, texts: Mapping[str, str], last_seq: int) -> Books:
        """Hold the fold against the balances, as stored, of a ledger that counts to `last_seq`."""
        read = {account: nano_stored(text) for account, text in texts.items()}
        stored = {account: nano for account, nano in read.items() if nano is not None}
        unreadable = {account: texts[account] for account in sorted(texts.keys() - stored.keys())}
        self._miss(last_seq + 1)
        self.gaps.extend(range(last_seq + 1, self.seq + 1)[:GAPS_LISTED_MAX])  # never counted
        folded = self.accounts
        drifting = {
            account: (folded.get(account, 0), stored.get(account, 0))
            for account in sorted((folded.keys() | stored.keys()) - unreadable.keys())
            if folded.get(account, 0) != stored.get(account, 0)
        }
        return Books(
            journal_entries=self.entries,
            accounts_sum_nano=sum(stored.values()),
            unbalanced_entries=tuple(self.unbalanced),
            gaps=tuple(self.gaps),
            drifting_accounts=drifting,
            unreadable_accounts=unreadable,
            unbalanced_inferences=dict(self.inferences.wrong),
        )

    def _miss(self, before: int) -> None:
        """Note what is missing between the newest entry and `before`."""
        missing = range(self.seq + 1, before)
        self.gaps.extend(missing[: GAPS_LISTED_MAX - len(self.gaps)])

    def _jump(self, stream_id: bytes) -> None:
        """Go on at an entry that is not the next one."""
        seq = int(stream_id.partition(b"-")[0])
        self._miss(seq)
        self.seq = seq
        if stream_id != b"%d-1" % seq:
            self.unbalanced.append(seq)

    def _post(self, legs: Mapping[str, int]) -> None:
        accounts = self.accounts
        for account, nano in legs.items():
            before = accounts.get(account, 0)
            after = before + nano
            if after:
                accounts[account] = after
                if not before:
                    self._count(account, 1)
            elif before:
                del accounts[account]
                self._count(account, -1)

    def _count(self, account: str, change: int) -> None:
        prefix = account[:5]
        if prefix in self.waiting:
            self.waiting[prefix] += change


def nano_stored(text: str) -> int | None:
    """A balance as the server has it; None where that is no integer: somebody wrote it by hand."""
    return int(text) if BALANCE.fullmatch(text) else None


def _parsed(text: bytes) -> dict[str, Any]:
    """The entry with integers for decimal strings. Raises one of BROKEN if it is none."""
    entry: dict[str, Any] = orjson.loads(text)
    if len(entry) != ENTRY_FIELDS or entry["v"] != VERSION:
        raise ValueError("not a journal entry of version 1")
    legs = {account: int(nano) for account, nano in entry["legs"]}
    if len(legs) != len(entry["legs"]):
        raise ValueError("two legs of one account")
    "".join(legs)  # all of them are names
    entry["legs"] = legs
    entry["charge"] = int(entry["charge"])
    return entry
