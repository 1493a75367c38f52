"""What the gateway writes itself is what OpenAI's own types say, with no required field missing.

OpenAI's client builds its answers unchecked: a field that is missing is found by whoever reads it.
"""

import json
import typing
from typing import Any

import pytest
from openai.types import Model
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses import response_create_params as asked
from pydantic import TypeAdapter

from gateway.responses.asking import REFUSED, TRANSLATED
from tests.gateway.conftest import CHAT, House
from tests.gateway.test_responses import ASKED, CALLS, TOOL

pytestmark = pytest.mark.anyio
EVENTS: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
# Read by the gateway of every question, or the same in a chat, or hints that ask for nothing.
KNOWN = {"model", "stream", "temperature", "top_p", "parallel_tool_calls", "user",
         "safety_identifier", "prompt_cache_key", "prompt_cache_options",
         "prompt_cache_retention"}  # fmt: skip


def events_of(body: bytes) -> list[dict[str, Any]]:
    lines = [line for line in body.splitlines() if line.startswith(b"data: {")]
    return [json.loads(line.removeprefix(b"data: ")) for line in lines]


@pytest.mark.parametrize("finish_reason", ["stop", "length"])
async def test_a_response_is_openais_response(house: House, finish_reason: str) -> None:
    house.engine.calls, house.engine.choices = CALLS, [[101]]
    house.engine.finish_reason = finish_reason
    body = {**ASKED, "tools": [TOOL], "metadata": {"a": "b"}, "max_output_tokens": 8}
    Response.model_validate((await house.ask(body, path="/v1/responses")).fields)
    streamed = await house.ask({**body, "stream": True}, path="/v1/responses")
    assert len([EVENTS.validate_python(event) for event in events_of(streamed.body)]) > 10


async def test_a_response_that_breaks_ends_with_openais_error_event(house: House) -> None:
    house.engine.stop_after = 3
    streamed = await house.ask({**ASKED, "stream": True}, path="/v1/responses")
    for event in events_of(streamed.body):
        EVENTS.validate_python(event)


async def test_models_are_openais(house: House) -> None:
    for model in (await house.get("/v1/models")).fields["data"]:
        Model.model_validate(model)


async def test_the_chunk_that_carries_an_attribution_is_openais(house: House) -> None:
    body = {**CHAT, "stream": True, "byline": {"attribution": "inline"}}
    added = [each for each in events_of((await house.ask(body)).body) if "byline" in each]
    assert [ChatCompletionChunk.model_validate(each).choices for each in added] == [[]]


def test_every_field_of_openais_responses_is_decided() -> None:
    """None is handed to a chat that has never heard of it, and would drop it in silence."""
    fields = typing.get_type_hints(asked.ResponseCreateParamsStreaming).keys()
    assert fields <= KNOWN | REFUSED.keys() | set(TRANSLATED)
