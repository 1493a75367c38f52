"""Request bodies that cross HTTP: what is checked, what is refused, and what the engine is sent.

Only what decides the charge, the adapter or the engine's safety is looked at; everything else that
a client sends passes on as it is, and the engine judges it.
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from byline.errors import InvalidInput
from byline.limits import CHOICES_MAX, TEMPLATE_TOKENS_PER_MESSAGE, TEMPLATE_TOKENS_PER_PROMPT

JsonObject: TypeAlias = dict[str, Any]

MODEL_NAME_CHARACTERS_MAX = 200
TOKENS_MAX = 2**31 - 1

# Fields that are refused unless null or false, each with its why.
REFUSED = {
    "best_of": "unseen choices would be generated and not charged",
    "use_beam_search": "a beam's answer has no token ids of its own to attribute",
    "echo": "an answer is attributed by the tokens it generates, not by its prompt",
    "prompt_logprobs": "computing them can exhaust the engine's memory",
    "prompt_embeds": "a prompt without token ids can't be attributed",
    "chat_template": "a client's own template can make a prompt of any length",
}
# Fields that are the gateway's to set, or nobody's: a client's values are dropped.
STRIPPED = (
    "priority",
    "request_id",
    "cache_salt",
    "vllm_xargs",
    "kv_transfer_params",
    "ec_transfer_params",
    "stream_options",
    "return_token_ids",
)


class Endpoint(StrEnum):
    """The two questions an application may ask, by path; the engine's paths are the same."""

    CHAT = "/v1/chat/completions"
    COMPLETION = "/v1/completions"


class StreamOptions(BaseModel):
    """`stream_options`; anything but `include_usage` is dropped."""

    model_config = ConfigDict(strict=True)
    include_usage: bool | None = None


class Asked(BaseModel):
    """What both bodies have in common."""

    model_config = ConfigDict(strict=True)
    model: str = Field(min_length=1, max_length=MODEL_NAME_CHARACTERS_MAX)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=CHOICES_MAX)
    max_tokens: int | None = Field(default=None, ge=1, le=TOKENS_MAX)

    def completion_tokens_max(self) -> int | None:
        """The most tokens one choice may have, as far as the client says."""
        return self.max_tokens

    def route_text(self) -> str | None:
        """The text that `auto` is routed by, if there is one."""
        raise NotImplementedError

    def template_tokens_max(self) -> int:
        """The most tokens a chat template adds around what the client sent."""
        return TEMPLATE_TOKENS_PER_PROMPT


class ChatMessage(BaseModel):
    """One message; the content is text, or a list of parts."""

    model_config = ConfigDict(strict=True)
    role: str
    content: str | list[JsonObject] | None = None

    def text(self) -> str:
        """The message's text; parts that are none (images) are left out."""
        if isinstance(self.content, list):
            texts = (part.get("text") for part in self.content)
            return "\n".join(text for text in texts if isinstance(text, str))
        return self.content or ""


class ChatBody(Asked):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=TOKENS_MAX)

    def completion_tokens_max(self) -> int | None:
        """The larger of the two names' values: which one the engine obeys is its business."""
        given = [value for value in (self.max_tokens, self.max_completion_tokens) if value]
        return max(given, default=None)

    def route_text(self) -> str | None:
        """The last message of the user."""
        users = [message for message in self.messages if message.role == "user"]
        return users[-1].text() if users else None

    def template_tokens_max(self) -> int:
        """One allowance for the prompt and one for each message."""
        return TEMPLATE_TOKENS_PER_PROMPT + TEMPLATE_TOKENS_PER_MESSAGE * len(self.messages)


class CompletionBody(Asked):
    """POST /v1/completions: one prompt, as text or as token ids."""

    prompt: str | list[int]

    @field_validator("prompt", mode="before")
    @classmethod
    def one_prompt(cls, value: object) -> object:
        """Refuse lists of prompts, and ids that are none."""
        if isinstance(value, str):
            return value
        if isinstance(value, list) and value and all(type(item) is int for item in value):
            if all(0 <= item <= TOKENS_MAX for item in value):
                return value
            raise ValueError("a token id is not negative")
        raise ValueError("one prompt a request, as text or as a list of token ids")

    def route_text(self) -> str | None:
        """The prompt, where it is text."""
        return self.prompt if isinstance(self.prompt, str) else None


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
    prompt_tokens_max: int
    route_text: str | None


def read_question(endpoint: Endpoint, raw: bytes) -> Question:
    """Check a request body. Raises InvalidInput that names what is wrong."""
    fields = _read_object(raw)
    _refuse(fields)
    try:
        body = BODIES[endpoint].model_validate(fields)
    except ValidationError as problem:
        _raise_invalid(problem)
    if body.stream_options is not None and not body.stream:
        raise InvalidInput(
            "'stream_options' is for streams: set 'stream' to true.", param="stream_options"
        )
    return Question(
        endpoint=endpoint,
        fields={name: value for name, value in fields.items() if name not in STRIPPED},
        model=body.model,
        stream=bool(body.stream),
        shows_usage=bool(body.stream_options and body.stream_options.include_usage),
        choices=body.n or 1,
        completion_tokens_max=body.completion_tokens_max(),
        # Each token of a byte-level vocabulary has a byte at least, and no JSON is shorter than
        # the text in it: so the body's length bounds messages, tools and token ids alike.
        prompt_tokens_max=len(raw) + body.template_tokens_max(),
        route_text=body.route_text(),
    )


def engine_body(question: Question, model: str) -> bytes:
    """What the engine is sent: the client's fields, our model name, token ids and usage asked."""
    fields: JsonObject = {**question.fields, "model": model, "return_token_ids": True}
    if question.stream:
        fields["stream_options"] = {"include_usage": True}
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def _read_object(raw: bytes) -> JsonObject:
    try:
        fields = json.loads(raw.decode(), parse_constant=_refuse_constant)
        # A lone surrogate is valid JSON and no text: it would fail somewhere deeper.
        json.dumps(fields, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as problem:
        raise InvalidInput(f"The body is not valid JSON in UTF-8: {problem}.") from problem
    if not isinstance(fields, dict):
        raise InvalidInput("The body is not a JSON object.")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse(fields: JsonObject) -> None:
    for name, why in REFUSED.items():
        value = fields.get(name)
        if value is None or value is False or (name == "best_of" and value == 1):
            continue
        raise InvalidInput(f"'{name}' is not supported: {why}.", param=name)


def _raise_invalid(problem: ValidationError) -> NoReturn:
    first = problem.errors(include_url=False, include_input=False)[0]
    # A union reports one error a member, with the member's type in the place: leave that out.
    place = [str(part) for part in first["loc"] if part not in ("str", "list[dict[str,any]]")]
    param = ".".join(place)
    message = first["msg"].removeprefix("Value error, ")
    raise InvalidInput(f"Invalid '{param}': {message}.", param=param) from problem
