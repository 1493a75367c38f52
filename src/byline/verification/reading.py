"""Reads what stands in a file: JSON with known fields, amounts, hashes. Everything is refused that
is not exactly as docs/proofs.md has it; nothing here raises anything but `Refused`.
"""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from types import SimpleNamespace as Fields
from typing import Any

BOUND = 1 << 63  # of every number
Convert = Callable[[Any], Any]


class Refused(Exception):
    """A check failed; the text says which."""


def require(holds: object, sentence: str) -> None:
    """Go on only if it holds."""
    if not holds:
        raise Refused(sentence)


def parse_json(source: str) -> Any:  # noqa: ANN401 - nobody knows before `shaped`
    """What the JSON says. A field twice is refused: it would be open which of them is meant."""

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        require(len(dict(pairs)) == len(pairs), "a JSON text has a field twice")
        return dict(pairs)

    def refused(name: str) -> None:
        raise Refused(f"a JSON text has {name} in it")

    try:
        return json.loads(source, object_pairs_hook=once, parse_constant=refused)
    except (ValueError, RecursionError):
        raise Refused("what should be JSON can't be read") from None


def shaped(value: object, shape: Mapping[str, Convert]) -> Fields:
    """The fields that the shape names, each of its type; further ones are ignored."""
    if not isinstance(value, dict):
        raise Refused("where a JSON object should be there is none")
    for name in shape:
        require(name in value, f"the field '{name}' is missing")
    return Fields(**{name: convert(value[name]) for name, convert in shape.items()})


def text(value: object) -> str:
    """A text that can be hashed: a lone half of a surrogate pair can't."""
    if not isinstance(value, str) or re.search("[\ud800-\udfff]", value):
        raise Refused("a field is no text")
    return value


def number(value: object) -> int:
    """A whole number from 0 on."""
    if type(value) is not int or not 0 <= value < BOUND:
        raise Refused("a field is no whole number within bounds")
    return value


def integer(value: object) -> int:
    """A whole number of either sign."""
    if type(value) is not int or abs(value) >= BOUND:
        raise Refused("a field is no whole number within bounds")
    return value


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


def base64(value: object, *lengths: int) -> bytes:
    """Bytes, from base64, which has one way to write them."""
    try:
        raw = b64decode(value, validate=True) if isinstance(value, str) else b""
    except ValueError:
        raw = b""
    is_right = b64encode(raw).decode() == value and (not lengths or len(raw) in lengths)
    require(is_right, "base64 can't be read, or is of the wrong length")
    return raw


def hash64(value: object) -> bytes:
    """A SHA-256, from base64."""
    return base64(value, 32)


def version(value: object) -> None:
    """The one version there is."""
    require(type(value) is int and value == 1, "this verifier is not for its version")


def null_or(convert: Convert) -> Convert:
    """The same, or null."""
    return lambda value: None if value is None else convert(value)


def list_of(convert: Convert) -> Convert:
    """A list of the same."""

    def converted(value: object) -> list[Any]:
        if not isinstance(value, list):
            raise Refused("a field is no list")
        return [convert(each) for each in value]

    return converted


def object_of(**shape: Convert) -> Convert:
    """An object of this shape."""
    return lambda value: shaped(value, shape)


def printable(sentence: str) -> str:
    """Nothing in a file commands a terminal, or begins a line of its own."""
    return "".join(character if character.isprintable() else "?" for character in sentence)
