"""Makes proofs out of a log: from the published folder, the notary's state and the archive.

A proof is under the tree head that is published at that moment. Who may see what is the caller's
to decide: a line shows one account, an entry the accounts that are named.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from byline.archive.database import Archive
from byline.archive.tables import entries, legs, manifests
from byline.canonical import Json
from byline.errors import LogMismatch, NotFound, NotProven
from byline.home import Home
from byline.notary.folder import LogFolder
from byline.notary.state import State
from byline.posting.postings import parse_entry
from byline.records import JournalEntry
from byline.transparency.heads import TreeHead, parse_head
from byline.transparency.leaves import (
    EntryLeaf,
    has_manifest_leaf,
    logged_leaf,
    manifest_leaf,
    statement_leaf,
)
from byline.transparency.proofs import (
    LeafProof,
    ShownManifest,
    entry_opening,
    line_opening,
    proof_set_lines,
    proof_text,
    shown_manifest,
    statement_opening,
    with_leaves,
)
from byline.transparency.tree import NodeAt, consistency, inclusion, leaf_hash, root_of
from byline.transparency.witnessing import AddCheckpoint

ROWS_AT_ONCE = 1_000
PAYOUT = "payout"  # the kind, and the clearing account


@dataclass(frozen=True, slots=True)
class LoggedEntry:
    """One journal entry, and its leaf as it stands in the log."""

    entry: JournalEntry
    leaf: EntryLeaf
    index: int


@dataclass(frozen=True, slots=True)
class View:
    """The log at one published head: all parts of one proof file come from one view."""

    checkpoint: str
    head: TreeHead
    node: NodeAt

    def proof(self, index: int) -> LeafProof:
        """Where a leaf stands. NotProven while the head does not cover it."""
        self.require(index)
        return LeafProof(index, tuple(inclusion(index, self.head.size, self.node)))

    def require(self, index: int) -> None:
        """Raises NotProven while the head does not cover this leaf."""
        if index >= self.head.size:
            raise NotProven("no published tree head covers this yet: ask again in a few seconds")

    def has(self, index: int, data: bytes) -> bool:
        """Is this the leaf that was logged there?"""
        self.require(index)
        return self.node(0, index) == leaf_hash(data)


class LogReader:
    """One ledger's log, read to prove something."""

    def __init__(
        self, folder: LogFolder, state: State, archive: Archive, *, name: str = "usd"
    ) -> None:
        self._folder = folder
        self._state = state
        self._archive = archive
        self._name = name
        self._view: View | None = None  # the last one: it has read tiles that the next may need

    @classmethod
    def open(cls, home: Path, archive: Archive, *, name: str = "usd") -> "LogReader":
        """The log of an installation. NotFound where none was begun."""
        state = State.read(Home(home).openings_of(name))
        return cls(LogFolder(Home(home).log_of(name)), state, archive, name=name)

    def close(self) -> None:
        """Close the notary's state; the archive is the caller's."""
        self._state.close()

    def view(self) -> View:
        """The log as it is published now. NotProven before its first head."""
        checkpoint = self._folder.checkpoint()
        if checkpoint is None:
            raise NotProven("the log has no tree head yet: ask again in a few seconds")
        if self._view is None or self._view.checkpoint != checkpoint:
            head, _ = parse_head(checkpoint)
            self._view = View(checkpoint, head, self._folder.nodes(head.size))
        return self._view

    def smallest_covering(self, key: str) -> TreeHead:
        """The smallest tree that has the entry with this key; every published head continues it.

        NotProven while no published head covers it.
        """
        view, index = self.view(), self._state.entry(self.seq_of(key)).leaf
        view.require(index)
        return TreeHead(view.head.origin, index + 1, root_of(index + 1, view.node))

    def entry(self, seq: int) -> LoggedEntry:
        """A journal entry with its leaf. NotProven while no published head covers it."""
        return self._entry(self.view(), seq)

    def _entry(self, view: View, seq: int) -> LoggedEntry:
        with self._archive.reading() as connection:
            text = connection.scalar(
                select(entries.c.text).where(entries.c.ledger == self._name, entries.c.seq == seq)
            )
        if text is None:
            raise NotProven(f"journal entry {seq} is not in the archive yet")
        return self._logged(view, text)

    def seq_of(self, key: str) -> int:
        """The number of the entry with this event key. NotProven without one."""
        asked = select(entries.c.seq).where(entries.c.ledger == self._name, entries.c.key == key)
        with self._archive.reading() as connection:
            seq: int | None = connection.scalar(asked)
        if seq is None:
            raise NotProven(f"no entry {key} is in the archive yet")
        return seq

    def is_covered(self, keys: Sequence[str]) -> bool:
        """Are the entries with these event keys under the published head, all of them?"""
        try:
            view = self.view()
            places = [self._state.entry(self.seq_of(key)).leaf for key in keys]
        except NotProven:
            return False
        return max(places, default=0) < view.head.size

    def line_proof(self, seq: int, account: str) -> str:
        """The `.tlog-proof` of one account's line, as the payee may see it.

        NotFound where the account has no line in that entry, NotProven while it is not covered.
        """
        self._require_line(seq, account)
        view = self.view()
        found = self._entry(view, seq)
        return self._text(view, found, self._line(found, account))

    def entry_proof(self, seq: int, shown: Sequence[str], *, with_manifest: bool = False) -> str:
        """The `.tlog-proof` of a whole entry, with the legs of `shown` accounts opened."""
        view = self.view()
        found = self._entry(view, seq)
        manifest = self._manifest(found) if with_manifest else None
        opening = entry_opening(found.entry, found.leaf, shown=shown, manifest=manifest)
        return self._text(view, found, opening)

    def statement_proof(self, account: str, month: str, seqs: tuple[int, int]) -> Iterator[str]:
        """The lines of a statement's `.tlog-proofs`; `seqs` are its `from_seq` and `to_seq`."""
        view = self.view()
        index, text = self._state.statement(account, month)
        data = statement_leaf(month, text)

        def proofs() -> Iterator[tuple[dict[str, Json], LeafProof]]:
            yield statement_opening(data, text), view.proof(index)
            for found in self._lines(view, account, *seqs):
                yield self._line(found, account), view.proof(found.index)

        return proof_set_lines(view.checkpoint, proofs(), self._keys(view))

    def consistency_from(self, old: int) -> str:
        """The `.consistency` file from a head of `old` leaves to the published one."""
        view = self.view()
        if old > view.head.size:
            raise NotFound(f"the log has {view.head.size} leaves, not {old}")
        path = consistency(old, view.head.size, view.node)
        return AddCheckpoint(old, tuple(path), view.checkpoint).text()

    def _require_line(self, seq: int, account: str) -> None:
        asked = select(legs.c.seq).where(
            legs.c.ledger == self._name, legs.c.account == account, legs.c.seq == seq
        )
        with self._archive.reading() as connection:
            if connection.scalar(asked) is None:
                raise NotFound(f"{account} has no line in entry {seq}")

    def _line(self, found: LoggedEntry, account: str) -> dict[str, Json]:
        """A payee's leg. The decision behind a payout is his; an attribution names others."""
        is_his = found.entry.kind == PAYOUT and account != PAYOUT
        manifest = self._manifest(found) if is_his else None
        return line_opening(found.entry, found.leaf, account, manifest=manifest)

    def _text(self, view: View, found: LoggedEntry, opening: dict[str, Json]) -> str:
        further = self._keys(view)
        if has_manifest_leaf(found.entry):
            manifest = manifest_leaf(found.entry, found.leaf.salts)
            further.insert(0, (manifest, view.proof(found.index - 1)))
        return proof_text(with_leaves(opening, further), view.proof(found.index), view.checkpoint)

    def _keys(self, view: View) -> list[tuple[bytes, LeafProof]]:
        return [
            (data, view.proof(leaf))
            for leaf, data in self._state.key_leaves()
            if leaf < view.head.size
        ]

    def _lines(self, view: View, account: str, from_seq: int, to_seq: int) -> Iterator[LoggedEntry]:
        """The account's entries in this range, in order."""
        mine = (legs.c.ledger == self._name, legs.c.account == account)
        after = from_seq - 1
        while True:
            asked = (
                select(entries.c.seq, entries.c.text)
                .join(legs, (legs.c.ledger == entries.c.ledger) & (legs.c.seq == entries.c.seq))
                .where(*mine, legs.c.seq > after, legs.c.seq <= to_seq)
                .order_by(legs.c.seq)
                .limit(ROWS_AT_ONCE)
            )
            with self._archive.reading() as connection:
                rows = connection.execute(asked).all()
            for row in rows:
                yield self._logged(view, row.text)
            if len(rows) < ROWS_AT_ONCE:
                return
            after = rows[-1].seq

    def _logged(self, view: View, text: str) -> LoggedEntry:
        """The leaf made again from the journal's text; it must be the one that was logged."""
        entry = parse_entry(text)
        at = self._state.entry(entry.seq)
        leaf = logged_leaf(entry, *at)
        if not view.has(at.leaf, leaf.data):
            raise LogMismatch(f"entry {entry.seq} of the archive is not the one that was logged")
        return LoggedEntry(entry, leaf, at.leaf)

    def _manifest(self, found: LoggedEntry) -> ShownManifest | None:
        sha256 = found.entry.manifest_sha256
        asked = select(manifests.c.text).where(manifests.c.sha256 == sha256)
        with self._archive.reading() as connection:
            return shown_manifest(found.entry, found.leaf.salts, connection.scalar(asked))
