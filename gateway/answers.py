"""What an engine's answer says of itself: token ids of each choice, and usage.

Read once, when the answer is complete or has ended early: never chunk by chunk while it passes.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import orjson

from byline.errors import EngineBroke
from byline.money import largest_remainder
from byline.records import Usage, UsageSource
from gateway.wire import JsonObject

DONE = b"[DONE]"
NUMBER_MAX = 2**31 - 1  # of a token's id and of a count of tokens: no engine has larger ones


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


def read_plain(body: bytes, *, choices: int, inference: str) -> Answer:
    """An answer that came whole. Raises EngineBroke if it is none: nothing of it was shown yet."""
    fields = _object(body)
    if fields is not None and _is_whole(fields):
        answer = _read([fields], choices)
        usage = _counts(fields.get("usage"))
        if usage is not None:
            return Answer(answer.prompt, answer.choices, usage)
    raise EngineBroke(f"The engine's answer to {inference} can't be read.")


def read_stream(events: bytes, *, choices: int) -> Answer:
    """An answer that came as whole server-sent events, of which the last may be missing.

    What can't be read is left out and never raises: the rest was served, and is charged.
    """
    return _read(objects_in(events), choices)


def objects_in(events: bytes) -> Iterable[JsonObject]:
    """The JSON objects of whole server-sent events; what can't be read is left out."""
    for line in events.splitlines():
        if line.startswith(b"data:") and (data := line[5:].strip()) != DONE:
            fields = _object(data)
            if fields is not None:
                yield fields


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


def _is_whole(fields: JsonObject) -> bool:
    """Whether this is an answer, with nothing in it that would have to be left out."""
    choices = fields.get("choices")
    return (
        isinstance(choices, list)
        and len(choices) > 0
        and _has_ids(fields, "prompt_token_ids")
        and all(
            isinstance(choice, dict)
            and type(choice.get("index", 0)) is int
            and _has_ids(choice, "prompt_token_ids")
            and _has_ids(choice, "token_ids")
            for choice in choices
        )
    )


def _read(objects: Iterable[JsonObject], choices: int) -> Answer:
    prompt: Sequence[int] = ()
    tokens: list[list[int]] = [[] for _ in range(choices)]
    usage: tuple[int, int] | None = None
    for fields in objects:
        prompt = prompt or _ids(fields.get("prompt_token_ids"))
        listed = fields.get("choices")
        for choice in listed if isinstance(listed, list) else ():
            if not isinstance(choice, dict):
                continue
            # Chat answers carry the prompt's ids at the top, completions in each choice.
            prompt = prompt or _ids(choice.get("prompt_token_ids"))
            index = choice.get("index", 0)
            if type(index) is int and 0 <= index < choices:
                tokens[index].extend(_ids(choice.get("token_ids")))
        # Beside a choice stands that choice's usage alone; the sum stands where none is.
        if choices == 1 or not listed:
            usage = _counts(fields.get("usage")) or usage
    return Answer(tuple(prompt), tuple(tuple(choice) for choice in tokens), usage)


def _counts(usage: object) -> tuple[int, int] | None:
    """Prompt and completion tokens; None: there is no usage here, or none that can be."""
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens") or 0
    return (prompt, completion) if _is_number(prompt) and _is_number(completion) else None


def _has_ids(fields: JsonObject, name: str) -> bool:
    given = fields.get(name)
    return given is None or _are_ids(given)


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
