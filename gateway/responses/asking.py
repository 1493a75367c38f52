"""A response's body as a chat: each field is translated, passed on, or refused by name."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from byline.errors import InvalidInput
from gateway.responses.conversation import messages_of
from gateway.wire import Endpoint, JsonObject, Question, invalid, question_of, read_object
from gateway.wire.bodies import TOKENS_MAX

# Refused unless null or one of the values that ask for nothing; each with its why.
REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "store": ((False,), "no response is kept; say false, or leave it out"),
    "background": ((False,), "an answer is given in the reply to its request"),
    "background_options": ((), "an answer is given in the reply to its request"),
    "previous_response_id": ((), "no response is kept: send the whole conversation as 'input'"),
    "conversation": ((), "no conversation is kept: send it as 'input'"),
    "context_management": ((), "a conversation that is too long is refused, not shortened"),
    "prompt": ((), "no prompt templates are kept"),
    "include": (([],), "nothing more can be included"),
    "image": ((), "an answer is text"),
    "max_tool_calls": ((), "Byline runs no tools itself"),
    "moderation": ((), "Byline moderates nothing"),
    "access_programs": ((), "there are none"),
    "service_tier": (("auto", "default"), "there is one tier"),
    "stream_options": (({}, {"include_obfuscation": False}), "streams have no options here"),
    "top_logprobs": ((0,), "log-probabilities are given by /v1/chat/completions"),
    "truncation": (("disabled",), "a conversation that is too long is refused, not cut"),
    # Chats have these; here they would mean something else than what is charged.
    "messages": ((), "say 'input'"),
    "n": ((), "a response has one choice"),
    "max_tokens": ((), "say 'max_output_tokens'"),
    "max_completion_tokens": ((), "say 'max_output_tokens'"),
    "response_format": ((), "say 'text.format'"),
    "logprobs": ((), "log-probabilities are given by /v1/chat/completions"),
    "functions": ((), "say 'tools'"),
    "function_call": ((), "say 'tool_choice'"),
    "reasoning_effort": ((), "say 'reasoning.effort'"),
}
TRANSLATED = ("input", "instructions", "max_output_tokens", "text", "tools", "tool_choice",
              "reasoning", "metadata")  # fmt: skip
WRITTEN_AS = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
}


class Format(BaseModel):
    """`text.format`."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class Text(BaseModel):
    """`text`."""

    model_config = ConfigDict(strict=True, extra="forbid")
    format: Format | None = None
    verbosity: None = None


class Tool(BaseModel):
    """One tool: a function that the client runs itself."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedTool(BaseModel):
    """A tool that must be called."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["function"]
    name: str


class Reasoning(BaseModel):
    """`reasoning`."""

    model_config = ConfigDict(strict=True, extra="forbid")
    effort: str | None = None
    summary: None = None


class ResponseBody(BaseModel):
    """What is looked at; all other fields are the chat's."""

    model_config = ConfigDict(strict=True)
    input: str | list[JsonObject]
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1, le=TOKENS_MAX)
    metadata: dict[str, str] | None = None
    reasoning: Reasoning | None = None
    text: Text | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    tools: list[Tool] | None = None


@dataclass(frozen=True, slots=True)
class ResponseAsked:
    """A question, and what its response repeats of it."""

    question: Question
    echo: JsonObject


def read_response(raw: bytes) -> ResponseAsked:
    """Check and translate a body. Raises InvalidInput that names what is wrong."""
    fields = read_object(raw)
    _refuse(fields)
    try:
        body = ResponseBody.model_validate(fields)
    except ValidationError as problem:
        raise invalid(problem) from problem
    chat = {name: value for name, value in fields.items() if name not in TRANSLATED}
    chat = {name: value for name, value in chat.items() if name not in REFUSED}
    chat |= _translated(body)
    question = replace(question_of(Endpoint.CHAT, chat, len(raw)), written_as=WRITTEN_AS)
    return ResponseAsked(question, _echo(fields, body))


def _refuse(fields: JsonObject) -> None:
    for name, (harmless, why) in REFUSED.items():
        value = fields.get(name)
        # By type too: 0 is not False.
        known = any(type(value) is type(item) and value == item for item in harmless)
        if value is not None and not known:
            raise InvalidInput(f"'{name}' is not supported here: {why}.", param=name)


def _translated(body: ResponseBody) -> JsonObject:
    chat: JsonObject = {"messages": messages_of(body.input, body.instructions)}
    if body.max_output_tokens is not None:
        chat["max_completion_tokens"] = body.max_output_tokens
    if body.reasoning is not None and body.reasoning.effort is not None:
        chat["reasoning_effort"] = body.reasoning.effort
    if body.tools:
        chat["tools"] = [_tool(tool) for tool in body.tools]
    if isinstance(body.tool_choice, NamedTool):
        chat["tool_choice"] = {"type": "function", "function": {"name": body.tool_choice.name}}
    elif body.tool_choice is not None and (body.tools or body.tool_choice == "required"):
        chat["tool_choice"] = body.tool_choice  # without tools the others ask for nothing
    if body.text is not None and body.text.format is not None:
        chat |= _response_format(body.text.format)
    return chat


def _tool(tool: Tool) -> JsonObject:
    function = tool.model_dump(exclude_none=True, exclude={"type"})
    return {"type": "function", "function": function}


def _response_format(wanted: Format) -> JsonObject:
    if wanted.type == "text":
        return {}
    if wanted.type == "json_object":
        return {"response_format": {"type": "json_object"}}
    if wanted.schema_ is None or wanted.name is None:
        raise InvalidInput("'text.format' needs a name and a schema.", param="text.format")
    schema = wanted.model_dump(by_alias=True, exclude_none=True, exclude={"type"})
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _echo(fields: JsonObject, body: ResponseBody) -> JsonObject:
    """What OpenAI's response object repeats of its request."""
    return {
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "parallel_tool_calls": fields.get("parallel_tool_calls") is not False,
        "previous_response_id": None,
        "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        "store": False,
        "background": False,
        "temperature": fields.get("temperature"),
        "text": fields.get("text") or {"format": {"type": "text"}},
        "tool_choice": fields.get("tool_choice") or "auto",
        "tools": fields.get("tools") or [],
        "top_p": fields.get("top_p"),
        "truncation": "disabled",
        "user": fields.get("user"),
    }
