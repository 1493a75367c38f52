"""Digests of the journal as it was read: whoever reads it again can tell whether it was changed."""

import hashlib

from byline.ledger.books import Page
from byline.ledger.journal import seq_of

CHUNK = 1_000  # entries under one digest


class Imprints:
    """A digest of each thousand entries, and one of what came since. Small beside the journal."""

    def __init__(self, after_seq: int) -> None:
        """Begin after the entry `after_seq`; a thousand that has begun before it has no digest."""
        self.digests: dict[int, bytes] = {}  # by the number of their last entry
        self.running = None if after_seq % CHUNK else hashlib.sha256()

    def add_page(self, page: Page) -> None:
        """Add the next entries."""
        for stream_id, (_, text) in page:
            if self.running is not None:
                self.running.update(text)
            seq = seq_of(stream_id)
            if seq % CHUNK == 0:
                if self.running is not None:
                    self.digests[seq] = self.running.digest()
                self.running = hashlib.sha256()

    def differing(self, other: "Imprints") -> list[int]:
        """The last entries of those thousands that the two have read differently."""
        both = self.digests.keys() & other.digests.keys()
        return sorted(seq for seq in both if self.digests[seq] != other.digests[seq])

    def ends_like(self, other: "Imprints") -> bool:
        """Of two that have read up to the same entry: the same since the last full thousand?"""
        if self.running is None or other.running is None:
            return True
        return self.running.digest() == other.running.digest()

    def forget(self, up_to_seq: int) -> None:
        """What is trimmed is not read again."""
        self.digests = {seq: it for seq, it in self.digests.items() if seq > up_to_seq}
