"""What an engine's answer says of itself: token ids of each choice, and usage.

Read once, when the answer is complete or has ended early: never chunk by chunk while it passes.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from byline.errors import EngineBroke
from byline.money import largest_remainder
from byline.records import Usage, UsageSource
from gateway.wire import JsonObject

DONE = b"[DONE]"


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
    """An answer that came whole. Raises EngineBroke if it is none."""
    try:
        fields = json.loads(body)
        answer = _read([fields], choices)
        usage = _counts(fields["usage"])
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        raise EngineBroke(f"The engine's answer to {inference} can't be read.") from problem
    return Answer(answer.prompt, answer.choices, usage)


def read_stream(events: bytes, *, choices: int) -> Answer:
    """An answer that came as whole server-sent events, of which the last may be missing.

    What can't be read is left out: the rest was served, and is charged.
    """
    return _read(objects_in(events), choices)


def objects_in(events: bytes) -> Iterable[JsonObject]:
    """The JSON objects of whole server-sent events; what can't be read is left out."""
    for line in events.splitlines():
        if line.startswith(b"data:") and (data := line[5:].strip()) != DONE:
            try:
                fields = json.loads(data)
            except ValueError:
                continue
            if isinstance(fields, dict):
                yield fields


def _read(objects: Iterable[JsonObject], choices: int) -> Answer:
    prompt: Sequence[int] = ()
    tokens: list[list[int]] = [[] for _ in range(choices)]
    usage: tuple[int, int] | None = None
    for fields in objects:
        prompt = prompt or fields.get("prompt_token_ids") or ()
        for choice in fields.get("choices", ()):
            # Chat answers carry the prompt's ids at the top, completions in each choice.
            prompt = prompt or choice.get("prompt_token_ids") or ()
            index = choice.get("index", 0)
            if 0 <= index < choices:
                tokens[index].extend(choice.get("token_ids") or ())
        counts = fields.get("usage")
        # Beside a choice stands that choice's usage alone; the sum stands where none is.
        if counts and (choices == 1 or not fields.get("choices")):
            usage = _counts(counts)
    return Answer(tuple(prompt), tuple(tuple(choice) for choice in tokens), usage)


def _counts(usage: JsonObject) -> tuple[int, int]:
    return int(usage["prompt_tokens"]), int(usage.get("completion_tokens") or 0)


def token_ids(value: object) -> tuple[int, ...]:
    """Token ids from the engine. Raises ValueError for anything else."""
    if not isinstance(value, list) or not all(type(item) is int for item in value):
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
