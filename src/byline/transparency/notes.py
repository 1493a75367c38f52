"""Signed notes (C2SP signed-note) and witnesses' cosignatures (tlog-cosignature), by Ed25519.

A key is known by its name and its key id, four bytes of a hash over name, type and public key. A
signature by a key that nobody named is no news; one by a known key that is wrong spoils the note.
"""

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from byline.errors import ProofRefused

SIGNATURE = 0x01  # over the note's text
COSIGNATURE = 0x04  # over a time and the note's text
NAME = re.compile(r"[^\s+]+")
LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
SIGNATURES_MAX = 64
NOTE_CHARACTERS_MAX = 65_536
TIME_BYTES = 8


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key, for what it signs and under which name."""

    name: str
    kind: int  # SIGNATURE or COSIGNATURE
    public: bytes

    @property
    def id(self) -> bytes:
        """The key id."""
        return sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    def text(self) -> str:
        """The key as people hand it on: a vkey."""
        public = b64encode(bytes([self.kind]) + self.public).decode()
        return f"{self.name}+{self.id.hex()}+{public}"

    def is_signed(self, text: str, signature: bytes) -> bool:
        """Is this its signature of the note's text?"""
        message, seal = text.encode(), signature
        if self.kind == COSIGNATURE:
            message = cosigned_message(text, int.from_bytes(signature[:TIME_BYTES]))
            seal = signature[TIME_BYTES:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(seal, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, for what it signs and under which name."""

    name: str
    kind: int
    private: bytes  # 32 bytes; never shown

    def __repr__(self) -> str:
        return f"SigningKey({self.name!r}, {self.kind})"

    @classmethod
    def new(cls, name: str, kind: int = SIGNATURE) -> "SigningKey":
        """A key nobody had before."""
        return cls(name, kind, Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def verifier(self) -> VerifierKey:
        """Its public half."""
        public = Ed25519PrivateKey.from_private_bytes(self.private).public_key().public_bytes_raw()
        return VerifierKey(self.name, self.kind, public)

    def sign(self, message: bytes) -> bytes:
        """64 bytes over `message` as it is."""
        return Ed25519PrivateKey.from_private_bytes(self.private).sign(message)

    def line(self, text: str, *, time_seconds: int = 0) -> str:
        """The signature line that goes under the note's text; a cosigner says at which time."""
        if self.kind == COSIGNATURE:
            seal = self.sign(cosigned_message(text, time_seconds))
            seal = time_seconds.to_bytes(TIME_BYTES) + seal
        else:
            seal = self.sign(text.encode())
        return f"— {self.name} {b64encode(self.verifier.id + seal).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A note: its text, with the last newline, and its signature lines, nothing of it checked."""

    text: str
    signatures: tuple[tuple[str, bytes, bytes], ...]  # name, key id, signature

    def signers(self, keys: Iterable[VerifierKey]) -> list[VerifierKey]:
        """Which of these keys signed it. Raises ProofRefused if one of them has a wrong one."""
        found = []
        for key in keys:
            mine = [s for name, id_, s in self.signatures if (name, id_) == (key.name, key.id)]
            if not all(key.is_signed(self.text, signature) for signature in mine):
                raise ProofRefused(f"the signature of {key.name} does not verify")
            if mine:
                found.append(key)
        return found


def parse_vkey(text: str) -> VerifierKey:
    """The key in a vkey. Raises ProofRefused for anything else."""
    name, _, rest = text.strip().partition("+")
    id_, _, public = rest.partition("+")
    try:
        raw = b64decode(public, validate=True)
    except (Base64Error, ValueError):
        raw = b""
    key = VerifierKey(name, raw[0] if raw else 0, raw[1:])
    if (
        not NAME.fullmatch(name)
        or key.kind not in (SIGNATURE, COSIGNATURE)
        or len(key.public) != 32
        or id_ != key.id.hex()
    ):
        raise ProofRefused(f"'{text.strip()[:80]}' is no Ed25519 vkey: <name>+<key id>+<base64>")
    return key


def cosigned_message(text: str, time_seconds: int) -> bytes:
    """What a cosigner signs."""
    return f"cosignature/v1\ntime {time_seconds}\n{text}".encode()


def signed_note(text: str, keys: Sequence[SigningKey]) -> str:
    """The note with a signature line of each key."""
    assert text.endswith("\n")
    return text + "\n" + "".join(key.line(text) for key in keys)


def parse_note(note: str) -> Note:
    """The note in `note`. Raises ProofRefused where it is not of that form."""
    text, gap, lines = note.rpartition("\n\n")
    if not gap or not lines.endswith("\n") or len(note) > NOTE_CHARACTERS_MAX:
        raise ProofRefused("it is no signed note: text, an empty line, signature lines")
    if any(ord(character) < 0x20 and character != "\n" for character in note):
        raise ProofRefused("the signed note has a control character in it")
    signatures = [_signature(line) for line in lines[:-1].split("\n")]
    if len(signatures) > SIGNATURES_MAX:
        raise ProofRefused(f"the signed note has more than {SIGNATURES_MAX} signatures")
    return Note(text + "\n", tuple(signatures))


def _signature(line: str) -> tuple[str, bytes, bytes]:
    found = LINE.fullmatch(line)
    try:
        raw = b64decode(found[2], validate=True) if found else b""
    except Base64Error:
        raw = b""
    if found is None or len(raw) < 5:
        raise ProofRefused(f"'{line[:80]}' is no signature line")
    return found[1], raw[:4], raw[4:]
