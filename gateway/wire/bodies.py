"""The fields of a question that decide its charge, its adapter or the engine's safety.

Everything else that a client sends passes on as it is, and the engine judges it.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from byline.limits import CHOICES_MAX, TEMPLATE_TOKENS_PER_MESSAGE, TEMPLATE_TOKENS_PER_PROMPT
from gateway.wire.json_objects import JsonObject

MODEL_NAME_CHARACTERS_MAX = 200
TOKENS_MAX = 2**31 - 1


class StreamOptions(BaseModel):
    """`stream_options`; anything but `include_usage` is dropped."""

    model_config = ConfigDict(strict=True)
    include_usage: bool | None = None


class BylineOptions(BaseModel):
    """`byline`: what is asked of Byline itself. The engine never sees it."""

    model_config = ConfigDict(strict=True, extra="forbid")
    attribution: Literal["inline"] | None = None


class Asked(BaseModel):
    """What both bodies have in common."""

    model_config = ConfigDict(strict=True)
    model: str = Field(min_length=1, max_length=MODEL_NAME_CHARACTERS_MAX)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=CHOICES_MAX)
    max_tokens: int | None = Field(default=None, ge=1, le=TOKENS_MAX)
    byline: BylineOptions | None = None

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
