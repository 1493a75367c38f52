"""Tree heads: what a log signs, in the form of a C2SP checkpoint (tlog-checkpoint).

A head without extension lines: origin, size, root.
"""

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from dataclasses import dataclass

from byline.errors import ProofRefused
from byline.transparency.notes import Note, SigningKey, parse_note, signed_note
from byline.transparency.tree import HASH_BYTES

SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class TreeHead:
    """The log's state at one size."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"


def signed_head(head: TreeHead, keys: Sequence[SigningKey]) -> str:
    """The head as a note with each key's signature."""
    return signed_note(head.text(), keys)


def parse_head(checkpoint: str) -> tuple[TreeHead, Note]:
    """The head in a checkpoint, nothing of it verified. Raises ProofRefused."""
    note = parse_note(checkpoint)
    lines = note.text.split("\n")
    if len(lines) != 4 or not all(lines[:3]) or not SIZE.fullmatch(lines[1]):
        raise ProofRefused("it is no tree head: origin, size, root")
    return TreeHead(lines[0], int(lines[1]), parse_hash(lines[2])), note


def parse_hash(text: str) -> bytes:
    """The hash in its base64. Raises ProofRefused."""
    try:
        found = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        found = b""
    if len(found) != HASH_BYTES:
        raise ProofRefused(f"'{text[:60]}' is no SHA-256 in base64")
    return found
