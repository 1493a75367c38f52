"""Checks one line of Byline's log, offline: is it there, is the split right, is the sum the charge?

    python proof.py FILE.tlog-proof VKEY

It needs nothing but Python 3.11 and the package `cryptography`. VKEY is the log's public key, from
where you trust it. FILE is taken for hostile: all follows from that key's signature and SHA-256.
"""

import json
import re
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace as Fields
from typing import Any, NamedTuple, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

BOUND, PPB, LEAF_BYTES_MAX, SIGNATURES_MAX = 1 << 63, 10**9, 65_535, 64
Convert = Callable[[Any], Any]
Node = TypeVar("Node")


class Refused(Exception):
    """A check failed; the text says which."""


def require(holds: object, sentence: str) -> None:
    """Go on only if it holds."""
    if not holds:
        raise Refused(sentence)


def parse_json(source: str) -> Any:  # noqa: ANN401 - nobody knows before `shaped`
    """What the JSON says. A field twice is refused: it would be open which of them is meant."""

    def no_number(name: str) -> None:
        raise Refused(f"a JSON text has {name} in it")

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        require(len(dict(pairs)) == len(pairs), "a JSON text has a field twice")
        return dict(pairs)

    try:
        return json.loads(source, object_pairs_hook=once, parse_constant=no_number)
    except (ValueError, RecursionError):
        raise Refused("what should be JSON can't be read") from None


def shaped(value: Any, shape: Mapping[str, Convert]) -> Fields:  # noqa: ANN401 - as it was read
    """The fields that the shape names, each of its type; further ones are ignored."""
    require(isinstance(value, dict), "where a JSON object should be there is none")
    for name in shape:
        require(name in value, f"the field '{name}' is missing")
    return Fields(**{name: convert(value[name]) for name, convert in shape.items()})


def text(value: object) -> str:
    """A text that can be hashed: a lone half of a surrogate pair can't."""
    if not isinstance(value, str) or re.search("[\ud800-\udfff]", value):
        raise Refused("a field is no text")
    return value


def word(value: object) -> str:
    """A name: no blank, quote or bracket is in it, so that it can't be taken for a sentence."""
    if not isinstance(value, str) or not re.fullmatch("[A-Za-z0-9:@._/-]{1,128}", value):
        raise Refused("a name has other characters in it than names have")
    return value


def number(value: Any) -> int:  # noqa: ANN401 - as it was read
    """A whole number from 0 on."""
    require(type(value) is int and 0 <= value < BOUND, "a field is no whole number within bounds")
    return int(value)


def amount(value: object) -> int:
    """Whole nano-USD, from a decimal string."""
    if not isinstance(value, str) or not re.fullmatch("0|-?[1-9][0-9]{0,18}", value):
        raise Refused("an amount is no decimal string of whole nano-USD")
    require(abs(int(value)) < BOUND, "an amount is too large to be true")
    return int(value)


def hex32(value: object) -> bytes:
    """32 bytes, from lower-case hex."""
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        raise Refused("a hash is not 64 digits of lower-case hex")
    return bytes.fromhex(value)


def base64(value: object, length: int = 0) -> bytes:
    """Bytes, as many if it is said, from base64, which has one way to write them."""
    try:
        raw = b64decode(value, validate=True) if isinstance(value, str) else b""
    except ValueError:
        raw = b""
    is_right = b64encode(raw).decode() == value and length in (0, len(raw))
    require(is_right, "base64 can't be read, or is of the wrong length")
    return raw


hash64 = partial(base64, length=32)  # a SHA-256


def version(value: object) -> None:
    """The one version there is."""
    require(type(value) is int and value == 1, "this verifier is not for its version")


def null_or(convert: Convert) -> Convert:
    """The same, or null."""
    return lambda value: None if value is None else convert(value)


def list_of(convert: Convert) -> Convert:
    """A list of the same."""

    def converted(value: Any) -> list[Any]:  # noqa: ANN401 - as it was read
        require(isinstance(value, list), "a field is no list")
        return [convert(each) for each in value]

    return converted


def object_of(**shape: Convert) -> Convert:
    """An object of this shape."""
    return lambda value: shaped(value, shape)


def printable(sentence: str) -> str:
    """Nothing in a file commands a terminal, or begins a line of its own."""
    return "".join(character if character.isprintable() else "?" for character in sentence)


def node_hash(left: bytes, right: bytes) -> bytes:
    """A node of the log (RFC 6962, 2.1); an entry's legs have such a tree, with other nodes."""
    return sha256(b"\x01" + left + right).digest()


def fold(
    leaf: Node, index: int, size: int, path: Sequence[Node], join: Callable[[Node, Node], Node]
) -> Node:
    """The root to which a path leads; its last node is the root's child."""
    require(0 <= index < size and bool(path) == (size > 1), "a path does not fit its tree")
    if size == 1:
        return leaf
    left = 1 << ((size - 1).bit_length() - 1)  # of the root: the largest power of two below `size`
    if index < left:
        return join(fold(leaf, index, left, path[:-1], join), path[-1])
    return join(path[-1], fold(leaf, index - left, size - left, path[:-1], join))


class Key(NamedTuple):
    """A public key (C2SP signed-note); type 1 signs heads and receipts, type 4 cosigns heads."""

    name: str
    kind: int
    public: bytes

    @property
    def id(self) -> bytes:
        """What names it in a note, beside its name."""
        return sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    def require_signed(self, message: bytes, signature: bytes) -> None:
        """The signature must be good."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            raise Refused(f"the signature of {self.name} does not verify") from None


def parse_key(vkey: str, kind: int = 1) -> Key:
    """The key in a vkey, whose own key ID must be right."""
    parts = text(vkey).split("+", 2)
    require(len(parts) == 3 and re.fullmatch(r"[^\s+]+", parts[0]), "a vkey can't be read")
    raw = base64(parts[2], 33)
    key = Key(parts[0], raw[0], raw[1:])
    require(key.kind == kind and key.id.hex() == parts[1], f"the vkey of {key.name} is wrong")
    return key


class Note(NamedTuple):
    """A signed text; `lines` are name, key ID and signature."""

    text: str
    lines: list[tuple[str, bytes, bytes]]

    def signers(self, keys: Iterable[Key]) -> list[Key]:
        """Which of the keys signed it; a bad signature by one of them spoils it."""
        found = []
        for key in keys:
            mine = [signature for *named, signature in self.lines if named == [key.name, key.id]]
            for signature in mine:
                key.require_signed(self.text.encode(), signature)
            found += [key] if mine else []
        return found


def parse_note(note: str) -> Note:
    """A signed note, nothing of it verified."""
    body, gap, lines = text(note).rpartition("\n\n")
    found = [re.fullmatch(r"— ([^\s+]+) (\S+)", line) for line in lines.split("\n")[:-1]]
    is_one = gap and lines.endswith("\n") and found and len(found) <= SIGNATURES_MAX
    require(is_one and not re.search("[\x00-\x09\x0b-\x1f]", note), "it is no signed note")
    require(all(found), "a signature line can't be read")
    raw = [(line[1], base64(line[2])) for line in found if line]
    return Note(body + "\n", [(name, signed[:4], signed[4:]) for name, signed in raw])


class Head(NamedTuple):
    """A tree head, and the note in which it is."""

    origin: str
    size: int
    root: bytes
    note: Note


def parse_head(checkpoint: str) -> Head:
    """The tree head in a checkpoint, nothing of it verified."""
    note = parse_note(checkpoint)
    found = re.fullmatch("([^\n]+)\n(0|[1-9][0-9]{0,18})\n([^\n]+)\n", note.text)
    require(found, "it is no tree head: origin, size, root")
    return Head(found[1], number(int(found[2])), hash64(found[3]), note)  # type: ignore[index]


GIVEN_BACK, UNCHAINED, NO_LEG = ("app:", "hold:"), ("hold:", "open:"), bytes(32)
CHARGED, PAYEES = "base: host owner: platform open:", "base: contrib: host owner: platform"
ANY = f"app: {PAYEES} unattributed: funding payout refund"
PARTIES = {  # by an entry's kind: whose accounts give, and whose get
    "deposit": ("funding", "app:"), "hold": ("app:", "hold:"),
    "capture": ("hold:", f"app: {CHARGED}"), "capture_late": ("app:", CHARGED),
    "void": ("hold:", "app:"), "expire": ("hold:", "app:"),
    "settle": ("open:", "contrib: unattributed:"), "adjust": (ANY, ANY),
    "refund": (f"{PAYEES} unattributed: refund", "app:"), "payout": (PAYEES, "payout"),
    "release": ("unattributed:", "app: base: contrib: owner:"),
}  # fmt: skip
ENTRY: dict[str, Convert] = {
    "seq": number, "key": word, "kind": text, "inference": null_or(text),
    "adapter_version": null_or(text), "time_ms": number, "policy": text, "charge": amount,
    "manifest": null_or(hex32), "manifest_index": null_or(number),
    "legs": object_of(count=number, root=hex32, debits=amount, credits=amount, paid=amount),
}  # fmt: skip
LEG: dict[str, Convert] = {
    "account": word, "nano": amount, "seq": number, "n": number, "prev": hex32,
    "ppb": null_or(number), "salt": hex32,
}  # fmt: skip


def parse_leaf(data: str, types: Mapping[str, Mapping[str, Convert]]) -> Fields:
    """What a leaf of one of these types says."""
    require(len(text(data).encode()) <= LEAF_BYTES_MAX, "a leaf is too long")
    value = parse_json(data)
    kind = text(shaped(value, {"v": version, "type": text}).type)
    require(kind in types, f"a leaf is of the unknown type '{kind}'")
    return Fields(type=kind, **vars(shaped(value, types[kind])))


def check_entry(entry: Fields, index: int) -> None:
    """What must hold of an entry whatever its legs are."""
    legs, what = entry.legs, f"entry {entry.seq}: "
    require(entry.kind in PARTIES, f"{what}the kind '{entry.kind}' is unknown")
    operation = entry.kind.removesuffix("_late")
    require(entry.key.split("/")[1:2] == [operation], f"{what}its event is no {operation}")
    require(entry.seq > 0, f"{what}entries are numbered from 1")
    require(legs.debits == legs.credits, f"{what}what is credited is not what is debited")
    require(0 <= legs.paid <= legs.credits, f"{what}more is paid than credited")
    captures = operation == "capture"
    require(not captures or legs.paid == entry.charge, f"{what}what it pays is not the charge")
    require(captures or entry.charge == 0, f"{what}it charges, and is no capture")
    if entry.kind in ("deposit", "hold", "void", "expire"):
        require(legs.paid == 0, f"{what}it pays somebody")
    settles = entry.kind == "settle"
    require((entry.manifest_index is not None) == settles, f"{what}manifest_index is wrong")
    is_before = not settles or (entry.manifest is not None and entry.manifest_index < index)
    require(is_before, f"{what}its manifest was not logged before it was paid on")
    require(not settles or legs.paid == legs.debits, f"{what}not the whole pool is paid")


class Sums(NamedTuple):
    """A node of legs: its hash, and what all legs below it take, give and pay."""

    hash: bytes
    debits: int
    credits: int
    paid: int

    def hashed(self) -> bytes:
        """The sums, as they are hashed."""
        return b"".join(each.to_bytes(8) for each in self[1:])


def sum_node(left: Sums, right: Sums) -> Sums:
    """The node of legs above two others."""
    sums = [a + b for a, b in zip(left[1:], right[1:], strict=True)]
    require(min(*left[1:], *right[1:]) >= 0 and max(sums) < BOUND, "a sum is out of bounds")
    hashed = left.hash + left.hashed() + right.hash + right.hashed()
    return Sums(sha256(b"\x03" + hashed).digest(), *sums)


def path_node(value: Any) -> Sums:  # noqa: ANN401 - as it was read
    """A sibling in a leg's path."""
    require(isinstance(value, list) and len(value) == 4, "a leg's path can't be read")
    return Sums(hex32(value[0]), *map(amount, value[1:]))


def parse_leg(source: str, entry: Fields) -> Fields:
    """One leg of an entry, with its node; its sums follow from its text."""
    leg = shaped(parse_json(source), LEG)
    what = f"entry {entry.seq}, the leg of '{leg.account}': "
    require(leg.seq == entry.seq, f"{what}it is of another entry")
    require((leg.n == 0) == leg.account.startswith(UNCHAINED), f"{what}its number can't be {leg.n}")
    require((leg.prev == NO_LEG) == (leg.n <= 1), f"{what}it names a wrong leg before it")
    paid = 0 if leg.account.startswith(GIVEN_BACK) else max(leg.nano, 0)
    node = Sums(b"", max(-leg.nano, 0), max(leg.nano, 0), paid)
    leg.node = node._replace(hash=sha256(b"\x02" + node.hashed() + source.encode()).digest())
    require(may_touch(leg, entry), f"{what}a {entry.kind} does not touch this account")
    share = leg.ppb or 0  # where none is stated it is 0, and no credit is so little
    is_share = share <= PPB and abs(leg.nano * PPB - entry.legs.debits * share) < PPB
    holds = is_share if entry.kind == "settle" and leg.nano > 0 else leg.ppb is None
    require(holds, f"{what}{leg.nano} of {entry.legs.debits} is not the share that it states")
    return leg


def may_touch(leg: Fields, entry: Fields) -> bool:
    """This kind of entry gives to such accounts, or takes; of holds and pools, its inference's."""
    kind = leg.account[: leg.account.find(":") + 1] or leg.account
    own = f"{kind}{entry.key.partition('/')[0]}/"
    is_own = kind not in UNCHAINED or f"{leg.account}/".startswith(own)
    return is_own and kind in PARTIES[entry.kind][leg.nano >= 0].split()


def opened_line(opening: object, entry: Fields) -> Fields:
    """The one leg that a line's opening shows, once its path leads to the root that was logged."""
    line = object_of(text=text, index=number, path=list_of(path_node))
    given = shaped(opening, {"leg": line}).leg
    leg = parse_leg(given.text, entry)
    root = fold(leg.node, given.index, entry.legs.count, given.path, sum_node)
    require(root == stated(entry), f"entry {entry.seq}: its leaf says something else of its legs")
    return leg


def stated(entry: Fields) -> Sums:
    """The root of the legs, with its sums, as the leaf has it."""
    return Sums(entry.legs.root, entry.legs.debits, entry.legs.credits, entry.legs.paid)


def parse_proof(source: str) -> tuple[Fields, Any, str]:
    """A `.tlog-proof`: leaf, index and path; its opening; the checkpoint. Nothing is verified."""
    proof, gap, checkpoint = source.partition("\n\n")
    lines = proof.split("\n")
    is_one = len(lines) > 2 and lines[0] == "c2sp.org/tlog-proof@v1" and lines[1][:6] == "extra "
    require(is_one and gap, "it is no whole .tlog-proof")
    require(re.fullmatch("index (0|[1-9][0-9]{0,18})", lines[2]), "the index can't be read")
    opening = parse_json(base64(lines[1].removeprefix("extra ")).decode())
    at = shaped(opening, {"leaf": text})
    at.index, at.path = int(lines[2].removeprefix("index ")), [*map(hash64, lines[3:])]
    return at, opening, checkpoint


def check_line(source: str, vkey: str) -> list[str]:
    """What a line's proof shows to who trusts this key. Raises Refused."""
    at, opening, checkpoint = parse_proof(source)
    head, key = parse_head(checkpoint), parse_key(vkey)
    is_log = head.origin == key.name and not key.name.endswith("/receipts")
    require(is_log and head.note.signers([key]), "this key did not sign it as a log's")
    hashed = sha256(b"\x00" + at.leaf.encode()).digest()
    root = fold(hashed, at.index, head.size, at.path, node_hash)
    require(root == head.root, "the leaf is not in the log of this tree head")
    require(shaped(opening, {"v": version, "object": text}).object == "line", "it opens no line")
    entry = parse_leaf(at.leaf, {"entry": ENTRY})
    check_entry(entry, at.index)
    leg = opened_line(opening, entry)
    share = f"{leg.ppb:,} parts per billion of the pool" if leg.ppb else "no share is stated"
    charge = f"; that is the charge of {entry.charge:,}" if entry.charge else ""
    return [
        f"key {key.id.hex()} signed the log '{head.origin}' over {head.size:,} leaves",
        f"leaf {at.index:,} is in it: entry {entry.seq:,}, {entry.kind}, '{entry.key}'",
        f"its {entry.legs.count:,} legs debit {entry.legs.debits:,} nano-USD, credit as much, and "
        f"pay {entry.legs.paid:,}{charge}",
        f"one of them is {leg.nano:+,} nano-USD for '{leg.account}' ({share})",
        "(not checked by this file: its other legs, witnesses, manifests, other lines and heads)",
    ]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("python proof.py FILE.tlog-proof VKEY")
    try:
        shown = check_line(Path(sys.argv[1]).read_bytes().decode(), sys.argv[2])
        print(*map(printable, shown), sep="\n")  # noqa: T201 - it is a program
    except (Refused, OSError, UnicodeError) as problem:
        sys.exit(printable(f"FAILED: {problem}"))
