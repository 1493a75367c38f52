"""Makes leaves again whose data was in published bundles alone, where those were lost.

From their places in the notary's state and the archive's texts, byte for byte. What comes out is
not believed here: it must have the root of the published head.
"""

from dataclasses import dataclass

from byline.errors import ArchiveUnavailable, LogMismatch
from byline.notary.source import Source
from byline.notary.state import State
from byline.posting.postings import parse_entry
from byline.transparency.leaves import (
    has_manifest_leaf,
    logged_leaf,
    manifest_leaf,
    statement_leaf,
)


@dataclass(frozen=True, slots=True)
class Remaking:
    """The leaves of one log, as they were."""

    source: Source
    state: State

    def data(self, start: int, end: int) -> list[bytes]:
        """The data of leaves [start, end).

        Raises ArchiveUnavailable where the archive does not have their entries (yet), LogMismatch
        where a leaf has no place.
        """
        made = self._of_entries(start, end) | dict(self.state.key_leaves())
        for leaf, month, opening in self.state.statements_between(start, end):
            made[leaf] = statement_leaf(month, opening)
        lacking = [leaf for leaf in range(start, end) if leaf not in made]
        if lacking:
            raise LogMismatch(f"nobody knows what leaf {lacking[0]} of the log was")
        return [made[leaf] for leaf in range(start, end)]

    def _of_entries(self, start: int, end: int) -> dict[int, bytes]:
        """Entries' leaves, and those of the manifests that stand before them."""
        made: dict[int, bytes] = {}
        seqs = self.state.seqs_between(start, end + 1)  # the last one's manifest may be in it
        texts = dict(self.source.archived(seqs.start, len(seqs))) if seqs else {}
        for seq in seqs:
            if seq not in texts:
                raise ArchiveUnavailable(
                    f"entry {seq} is not in the archive: its leaf can't be made again yet"
                )
            entry = parse_entry(texts[seq])
            at = self.state.entry(seq)
            made[at.leaf] = logged_leaf(entry, *at).data
            if has_manifest_leaf(entry):
                made[at.leaf - 1] = manifest_leaf(entry, at.salts)
        return made
