"""Exports a log with all of its openings, so that an auditor computes every balance anew.

An export shows everything: every account, every leg, every manifest. It is for those who may see
the whole journal; docs/proofs.md has its format.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from byline.archive.database import Archive
from byline.archive.tables import entries, manifests
from byline.canonical import Json
from byline.errors import NotFound
from byline.notary.folder import CHECKPOINT, LogFolder
from byline.notary.state import State
from byline.posting.postings import parse_entry
from byline.records import JournalEntry
from byline.transparency.heads import parse_head
from byline.transparency.leaves import logged_leaf
from byline.transparency.proofs import shown_manifest
from byline.transparency.tree import NodeAt, leaf_hash

OPENINGS = "openings.jsonl"
ENTRIES_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class LogExport:
    """What one log's export is made from."""

    folder: LogFolder
    state: State
    archive: Archive
    name: str = "usd"

    def write(self, target: Path) -> int:
        """Write the export into a folder that is not there yet; answers the log's size.

        Raises NotFound while the log has no head, or the archive lacks an entry of it.
        """
        checkpoint = self.folder.checkpoint()
        if checkpoint is None:
            raise NotFound("the log has no tree head yet: ask again in a few seconds")
        head, _ = parse_head(checkpoint)
        # The log may grow meanwhile: what is copied after its head is more than the head needs.
        shutil.copytree(self.folder.root, target, ignore=shutil.ignore_patterns("*.aside"))
        (target / CHECKPOINT).write_text(checkpoint)
        with (target / OPENINGS).open("w") as file:
            for opening in self._openings(head.size):
                file.write(json.dumps(opening, separators=(",", ":")) + "\n")
        return head.size

    def _openings(self, size: int) -> Iterator[dict[str, Json]]:
        """The opening of each leaf that hides something, in the log's order."""
        statements = sorted(
            self.state.statement(account, month)
            for account, month in self.state.logged_statements()
        )
        at = 0
        for index, legs in self._entries(size, self.folder.nodes(size)):
            while at < len(statements) and statements[at][0] < index:
                yield {"index": statements[at][0], "opening": statements[at][1]}
                at += 1
            yield legs
        for index, text in statements[at:]:
            if index < size:
                yield {"index": index, "opening": text}

    def _entries(self, size: int, node: NodeAt) -> Iterator[tuple[int, dict[str, Json]]]:
        last = len(self.state.seqs_between(0, size))
        for first in range(1, last + 1, ENTRIES_AT_ONCE):
            until = min(first + ENTRIES_AT_ONCE - 1, last)
            found = [parse_entry(text) for text in self._texts(first, until)]
            if [entry.seq for entry in found] != [*range(first, until + 1)]:
                raise NotFound(f"the archive does not have all entries from {first} to {until} yet")
            shown = self._manifests(found)
            for entry in found:
                yield self._entry(entry, shown, node)

    def _entry(
        self, entry: JournalEntry, shown: dict[str, str | None], node: NodeAt
    ) -> tuple[int, dict[str, Json]]:
        at = self.state.entry(entry.seq)
        leaf = logged_leaf(entry, *at)
        if node(0, at.leaf) != leaf_hash(leaf.data):
            raise NotFound(f"entry {entry.seq} of the archive is not the one that was logged")
        opening: dict[str, Json] = {
            "index": at.leaf, "legs": [{"text": text.decode()} for text in leaf.texts],
        }  # fmt: skip
        manifest = shown_manifest(entry, at.salts, shown.get(entry.manifest_sha256 or ""))
        return at.leaf, opening if manifest is None else {**opening, "manifest": manifest.fields()}

    def _texts(self, first: int, until: int) -> list[str]:
        asked = (
            select(entries.c.text)
            .where(entries.c.ledger == self.name, entries.c.seq.between(first, until))
            .order_by(entries.c.seq)
        )
        with self.archive.reading() as connection:
            return list(connection.scalars(asked))

    def _manifests(self, found: list[JournalEntry]) -> dict[str, str | None]:
        wanted = {entry.manifest_sha256 for entry in found if entry.manifest_sha256 is not None}
        asked = select(manifests.c.sha256, manifests.c.text).where(manifests.c.sha256.in_(wanted))
        with self.archive.reading() as connection:
            return {row.sha256: row.text for row in connection.execute(asked)}
