"""Asks the gateway with LangChain's client."""

import openai
from langchain_openai import ChatOpenAI, OpenAI  # type: ignore[import-not-found]

from tests.clients.said import (
    API_KEY,
    BASE_URL,
    COMPLETION_TOKENS,
    PARAMETERS,
    POOR_KEY,
    PROMPT_TOKENS,
    QUESTION,
    TOOL,
    WORDS,
    Check,
    main,
    raises,
)

SCHEMA = {"title": "Structured", "description": "An answer.", **PARAMETERS}


def model(key: str = API_KEY, name: str = "med", **more: object) -> ChatOpenAI:
    return ChatOpenAI(base_url=BASE_URL, api_key=key, model=name, max_retries=0, timeout=20, **more)


def plain() -> None:
    assert model().invoke(QUESTION).content == WORDS


def streamed() -> None:
    assert "".join(chunk.content for chunk in model().stream(QUESTION)) == WORDS


def usage() -> None:
    counts = model().invoke(QUESTION).usage_metadata
    assert (counts["input_tokens"], counts["output_tokens"]) == (PROMPT_TOKENS, COMPLETION_TOKENS)
    chunks = list(model(stream_usage=True).stream(QUESTION))
    totals = [chunk.usage_metadata["total_tokens"] for chunk in chunks if chunk.usage_metadata]
    assert sum(totals) == PROMPT_TOKENS + COMPLETION_TOKENS


def tools() -> None:
    (call,) = model().bind_tools([TOOL]).invoke(QUESTION).tool_calls
    assert (call["name"], call["args"]) == ("look_up", {"answer": 42})


def tools_streamed() -> None:
    first, *rest = model().bind_tools([TOOL]).stream(QUESTION)
    for chunk in rest:
        first += chunk
    (call,) = first.tool_calls
    assert (call["name"], call["args"]) == ("look_up", {"answer": 42})


def json_schema() -> None:
    structured = model().with_structured_output(SCHEMA, method="json_schema", strict=True)
    assert structured.invoke(QUESTION) == {"answer": 42}


def unknown_key() -> None:
    raises(openai.AuthenticationError, lambda: model("byl_wrong").invoke(QUESTION))


def unknown_model() -> None:
    problem = raises(openai.NotFoundError, lambda: model(name="nobody").invoke(QUESTION))
    assert problem.code == "model_not_found"


def bad_value() -> None:
    problem = raises(openai.BadRequestError, lambda: model(n=99).invoke(QUESTION))
    assert problem.param == "n"


def no_money() -> None:
    problem = raises(openai.RateLimitError, lambda: model(POOR_KEY).invoke(QUESTION))
    assert problem.code == "insufficient_quota"


async def plain_async() -> None:
    assert (await model().ainvoke(QUESTION)).content == WORDS


async def streamed_async() -> None:
    assert "".join([chunk.content async for chunk in model().astream(QUESTION)]) == WORDS


def responses() -> None:
    answer = model(use_responses_api=True).invoke(QUESTION)
    assert answer.content[0]["text"] == WORDS


def completions() -> None:
    """This one always sends a list of prompts."""
    text = OpenAI(base_url=BASE_URL, api_key=API_KEY, model="med", max_retries=0, timeout=20)
    assert text.invoke(QUESTION) == WORDS
    assert "".join(text.stream(QUESTION)) == WORDS


CHECKS: list[Check] = [
    plain, streamed, usage, tools, tools_streamed, json_schema, unknown_key, unknown_model,
    bad_value, no_money, plain_async, streamed_async, responses,
    completions,
]  # fmt: skip

main({check.__name__: check for check in CHECKS})
