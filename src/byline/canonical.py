"""The exact bytes that are hashed or signed: RFC 8785 canonical JSON, and SHA-256 over it.

`rfc8785` decides what is canonical. Nearly all that is hashed here has plain keys and ordinary
numbers: orjson writes the very same bytes for those, some thirty times as fast, and a property test
holds the two against each other.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias, cast

import orjson
import rfc8785

Json: TypeAlias = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]

# Integers beyond 2^53 and subclasses of the JSON types are refused, and so left to rfc8785.
PLAIN = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER | orjson.OPT_PASSTHROUGH_SUBCLASS

UNCHANGED = frozenset((str, int, bool, type(None)))  # orjson writes them as RFC 8785 does


class _Unusual(Exception):
    """Something that orjson and RFC 8785 write, or may write, in different ways."""


def canonical_bytes(value: Json) -> bytes:
    """`value` as RFC 8785 canonical JSON. Integers beyond 2^53 are refused: use strings."""
    try:
        return orjson.dumps(value if _is_plain(value) else _plain(value), option=PLAIN)
    except (_Unusual, TypeError):  # orjson's own error is a TypeError
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


def _is_plain(value: object) -> bool:
    """True if there is nothing in it but ASCII keys, text and integers."""
    kind = type(value)
    if kind is dict:
        fields = cast("dict[str, object]", value)
        return "".join(fields).isascii() and _are_plain(fields.values())
    if kind is list or kind is tuple:
        return _are_plain(cast("Sequence[object]", value))
    return kind in UNCHANGED


def _are_plain(values: Collection[object]) -> bool:
    for each in values:  # noqa: SIM110 - `all` costs twice as much
        if type(each) not in UNCHANGED and not _is_plain(each):
            return False
    return True


def _plain(value: object) -> object:
    """The value with each float in RFC 8785's own form; _Unusual where orjson must not be asked.

    RFC 8785 sorts keys by their UTF-16, orjson by their UTF-8: the same order for ASCII.
    """
    if type(value) is float:
        return orjson.Fragment(_number(value))
    if type(value) is dict:
        if not "".join(value).isascii():
            raise _Unusual
        return {k: v if type(v) in UNCHANGED else _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [v if type(v) in UNCHANGED else _plain(v) for v in value]
    raise _Unusual


def _number(value: float) -> str | bytes:
    """A float as ECMAScript writes it: mostly Python's digits, without a trailing `.0`."""
    text = repr(value)
    if "e" in text or "n" in text or not value:  # an exponent, NaN or infinity, a zero's sign
        written: bytes = rfc8785.dumps(value)
        return written
    return text.removesuffix(".0")
