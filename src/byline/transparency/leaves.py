"""What the leaves of the log say: entries, manifests, statements and keys, as canonical JSON.

An entry's leaf is public and names no account: its legs are salted commitments under one root. The
salts come from a secret of the entry's own, and that from the log's: the log's owner makes every
opening again from the journal, and whoever is given one entry's secret opens no other.
"""

import hmac
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

from byline.canonical import Json, canonical_bytes, canonical_text
from byline.errors import ProofRefused
from byline.records import JournalEntry
from byline.transparency.legs import SumNode, leg_node, root_of_legs, sums_of
from byline.transparency.notes import SigningKey, VerifierKey
from byline.transparency.tiles import LEAF_BYTES_MAX

VERSION = 1
UNCHAINED = ("hold:", "open:")  # accounts that live within one inference
NO_LEG = bytes(32)  # the hash of a leg that is not there
CONTRIBUTOR = "contrib:"
SETTLE = "settle"


class ChainHead(NamedTuple):
    """How many legs an account has, and the hash of the newest."""

    n: int = 0
    hash: bytes = NO_LEG


class Place(NamedTuple):
    """A leg's place in its account's chain, and its share of the pool where it has one."""

    n: int
    prev: bytes
    ppb: int | None


@dataclass(frozen=True, slots=True)
class EntryLeaf:
    """One journal entry as a leaf, and all that its openings need."""

    data: bytes
    texts: tuple[bytes, ...]  # of each leg
    nodes: tuple[SumNode, ...]
    places: tuple[Place, ...]
    salts: "EntrySalts"


@dataclass(frozen=True, slots=True)
class StatementOpening:
    """What a statement's leaf commits to; amounts in nano-USD."""

    account: str
    month: str
    first_n: int
    last_n: int
    before: bytes  # the hash of leg `first_n - 1`
    head: bytes  # the hash of leg `last_n`
    opening: int
    closing: int
    sha256: str  # of the statement's JSON


@dataclass(frozen=True, slots=True)
class EntrySalts:
    """One entry's secret, and the salts made of it."""

    secret: bytes = field(repr=False)

    def of_leg(self, account: str) -> bytes:
        """Of this account's leg."""
        return _hmac(self.secret, "leg", account)

    def of_manifest(self) -> bytes:
        """Of the entry's manifest."""
        return _hmac(self.secret, "manifest")


@dataclass(frozen=True, slots=True)
class Salts:
    """The log's secret, and what is made of it."""

    secret: bytes = field(repr=False)

    def of_entry(self, key: str) -> EntrySalts:
        """Of the entry with this event key."""
        return EntrySalts(_hmac(self.secret, "entry", key))

    def of_statement(self, account: str, month: str) -> bytes:
        """Of one account's month."""
        return _hmac(self.secret, "statement", account, month)


def _hmac(secret: bytes, *words: str) -> bytes:
    return hmac.digest(secret, "\0".join(words).encode(), "sha256")


def places_of(
    entry: JournalEntry, heads: Mapping[str, ChainHead], shares: Mapping[str, int]
) -> tuple[Place, ...]:
    """Where each leg stands in its account's chain; `heads` are the chains before the entry.

    `shares` are a settle's, by account, in ppb; empty where no manifest was found.
    """
    places = []
    for leg in entry.legs:
        ppb = shares.get(leg.account) if leg.nano > 0 else None
        if leg.account.startswith(UNCHAINED):
            places.append(Place(0, NO_LEG, ppb))
        else:
            head = heads.get(leg.account, ChainHead())
            places.append(Place(head.n + 1, head.hash, ppb))
    return tuple(places)


def entry_leaf(
    entry: JournalEntry,
    places: Sequence[Place],
    salts: EntrySalts,
    *,
    manifest_index: int | None = None,
) -> EntryLeaf:
    """The leaf of a journal entry. Its chain places are given, so it can be made again later."""
    texts = tuple(
        canonical_bytes({
            "account": leg.account, "n": place.n, "nano": str(leg.nano), "ppb": place.ppb,
            "prev": place.prev.hex(), "salt": salts.of_leg(leg.account).hex(),
            "seq": entry.seq,
        })
        for leg, place in zip(entry.legs, places, strict=True)
    )  # fmt: skip
    nodes = tuple(
        leg_node(text, sums_of(leg.account, leg.nano))
        for text, leg in zip(texts, entry.legs, strict=True)
    )
    root = root_of_legs(nodes)
    header: dict[str, Json] = {
        "v": VERSION, "type": "entry", "seq": entry.seq, "key": entry.key, "kind": entry.kind,
        "inference": entry.inference, "adapter_version": entry.adapter_version,
        "time_ms": entry.time_ms, "policy": entry.policy, "charge": str(entry.charge),
        "manifest": manifest_of(entry, salts), "manifest_index": manifest_index,
        "legs": {
            "count": len(nodes), "root": root.hash.hex(), "debits": str(root.sums.debits),
            "credits": str(root.sums.credits), "paid": str(root.sums.paid),
        },
    }  # fmt: skip
    return EntryLeaf(leaf_data(header), texts, nodes, tuple(places), salts)


def logged_leaf(
    entry: JournalEntry, index: int, places: Sequence[Place], salts: EntrySalts
) -> EntryLeaf:
    """The leaf of an entry that stands at `index`, made again from what the journal says."""
    manifest_index = index - 1 if has_manifest_leaf(entry) else None
    return entry_leaf(entry, places, salts, manifest_index=manifest_index)


def has_manifest_leaf(entry: JournalEntry) -> bool:
    """Does the leaf of what it pays by stand right before its own?"""
    return entry.kind == SETTLE and entry.manifest_sha256 is not None


def heads_after(entry: JournalEntry, leaf: EntryLeaf) -> dict[str, ChainHead]:
    """The chains of the entry's accounts, with the entry."""
    return {
        leg.account: ChainHead(place.n, node.hash)
        for leg, place, node in zip(entry.legs, leaf.places, leaf.nodes, strict=True)
        if place.n
    }


def shares_of(attribution: Mapping[str, object]) -> dict[str, int]:
    """A settle's shares by account, in ppb, from its manifest's fields (`attribution_fields`)."""
    shares, version = attribution.get("shares"), attribution.get("adapter_version")
    rest = attribution.get("unattributed_ppb")
    if not isinstance(shares, list) or not isinstance(rest, int):
        return {}
    found = {f"{CONTRIBUTOR}{share['contributor']}": int(share["share_ppb"]) for share in shares}
    return {**found, f"unattributed:{version}": rest}


def manifest_of(entry: JournalEntry, salts: EntrySalts) -> str | None:
    """The commitment to the entry's manifest, in hex; None where it has none."""
    if entry.manifest_sha256 is None:
        return None
    return manifest_commitment(salts.of_manifest(), entry.manifest_sha256)


def manifest_commitment(salt: bytes, manifest_sha256: str) -> str:
    """Says which manifest without saying it: most of a decision's text could be guessed."""
    return sha256(b"\x04" + salt + bytes.fromhex(manifest_sha256)).hexdigest()


def manifest_leaf(entry: JournalEntry, salts: EntrySalts) -> bytes:
    """The leaf that stands before the entry that pays by this manifest."""
    commitment = manifest_of(entry, salts)
    return leaf_data({"v": VERSION, "type": "manifest", "key": entry.key, "manifest": commitment})


def statement_text(opening: StatementOpening, salts: Salts) -> str:
    """The opening of a statement's leaf."""
    return canonical_text({
        "account": opening.account, "month": opening.month, "first_n": opening.first_n,
        "last_n": opening.last_n, "before": opening.before.hex(), "head": opening.head.hex(),
        "opening": str(opening.opening), "closing": str(opening.closing),
        "sha256": opening.sha256,
        "salt": salts.of_statement(opening.account, opening.month).hex(),
    })  # fmt: skip


def statement_leaf(month: str, text: str) -> bytes:
    """The leaf of the statement with this opening."""
    commitment = sha256(b"\x05" + text.encode()).hexdigest()
    return leaf_data({"v": VERSION, "type": "statement", "month": month, "commitment": commitment})


def key_leaf(origin: str, old: SigningKey, new: VerifierKey) -> bytes:
    """The leaf by which the old key announces the next one."""
    signature = b64encode(old.sign(rotation_message(origin, new))).decode()
    return leaf_data({
        "v": VERSION, "type": "key", "origin": origin, "old": old.verifier.text(),
        "new": new.text(), "signature": signature,
    })  # fmt: skip


def rotation_message(origin: str, new: VerifierKey) -> bytes:
    """What the old key signs."""
    return f"byline-key/v1\n{origin}\n{new.text()}\n".encode()


def leaf_data(fields: Mapping[str, Json]) -> bytes:
    """A leaf's bytes. Raises ProofRefused if they would not fit into an entry bundle."""
    data = canonical_bytes(fields)
    if len(data) > LEAF_BYTES_MAX:
        raise ProofRefused(f"a leaf of {len(data)} bytes: {LEAF_BYTES_MAX} is the most")
    return data
