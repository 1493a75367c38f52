"""Folds a journal: what the balances must be, and whether the journal itself is whole. Pure."""

from byline.postings import parse_entry
from byline.records import Books, JournalEntry

GAPS_LISTED_MAX = 1_000  # a journal with more is beyond a list


class Fold:
    """Adds up entries in the order of the journal. Memory grows with accounts, not with entries."""

    def __init__(self) -> None:
        self.seq = 0  # of the newest entry
        self._entries = 0
        self._accounts: dict[str, int] = {}
        self._unbalanced: list[int] = []
        self._gaps: list[int] = []

    @property
    def accounts(self) -> dict[str, int]:
        """Every account that is not zero."""
        return {account: nano for account, nano in self._accounts.items() if nano}

    def add(self, stream_id: str, text: str) -> None:
        """Add the entry that lies in the stream under `stream_id`."""
        seq = int(stream_id.partition("-")[0])
        self._miss(seq)
        self.seq = seq
        self._entries += 1
        try:
            entry = parse_entry(text)
        except (ValueError, KeyError, TypeError):
            self._unbalanced.append(seq)
            return
        self._add_legs(entry, stream_id)

    def books(self, stored: dict[str, int], last_seq: int) -> Books:
        """Hold the fold against the `stored` balances of a ledger that counts to `last_seq`."""
        self._miss(last_seq + 1)
        self._gaps.extend(range(last_seq + 1, self.seq + 1)[:GAPS_LISTED_MAX])  # never counted
        folded = self.accounts
        drifting = {
            account: (folded.get(account, 0), stored.get(account, 0))
            for account in sorted(folded.keys() | stored.keys())
            if folded.get(account, 0) != stored.get(account, 0)
        }
        return Books(
            journal_entries=self._entries,
            accounts_sum_nano=sum(stored.values()),
            unbalanced_entries=tuple(self._unbalanced),
            gaps=tuple(self._gaps),
            drifting_accounts=drifting,
        )

    def _miss(self, before: int) -> None:
        """Note what is missing between the newest entry and `before`."""
        missing = range(self.seq + 1, before)
        self._gaps.extend(missing[: GAPS_LISTED_MAX - len(self._gaps)])

    def _add_legs(self, entry: JournalEntry, stream_id: str) -> None:
        if sum(leg.nano for leg in entry.legs) or f"{entry.seq}-1" != stream_id:
            self._unbalanced.append(self.seq)
        for leg in entry.legs:
            self._accounts[leg.account] = self._accounts.get(leg.account, 0) + leg.nano
