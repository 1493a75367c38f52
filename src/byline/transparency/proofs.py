"""Proof files: a leaf, its opening, its path and the tree head, as text (C2SP tlog-proof).

What an opening shows is decided here: a contributor's line shows its own leg alone; an
application's entry shows the legs it is told to show, and hides the others.
"""

import json
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from byline.canonical import Json
from byline.errors import ProofRefused
from byline.records import JournalEntry
from byline.transparency.heads import SIZE, parse_hash
from byline.transparency.leaves import EntryLeaf, EntrySalts
from byline.transparency.legs import SumNode, path_of_leg

FIRST_LINE = "c2sp.org/tlog-proof@v1"
EXTENSION = ".tlog-proof"
SET_EXTENSION = ".tlog-proofs"
VERSION = 1


@dataclass(frozen=True, slots=True)
class LeafProof:
    """Where a leaf stands, and its siblings from the leaf up."""

    index: int
    path: tuple[bytes, ...]

    def fields(self) -> dict[str, Json]:
        """As JSON fields."""
        return {"index": self.index, "path": [b64encode(each).decode() for each in self.path]}


@dataclass(frozen=True, slots=True)
class ShownManifest:
    """The manifest behind an entry: its hash, and its text where the reader may see it."""

    sha256: str
    salt: bytes
    text: str | None = None

    def fields(self) -> dict[str, Json]:
        """As JSON fields."""
        shown: dict[str, Json] = {"sha256": self.sha256, "salt": self.salt.hex()}
        return shown if self.text is None else {**shown, "text": self.text}


def shown_manifest(
    entry: JournalEntry, salts: EntrySalts, text: str | None
) -> ShownManifest | None:
    """What opens the entry's manifest commitment; None where it has none."""
    if entry.manifest_sha256 is None:
        return None
    return ShownManifest(entry.manifest_sha256, salts.of_manifest(), text)


def line_opening(
    entry: JournalEntry, leaf: EntryLeaf, account: str, *, manifest: ShownManifest | None = None
) -> dict[str, Json]:
    """One account's leg of an entry; the others stay closed. Raises ProofRefused without one.

    Show a manifest only to whom may read it: an attribution's names every contributor.
    """
    accounts = [leg.account for leg in entry.legs]
    if account not in accounts:
        raise ProofRefused(f"entry {entry.seq} has no leg of {account}")
    index = accounts.index(account)
    path = path_of_leg(leaf.nodes, index).siblings
    leg: dict[str, Json] = {
        "text": leaf.texts[index].decode(),
        "index": index,
        "path": [[node.hash.hex(), *map(str, node.sums)] for node in path],
    }
    return _opening("line", leaf.data, manifest, leg=leg)


def entry_opening(
    entry: JournalEntry,
    leaf: EntryLeaf,
    *,
    shown: Collection[str],
    manifest: ShownManifest | None = None,
) -> dict[str, Json]:
    """A whole entry; of accounts that are not in `shown` only hash and sums."""
    legs: list[Json] = [
        {"text": text.decode()} if leg.account in shown else _closed(node)
        for leg, text, node in zip(entry.legs, leaf.texts, leaf.nodes, strict=True)
    ]
    return _opening("entry", leaf.data, manifest, legs=legs)


def shown_to_application(entry: JournalEntry) -> set[str]:
    """The accounts of an entry that its application may see opened: all but contributors'."""
    return {leg.account for leg in entry.legs if not leg.account.startswith("contrib:")}


def statement_opening(leaf: bytes, text: str) -> dict[str, Json]:
    """A statement's leaf, opened."""
    return _opening("statement", leaf, None, opening=text)


def with_leaves(
    opening: Mapping[str, Json], leaves: Iterable[tuple[bytes, LeafProof]]
) -> dict[str, Json]:
    """The opening, with further leaves of the same tree."""
    further: list[Json] = [{**proof.fields(), "leaf": data.decode()} for data, proof in leaves]
    return {**opening, "with": further} if further else dict(opening)


def proof_text(opening: Mapping[str, Json], proof: LeafProof, checkpoint: str) -> str:
    """A `.tlog-proof` file."""
    extra = b64encode(_json(opening).encode()).decode()
    path = "".join(f"{b64encode(each).decode()}\n" for each in proof.path)
    return f"{FIRST_LINE}\nextra {extra}\nindex {proof.index}\n{path}\n{checkpoint}"


def proof_set_lines(
    checkpoint: str,
    proofs: Iterable[tuple[Mapping[str, Json], LeafProof]],
    leaves: Iterable[tuple[bytes, LeafProof]] = (),
) -> Iterator[str]:
    """The lines of a `.tlog-proofs` file: one head, many proofs."""
    head: dict[str, Json] = {"v": VERSION, "object": "proofs", "checkpoint": checkpoint}
    yield _json(with_leaves(head, leaves)) + "\n"
    for opening, proof in proofs:
        yield _json({**proof.fields(), "opening": opening}) + "\n"


def parse_proof(text: str) -> tuple[dict[str, Any], LeafProof, str]:
    """Opening, path and checkpoint of a `.tlog-proof`, nothing verified. Raises ProofRefused."""
    proof, gap, checkpoint = text.partition("\n\n")
    lines = proof.split("\n")
    if not gap or len(lines) < 3 or lines[0] != FIRST_LINE:
        raise ProofRefused(f"it does not begin as a {EXTENSION} file does")
    extra, index = lines[1].removeprefix("extra "), lines[2].removeprefix("index ")
    if extra == lines[1] or index == lines[2] or not SIZE.fullmatch(index):
        raise ProofRefused("the proof has no opening, or no index")
    try:
        opening = json.loads(b64decode(extra, validate=True))
    except (Base64Error, ValueError) as problem:
        raise ProofRefused("the proof's opening can't be read") from problem
    return opening, LeafProof(int(index), tuple(map(parse_hash, lines[3:]))), checkpoint


def _opening(
    name: str, leaf: bytes, manifest: ShownManifest | None, **fields: Json
) -> dict[str, Json]:
    opened: dict[str, Json] = {"v": VERSION, "object": name, "leaf": leaf.decode(), **fields}
    return opened if manifest is None else {**opened, "manifest": manifest.fields()}


def _closed(node: SumNode) -> dict[str, Json]:
    debits, credited, paid = map(str, node.sums)
    return {"hash": node.hash.hex(), "debits": debits, "credits": credited, "paid": paid}


def _json(fields: Mapping[str, Json] | Sequence[Json]) -> str:
    return json.dumps(fields, separators=(",", ":"))
