"""One checked question: what is held for it, what answers it, and what the engine is sent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import ValidationError

from byline.errors import InvalidInput
from gateway.wire.bodies import Asked, ChatBody, CompletionBody
from gateway.wire.forbidden import ONE_IS_NONE, REFUSED, STRIPPED
from gateway.wire.json_objects import JsonObject, dumped, invalid, read_object


class Endpoint(StrEnum):
    """The two questions the engine is asked, by path; ours are the same."""

    CHAT = "/v1/chat/completions"
    COMPLETION = "/v1/completions"


BODIES: dict[Endpoint, type[Asked]] = {
    Endpoint.CHAT: ChatBody,
    Endpoint.COMPLETION: CompletionBody,
}


@dataclass(frozen=True, slots=True)
class Question:
    """One checked request body."""

    endpoint: Endpoint
    fields: JsonObject  # as the client sent them, less what is stripped
    model: str
    stream: bool
    shows_usage: bool  # the client asked for the usage chunk of its stream
    choices: int
    completion_tokens_max: int | None  # of one choice
    prompt_tokens_max: int  # may be far above any context
    is_text: bool  # the prompt is made of texts, or of token ids, and of nothing else
    route_text: str | None
    inline: bool = False  # the answer waits for its attribution and carries it
    written_as: Mapping[str, str] = field(default_factory=dict)  # fields that had another name

    def written(self, name: str | None) -> str | None:
        """A field's name as the client wrote it."""
        return name if name is None else self.written_as.get(name, name)


def read_question(endpoint: Endpoint, raw: bytes) -> Question:
    """Check a request body. Raises InvalidInput that names what is wrong."""
    return question_of(endpoint, read_object(raw), len(raw))


def question_of(endpoint: Endpoint, fields: JsonObject, raw_bytes: int) -> Question:
    """Check a body's fields; `raw_bytes` is how long it was when it came."""
    _refuse(fields)
    try:
        body = BODIES[endpoint].model_validate(fields)
    except ValidationError as problem:
        raise invalid(problem) from problem
    if body.stream_options is not None and not body.stream:
        raise InvalidInput(
            "'stream_options' is for streams: set 'stream' to true.", param="stream_options"
        )
    return Question(
        endpoint=endpoint,
        fields={name: fields[name] for name in fields if name not in STRIPPED} | body.sent(),
        model=body.model,
        stream=bool(body.stream),
        shows_usage=bool(body.stream_options and body.stream_options.include_usage),
        choices=body.n or 1,
        completion_tokens_max=body.completion_tokens_max(),
        prompt_tokens_max=body.prompt_tokens_max(raw_bytes),
        is_text=body.is_text,
        route_text=body.route_text(),
        inline=bool(body.byline and body.byline.attribution),
    )


def engine_body(question: Question, model: str, *, cache_salt: str) -> bytes:
    """What the engine is sent: the client's fields and ours, which a client can't set."""
    fields: JsonObject = {
        **question.fields,
        "model": model,
        "return_token_ids": True,
        "cache_salt": cache_salt,
    }
    if question.stream:
        fields["stream_options"] = {"include_usage": True}
    return dumped(fields)


def _refuse(fields: JsonObject) -> None:
    for name, why in REFUSED.items():
        value = fields.get(name)
        if value is None or value is False or (name in ONE_IS_NONE and value == 1):
            continue
        raise InvalidInput(f"'{name}' is not supported: {why}.", param=name)
