"""The exact bytes that are hashed or signed: RFC 8785 canonical JSON, and SHA-256 over it."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import rfc8785

Json: TypeAlias = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


def canonical_bytes(value: Json) -> bytes:
    """`value` as RFC 8785 canonical JSON. Integers beyond 2^53 are refused: use strings."""
    encoded: bytes = rfc8785.dumps(value)
    return encoded


def canonical_text(value: Json) -> str:
    """`canonical_bytes` as text."""
    return canonical_bytes(value).decode("utf-8")


def sha256_hex(data: bytes) -> str:
    """SHA-256 of `data`, 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest(value: Json) -> str:
    """SHA-256 of the canonical JSON of `value`."""
    return sha256_hex(canonical_bytes(value))
