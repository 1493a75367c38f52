"""What an engine's answer says of itself: token ids of each choice, and usage.

Read once, when the answer is complete or has ended early: never chunk by chunk while it passes.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeGuard

import msgspec
import orjson

from byline.errors import EngineBroke
from byline.money import largest_remainder
from byline.records import Usage, UsageSource
from gateway.wire import JsonObject

DONE = b"[DONE]"
NUMBER_MAX = 2**31 - 1  # of a token's id and of a count of tokens: no engine has larger ones


TokenId = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]


class _Choice(msgspec.Struct, gc=False):
    """What is read of one choice; -1 is the index of what is none."""

    index: int = 0
    prompt_token_ids: Sequence[TokenId] | None = None
    token_ids: Sequence[TokenId] | None = None


class _Counts(msgspec.Struct, gc=False):
    prompt_tokens: TokenId
    completion_tokens: TokenId | None = None


class _Event(msgspec.Struct, gc=False):
    """What is read of an answer, or of one event of a stream; the rest is passed over."""

    choices: Sequence[_Choice] | None = None
    prompt_token_ids: Sequence[TokenId] | None = None
    usage: _Counts | None = None


# A third of what it takes to make objects of all that an event says.
EVENTS = msgspec.json.Decoder(_Event)


@dataclass(frozen=True, slots=True)
class Answer:
    """Token ids as the engine saw and made them; `usage` is its own count, if it came."""

    prompt: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]
    usage: tuple[int, int] | None  # prompt tokens, completion tokens of all choices

    @property
    def mismatched(self) -> bool:
        """True when the engine counts other tokens than it sent."""
        counted = (len(self.prompt), sum(len(choice) for choice in self.choices))
        return self.usage is not None and self.usage != counted


@dataclass(frozen=True, slots=True)
class Taped:
    """What came of a stream that has ended, before it is read."""

    events: bytes
    choices: int

    def read(self) -> Answer:
        """See `read_stream`."""
        return read_stream(self.events, choices=self.choices)


def read_plain(body: bytes, *, choices: int, inference: str) -> Answer:
    """An answer that came whole. Raises EngineBroke if it is none: nothing of it was shown yet."""
    try:
        event = msgspec.convert(_object(body), _Event)
    except msgspec.ValidationError:
        event = _Event()
    if not event.choices or event.usage is None:
        raise EngineBroke(f"The engine's answer to {inference} can't be read.")
    answer = _read([event], choices)
    return Answer(answer.prompt, answer.choices, _counted(event.usage))


def read_stream(events: bytes, *, choices: int) -> Answer:
    """An answer that came as whole server-sent events, of which the last may be missing.

    What can't be read is left out and never raises: the rest was served, and is charged.
    """
    return _read(_events(_data_in(events)), choices)


def objects_in(events: bytes) -> Iterable[JsonObject]:
    """The JSON objects of whole server-sent events; what can't be read is left out."""
    return (fields for data in _data_in(events) if (fields := _object(data)) is not None)


def _data_in(events: bytes) -> list[bytes]:
    lines = [line[5:].strip() for line in events.splitlines() if line.startswith(b"data:")]
    return [data for data in lines if data != DONE]


def _events(datas: list[bytes]) -> list[_Event]:
    """What can be read of each; all at once where nothing in them is odd."""
    lines = b"\n".join(datas)
    # Between a brace that closes and one that opens no value goes on: so each has one at least.
    are_objects = lines.startswith(b"{") and lines.endswith(b"}")
    if are_objects and lines.count(b"}\n{") == len(datas) - 1:
        try:
            events = EVENTS.decode_lines(lines)
        except (ValueError, RecursionError):
            events = []
        if len(events) == len(datas):
            return events
    return [event for data in datas if (event := _event(data)) is not None]


def _event(data: bytes) -> _Event | None:
    """One event; None: nothing in it can be read."""
    try:
        return EVENTS.decode(data)
    except (ValueError, RecursionError):  # something in it is odd: what can be read of it counts
        fields = _object(data)
        return None if fields is None else _leniently(fields)


def _leniently(fields: JsonObject) -> _Event:
    """What can be read of it; the rest is left out."""
    listed = fields.get("choices")
    return _Event(
        [_choice(each) for each in listed] if isinstance(listed, list) else None,
        _ids(fields.get("prompt_token_ids")),
        _counts(fields.get("usage")),
    )


def _choice(fields: object) -> _Choice:
    if not isinstance(fields, dict):
        return _Choice(-1)
    index = fields.get("index", 0)
    return _Choice(
        index if type(index) is int else -1,
        _ids(fields.get("prompt_token_ids")),
        _ids(fields.get("token_ids")),
    )


def _object(data: bytes) -> JsonObject | None:
    """A JSON object, or None: it is something else, or can't be read."""
    try:
        fields = orjson.loads(data)
    except ValueError:
        fields = _slowly(data)
    return fields if isinstance(fields, dict) else None


def _slowly(data: bytes) -> object:
    """What only Python's own reader takes: half a surrogate pair, NaN, UTF-16."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _read(events: Iterable[_Event], choices: int) -> Answer:
    prompt: Sequence[int] = ()
    tokens: list[list[int]] = [[] for _ in range(choices)]
    usage: _Counts | None = None
    for event in events:
        prompt = prompt or event.prompt_token_ids or ()
        for choice in event.choices or ():
            # Chat answers carry the prompt's ids at the top, completions in each choice.
            prompt = prompt or choice.prompt_token_ids or ()
            if 0 <= choice.index < choices and choice.token_ids:
                tokens[choice.index].extend(choice.token_ids)
        # Beside a choice stands that choice's usage alone; the sum stands where none is.
        if choices == 1 or not event.choices:
            usage = event.usage or usage
    counted = None if usage is None else _counted(usage)
    return Answer(tuple(prompt), tuple(tuple(choice) for choice in tokens), counted)


def _counts(usage: object) -> _Counts | None:
    """The engine's count; None: there is none here, or none that can be."""
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens") or 0
    return _Counts(prompt, completion) if _is_number(prompt) and _is_number(completion) else None


def _counted(usage: _Counts) -> tuple[int, int]:
    """Prompt and completion tokens."""
    return usage.prompt_tokens, usage.completion_tokens or 0


def _ids(value: object) -> Sequence[int]:
    """Token ids; none where they can't be read."""
    return value if _are_ids(value) else ()


def _are_ids(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(_is_number(item) for item in value)


def _is_number(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= NUMBER_MAX


def token_ids(value: object) -> tuple[int, ...]:
    """Token ids from the engine. Raises ValueError for anything else."""
    if not _are_ids(value):
        raise ValueError("these are no token ids")
    return tuple(value)


def usage_of(answer: Answer, inference: str) -> Usage:
    """What is charged: the engine's count where it came, else the token ids that came.

    The engine counts all choices together. Where that differs from the ids, each choice gets its
    part of the engine's count by the ids that came for it.
    """
    counted = tuple(len(choice) for choice in answer.choices)
    if answer.usage is None:
        source = UsageSource.COUNTED if any(counted) else UsageSource.PROMPT_ONLY
        return Usage(len(answer.prompt), counted, source)
    prompt, completion = answer.usage
    if completion != sum(counted):
        weights = {str(index): count for index, count in enumerate(counted)}
        if not any(counted):
            weights = dict.fromkeys(weights, 1)
        parts = largest_remainder(completion, weights, salt=inference)
        counted = tuple(parts[str(index)] for index in range(len(counted)))
    return Usage(prompt, counted, UsageSource.ENGINE)
