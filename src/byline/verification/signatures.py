"""Keys, signed notes, tree heads and policies: C2SP signed-note, tlog-checkpoint, tlog-cosignature
and tlog-policy. Ed25519 is the only thing that is taken from outside Python's own library.
"""

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .reading import Refused, base64, hash64, number, require, text

SIGNATURES_MAX = 64


class Key(NamedTuple):
    """A public key; type 1 signs tree heads and receipts, type 4 cosigns tree heads."""

    name: str
    kind: int
    public: bytes

    @property
    def id(self) -> bytes:
        """What names it in a note, beside its name."""
        named = self.name.encode() + b"\n" + bytes([self.kind]) + self.public
        return sha256(named).digest()[:4]

    def require_signed(self, message: bytes, signature: bytes) -> None:
        """The signature must be good."""
        if self.kind == 4:
            seconds, signature = int.from_bytes(signature[:8]), signature[8:]
            message = f"cosignature/v1\ntime {seconds}\n".encode() + message
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
    trusted: tuple[Key, ...] = ()  # by this very head


def parse_head(checkpoint: str) -> Head:
    """The tree head in a checkpoint, nothing of it verified."""
    note = parse_note(checkpoint)
    lines = note.text.split("\n")
    is_one = len(lines) == 4 and all(lines[:3]) and re.fullmatch("0|[1-9][0-9]{0,18}", lines[1])
    require(is_one, "it is no tree head: origin, size, root")
    return Head(lines[0], number(int(lines[1])), hash64(lines[2]), note)


class Policy:
    """Whom one trusts: logs, and how many of which witnesses."""

    def __init__(self, policy: str) -> None:
        """From a policy's text, or from vkeys, one a line, with no witness asked for."""
        self.logs: list[Key] = []
        self.witnesses: dict[str, Key] = {}
        self.groups: dict[str, tuple[int, list[str]]] = {}
        self.quorum: str | None = None
        lines = [line.split() for line in policy.split("\n")]
        lines = [words for words in lines if words and not words[0].startswith("#")]
        if lines and all(len(words) == 1 for words in lines):
            lines = [*(["log", vkey] for [vkey] in lines), ["quorum", "none"]]
        members: list[str] = []
        for words in lines:
            members += self._line(words, members)
        keys = [key.public for key in [*self.logs, *self.witnesses.values()]]
        require(self.logs and self.quorum, "a policy needs a log and a quorum line")
        require(len(set(keys)) == len(keys), "the policy has a key twice")

    def _line(self, words: list[str], taken: list[str]) -> list[str]:
        """Read one line; answers the members of a group."""
        known = [*self.witnesses, *self.groups]
        match words:
            case ["log", vkey] | ["log", vkey, _]:
                self.logs.append(parse_key(vkey))
            case ["witness", name, vkey, *url] if name not in [*known, "none"] and len(url) < 2:
                self.witnesses[name] = parse_key(vkey, 4)
            case ["group", name, needed, *members] if name not in [*known, "none"]:
                counts = {"all": len(members), "any": 1}
                count = int(needed) if re.fullmatch("[0-9]{1,3}", needed) else counts.get(needed, 0)
                is_good = {*members} <= {*known} and not {*members} & {*taken}
                is_good = is_good and len({*members}) == len(members)
                require(is_good and 0 < count <= len(members), f"the group '{name}' is wrong")
                self.groups[name] = (count, members)
                return members
            case ["quorum", name] if self.quorum is None and name in [*known, "none"]:
                self.quorum = name
            case _:
                raise Refused(f"the policy's line '{' '.join(words)}' can't be read")
        return []

    def keys_of(self, origin: str) -> list[Key]:
        """The trusted keys of one log."""
        return [key for key in self.logs if key.name == origin]

    def require_quorum(self, head: Head) -> list[str]:
        """The witnesses' quorum must be reached; answers who cosigned."""
        signed = head.note.signers(self.witnesses.values())
        reached = {name for name, key in self.witnesses.items() if key in signed}
        for name, (count, members) in self.groups.items():  # each names only what stands before it
            reached |= {name} if len(reached.intersection(members)) >= count else set()
        is_reached = self.quorum in {*reached, "none"}
        require(is_reached, f"the witnesses' quorum '{self.quorum}' did not cosign the tree head")
        return [key.name for key in signed]
