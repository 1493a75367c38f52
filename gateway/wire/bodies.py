"""The fields of a question that decide its charge, its adapter or the engine's safety.

Everything else that a client sends passes on as it is, and the engine judges it.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from byline.limits import CHOICES_MAX, TEMPLATE_TOKENS_PER_MESSAGE, TEMPLATE_TOKENS_PER_PROMPT
from gateway.wire.json_objects import JsonObject

MODEL_NAME_CHARACTERS_MAX = 200
TOKENS_MAX = 2**31 - 1


class StreamOptions(BaseModel):
    """`stream_options`. Nothing is padded here, so `include_obfuscation` can only be declined."""

    model_config = ConfigDict(strict=True, extra="forbid")
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


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
    # vLLM does not refuse what is wrong with these two: it fails, as if it were its own fault.
    structured_outputs: JsonObject | None = None
    top_k: int | None = Field(default=None, ge=-TOKENS_MAX, le=TOKENS_MAX)

    def completion_tokens_max(self) -> int | None:
        """The most tokens one choice may have, as far as the client says."""
        return self.max_tokens

    def route_text(self) -> str | None:
        """The text that `auto` is routed by, if there is one."""
        raise NotImplementedError

    @property
    def is_text(self) -> bool:
        """True where the prompt is made of texts, or of token ids, and of nothing else."""
        return True

    def prompt_tokens_max(self, raw_bytes: int) -> int:
        """The most tokens that the prompt of a body so long may have.

        Each token of a byte-level vocabulary has a byte at least, and no JSON is shorter than the
        text in it: so the body's length bounds messages and token ids alike.
        """
        return raw_bytes + TEMPLATE_TOKENS_PER_PROMPT

    def sent(self) -> JsonObject:
        """What the engine is sent in the place of the client's own words."""
        return {}


class ChatMessage(BaseModel):
    """One message; the content is text, or a list of parts."""

    model_config = ConfigDict(strict=True)
    role: str
    content: str | list[JsonObject] | None = None
    tool_calls: Any = None

    @property
    def is_text(self) -> bool:
        """False where a part of it is something else, as an image."""
        if not isinstance(self.content, list):
            return True
        return all(part.get("type") == "text" for part in self.content)

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
    tools: Any = None
    documents: Any = None
    chat_template_kwargs: Any = None

    def completion_tokens_max(self) -> int | None:
        """The larger of the two names' values: which one the engine obeys is its business."""
        given = [value for value in (self.max_tokens, self.max_completion_tokens) if value]
        return max(given, default=None)

    def route_text(self) -> str | None:
        """The last message of the user."""
        users = [message for message in self.messages if message.role == "user"]
        return users[-1].text() if users else None

    @property
    def is_text(self) -> bool:
        """False where any message is more than text."""
        return all(message.is_text for message in self.messages)

    def prompt_tokens_max(self, raw_bytes: int) -> int:
        """The body's length, and an allowance for what a template puts around each message.

        Nothing but the context bounds an image, or what a template writes anew: tools and their
        calls with blanks and indents, documents, and what its own values switch on.
        """
        rewritten = self.tools or self.documents or self.chat_template_kwargs
        if rewritten or not self.is_text or any(each.tool_calls for each in self.messages):
            return TOKENS_MAX
        around = TEMPLATE_TOKENS_PER_MESSAGE * len(self.messages)
        return super().prompt_tokens_max(raw_bytes) + around


class CompletionBody(Asked):
    """POST /v1/completions: one prompt, as text or as token ids."""

    prompt: str | list[int]

    @field_validator("prompt", mode="before")
    @classmethod
    def one_prompt(cls, value: object) -> object:
        """The one prompt, also out of a list of one. Refuses several, and ids that are none."""
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
            (value,) = value
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

    def sent(self) -> JsonObject:
        """The prompt, out of its list."""
        return {"prompt": self.prompt}
