"""Asks the gateway with the official Python client, whichever major version is there."""

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.clients.said import (
    API_KEY,
    BASE_URL,
    COMPLETION_TOKENS,
    POOR_KEY,
    PROMPT_TOKENS,
    QUESTION,
    TOOL,
    WORDS,
    Check,
    main,
    raises,
    raises_async,
)

CHAT: dict[str, object] = {"model": "med", "messages": [{"role": "user", "content": QUESTION}]}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}


class Structured(BaseModel):
    """What a structured answer has to be."""

    answer: int


def client(key: str = API_KEY, retries: int = 0) -> OpenAI:
    return OpenAI(base_url=BASE_URL, api_key=key, max_retries=retries, timeout=20.0)


def async_client(key: str = API_KEY) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=BASE_URL, api_key=key, max_retries=0, timeout=20.0)


def plain() -> None:
    raw = client().chat.completions.with_raw_response.create(**CHAT)  # type: ignore[call-overload]
    assert raw.parse().choices[0].message.content == WORDS
    assert raw.headers["x-byline-adapter"].startswith("med@")
    assert raw.headers["x-request-id"]


def streamed() -> None:
    chunks = list(client().chat.completions.create(**CHAT, stream=True))  # type: ignore[call-overload]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == WORDS
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)


def usage() -> None:
    counts = client().chat.completions.create(**CHAT).usage  # type: ignore[call-overload]
    assert (counts.prompt_tokens, counts.completion_tokens) == (PROMPT_TOKENS, COMPLETION_TOKENS)
    last = list(client().chat.completions.create(**CHAT, **USAGE))[-1]  # type: ignore[call-overload]
    assert (last.usage.total_tokens, last.choices) == (PROMPT_TOKENS + COMPLETION_TOKENS, [])


def tools() -> None:
    choice = client().chat.completions.create(**CHAT, tools=[TOOL]).choices[0]  # type: ignore[call-overload]
    (call,) = choice.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("look_up", '{"answer": 42}')
    assert choice.finish_reason == "tool_calls"


def tools_streamed() -> None:
    asked = client().chat.completions.stream(**CHAT, tools=[TOOL])  # type: ignore[arg-type, list-item]
    with asked as stream:
        calls = stream.get_final_completion().choices[0].message.tool_calls
    assert calls is not None
    (call,) = calls
    assert call.function.name == "look_up"
    assert call.function.arguments == '{"answer": 42}'


def json_schema() -> None:
    answer = client().chat.completions.parse(**CHAT, response_format=Structured)  # type: ignore[arg-type]
    parsed = answer.choices[0].message.parsed
    assert parsed == Structured(answer=42)


def unknown_key() -> None:
    problem = raises(openai.AuthenticationError, client("byl_wrong").models.list)
    assert (problem.status_code, problem.code) == (401, "invalid_api_key")
    assert problem.type == "invalid_request_error"


def unknown_model() -> None:
    create = client().chat.completions.create
    problem = raises(openai.NotFoundError, lambda: create(**{**CHAT, "model": "nobody"}))  # type: ignore[call-overload]
    assert (problem.code, problem.param) == ("model_not_found", "model")


def bad_value() -> None:
    create = client().chat.completions.create
    problem = raises(openai.BadRequestError, lambda: create(**CHAT, n=99))  # type: ignore[call-overload]
    assert (problem.code, problem.param) == ("invalid_value", "n")


def no_money() -> None:
    create = client(POOR_KEY, retries=2).chat.completions.create
    problem = raises(openai.RateLimitError, lambda: create(**CHAT))  # type: ignore[call-overload]
    assert (problem.code, problem.type) == ("insufficient_quota", "insufficient_quota")


def models() -> None:
    assert [model.id for model in client().models.list()] == ["tiny", "med", "auto"]
    assert client().models.retrieve("med").owned_by == "clinic"


def completions() -> None:
    asked = client().completions
    assert asked.create(model="med", prompt=QUESTION).choices[0].text == WORDS
    chunks = list(asked.create(model="med", prompt=[1, 2], stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == WORDS


def several_choices() -> None:
    answer = client().chat.completions.create(**CHAT, n=3)  # type: ignore[call-overload]
    assert [choice.message.content for choice in answer.choices] == [WORDS] * 3


def responses() -> None:
    answer = client().responses.create(model="med", input=QUESTION)
    assert answer.output_text == WORDS
    assert answer.usage is not None
    assert answer.usage.output_tokens == COMPLETION_TOKENS


def responses_streamed() -> None:
    with client().responses.stream(model="med", input=QUESTION) as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == WORDS
    assert kinds.count("response.output_text.delta") == COMPLETION_TOKENS
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")


def embeddings() -> None:
    create = client().embeddings.create
    problem = raises(openai.BadRequestError, lambda: create(model="med", input=QUESTION))
    assert problem.param == "model"


def broken_stream() -> None:
    stream = client().chat.completions.create(  # type: ignore[call-overload]
        **CHAT, stream=True, extra_body={"stand_in": {"cut_after": 3}}
    )
    problem = raises(openai.APIError, lambda: list(stream))
    assert problem.code == "engine_broke"


async def plain_async() -> None:
    async with async_client() as asked:
        answer = await asked.chat.completions.create(**CHAT)  # type: ignore[call-overload]
    assert answer.choices[0].message.content == WORDS


async def streamed_async() -> None:
    async with async_client() as asked:
        stream = await asked.chat.completions.create(**CHAT, **USAGE)  # type: ignore[call-overload]
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert (text, chunks[-1].usage.completion_tokens) == (WORDS, COMPLETION_TOKENS)


async def tools_async() -> None:
    async with async_client() as asked:
        answer = await asked.chat.completions.create(**CHAT, tools=[TOOL])  # type: ignore[call-overload]
    assert answer.choices[0].message.tool_calls[0].function.name == "look_up"


async def errors_async() -> None:
    async with async_client("byl_wrong") as asked:
        await raises_async(openai.AuthenticationError, lambda: asked.models.retrieve("med"))
    async with async_client() as asked:
        create = asked.chat.completions.create
        await raises_async(openai.NotFoundError, lambda: create(**{**CHAT, "model": "nobody"}))  # type: ignore[call-overload]
    async with async_client(POOR_KEY) as asked:
        create = asked.chat.completions.create
        await raises_async(openai.RateLimitError, lambda: create(**CHAT))  # type: ignore[call-overload]


async def models_async() -> None:
    async with async_client() as asked:
        assert [model.id async for model in asked.models.list()] == ["tiny", "med", "auto"]


CHECKS: list[Check] = [
    plain, streamed, usage, tools, tools_streamed, json_schema, unknown_key, unknown_model,
    bad_value, no_money, models, completions, several_choices, responses, responses_streamed,
    embeddings, broken_stream, plain_async, streamed_async, tools_async, errors_async,
    models_async,
]  # fmt: skip

main({check.__name__: check for check in CHECKS})
