"""Asks the gateway with LlamaIndex's client for servers that speak OpenAI's API."""

import openai
from llama_index.core.base.llms.types import ChatMessage  # type: ignore[import-not-found]
from llama_index.core.tools import FunctionTool  # type: ignore[import-not-found]
from llama_index.llms.openai_like import OpenAILike  # type: ignore[import-not-found]
from pydantic import BaseModel

from tests.clients.said import (
    API_KEY,
    BASE_URL,
    COMPLETION_TOKENS,
    PARAMETERS,
    POOR_KEY,
    PROMPT_TOKENS,
    QUESTION,
    WORDS,
    Check,
    main,
    raises,
)

MESSAGES = [ChatMessage(role="user", content=QUESTION)]


class Structured(BaseModel):
    """What a structured answer has to be."""

    answer: int


def look_up(answer: int) -> int:
    """Looks it up."""
    return answer


TOOL = FunctionTool.from_defaults(look_up)


def model(key: str = API_KEY, name: str = "med", **more: object) -> OpenAILike:
    return OpenAILike(
        api_base=BASE_URL, api_key=key, model=name, is_chat_model=True, timeout=20.0,
        is_function_calling_model=True, max_retries=0, context_window=2048, **more,
    )  # fmt: skip


def plain() -> None:
    assert model().chat(MESSAGES).message.content == WORDS
    assert model().complete(QUESTION).text == WORDS


def streamed() -> None:
    assert "".join(chunk.delta or "" for chunk in model().stream_chat(MESSAGES)) == WORDS


def usage() -> None:
    counts = model().chat(MESSAGES).raw.usage
    assert (counts.prompt_tokens, counts.completion_tokens) == (PROMPT_TOKENS, COMPLETION_TOKENS)


def tools() -> None:
    asked = model()
    answer = asked.chat_with_tools([TOOL], user_msg=QUESTION)
    (call,) = asked.get_tool_calls_from_response(answer)
    assert (call.tool_name, call.tool_kwargs) == ("look_up", {"answer": 42})


def tools_streamed() -> None:
    asked = model()
    *_, last = asked.stream_chat_with_tools([TOOL], user_msg=QUESTION)
    (call,) = asked.get_tool_calls_from_response(last)
    assert (call.tool_name, call.tool_kwargs) == ("look_up", {"answer": 42})


def json_schema() -> None:
    schema = {"name": "Structured", "schema": PARAMETERS, "strict": True}
    wanted = {"response_format": {"type": "json_schema", "json_schema": schema}}
    text = model(additional_kwargs=wanted).chat(MESSAGES).message.content
    assert Structured.model_validate_json(text) == Structured(answer=42)


def unknown_key() -> None:
    raises(openai.AuthenticationError, lambda: model("byl_wrong").chat(MESSAGES))


def unknown_model() -> None:
    problem = raises(openai.NotFoundError, lambda: model(name="nobody").chat(MESSAGES))
    assert problem.code == "model_not_found"


def bad_value() -> None:
    problem = raises(
        openai.BadRequestError, lambda: model(additional_kwargs={"n": 99}).chat(MESSAGES)
    )
    assert problem.param == "n"


def no_money() -> None:
    problem = raises(openai.RateLimitError, lambda: model(POOR_KEY).chat(MESSAGES))
    assert problem.code == "insufficient_quota"


async def plain_async() -> None:
    assert (await model().achat(MESSAGES)).message.content == WORDS


async def streamed_async() -> None:
    stream = await model().astream_chat(MESSAGES)
    assert "".join([chunk.delta or "" async for chunk in stream]) == WORDS


CHECKS: list[Check] = [
    plain, streamed, usage, tools, tools_streamed, json_schema, unknown_key, unknown_model,
    bad_value, no_money, plain_async, streamed_async,
]  # fmt: skip

main({check.__name__: check for check in CHECKS})
