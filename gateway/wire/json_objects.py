"""A request body's bytes as a JSON object, and what is wrong with one as InvalidInput."""

import json
import re
from typing import Any, TypeAlias

import orjson
from pydantic import ValidationError

from byline.errors import InvalidInput

JsonObject: TypeAlias = dict[str, Any]

# orjson would read an integer of more than 64 bits as the nearest float: fields pass untouched.
LONG_NUMBER = re.compile(rb"\d{19}")
# A union reports one error a member, with the member's type in the place: left out of `param`.
MEMBERS = frozenset(
    {"str", "list[dict[str,any]]", "literal['auto','none','required']", "NamedTool"}
)


def read_object(raw: bytes) -> JsonObject:
    """The object. Raises InvalidInput for anything else, also for text that is no Unicode."""
    if LONG_NUMBER.search(raw) is None:
        try:
            return _object(orjson.loads(raw))
        except ValueError:  # Python's own reader says better what is wrong
            pass
    try:
        fields = json.loads(raw.decode())
        # NaN and 1e999 are no numbers, and half a surrogate pair is no text: either would fail
        # somewhere deeper.
        json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as problem:
        raise InvalidInput(f"The body is not valid JSON in UTF-8: {problem}.") from problem
    return _object(fields)


def _object(fields: object) -> JsonObject:
    if not isinstance(fields, dict):
        raise InvalidInput("The body is not a JSON object.")
    return fields


def dumped(fields: JsonObject) -> bytes:
    """The object's bytes for the engine."""
    try:
        return orjson.dumps(fields)
    except TypeError:  # deep, or with an integer of more than 64 bits
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def invalid(problem: ValidationError) -> InvalidInput:
    """The first thing that is wrong, and `param`, which names where."""
    first = problem.errors(include_url=False, include_input=False)[0]
    param = ".".join(str(part) for part in first["loc"] if part not in MEMBERS)
    message = first["msg"].removeprefix("Value error, ")
    return InvalidInput(f"Invalid '{param}': {message}.", param=param)
