"""OpenAI's Responses API, by the official client: plain, streamed, with tools; refused by name."""

import asyncio
import json
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent

from byline.money import POLICY, charge_nano
from byline.records import UsageSource
from tests.gateway.conftest import MED, SHOP, Answer, House, eventually
from tests.gateway.test_openai_client import client_of

pytestmark = pytest.mark.anyio

ASKED: dict[str, Any] = {"model": "med", "input": "What helps?"}
TOOL: dict[str, Any] = {
    "type": "function", "name": "weather", "description": "Says it.", "strict": True,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}  # fmt: skip
CALLS = [
    {"id": "call_1", "name": "weather", "arguments": '{"city": "Bonn"}'},
    {"id": "call_2", "name": "weather", "arguments": '{"city": "Kiel"}'},
]


async def ask(house: House, **change: object) -> Answer:
    return await house.ask({**ASKED, **change}, path="/v1/responses")


async def test_a_plain_response(house: House) -> None:
    async with client_of(house) as client:
        raw = await client.responses.with_raw_response.create(
            model="med", input="What helps?", instructions="Be brief.", max_output_tokens=8,
            metadata={"a": "b"},
        )  # fmt: skip
    response = raw.parse()
    inference = raw.headers["x-byline-inference-id"]
    assert response.output_text == " w101 w102 w103"
    assert (response.id, response.status) == (f"resp_{inference}", "completed")
    assert (response.model, response.instructions) == (MED.version, "Be brief.")
    assert (response.metadata, response.max_output_tokens) == ({"a": "b"}, 8)
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (3, 3)
    sent = house.engine.asked[0][2]
    assert sent["messages"] == [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "What helps?"},
    ]  # fmt: skip
    assert sent["max_completion_tokens"] == 8
    assert not {"input", "instructions", "store", "metadata", "max_output_tokens"} & sent.keys()
    capture = house.ledger.captures[inference]
    assert capture.charge_nano == charge_nano(POLICY.adapter_price, 3, 3)
    assert capture.usage.source is UsageSource.ENGINE


async def streamed(house: House, **more: Any) -> list[ResponseStreamEvent]:
    async with client_of(house) as client:
        stream = await client.responses.create(**{**ASKED, **more}, stream=True)
        return [event async for event in stream]


def final(events: list[ResponseStreamEvent]) -> Response:
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    return last.response


async def test_a_streamed_response(house: House) -> None:
    events = await streamed(house)
    kinds = [event.type for event in events]
    assert kinds == [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.content_part.added", *["response.output_text.delta"] * 3,
        "response.output_text.done", "response.content_part.done", "response.output_item.done",
        "response.completed",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    response = final(events)
    assert response.output_text == text
    assert response.usage is not None
    assert response.usage.total_tokens == 6
    (capture,) = house.ledger.captures.values()
    assert capture.usage.source is UsageSource.ENGINE


async def test_the_clients_own_accumulator_follows_the_stream(house: House) -> None:
    async with client_of(house) as client, client.responses.stream(**ASKED) as stream:
        response = await stream.get_final_response()
    assert "w103" in response.output_text


async def test_functions_are_called_and_answered(house: House) -> None:
    house.engine.calls, house.engine.choices = CALLS, [[]]
    house.engine.choices = [[101]]
    async with client_of(house) as client:
        asked: dict[str, Any] = {**ASKED, "tools": [TOOL], "tool_choice": "auto"}
        first = await client.responses.create(**asked)
        calls = [item for item in first.output if item.type == "function_call"]
        assert [(call.call_id, call.arguments) for call in calls] == [
            (call["id"], call["arguments"]) for call in CALLS
        ]
        conversation: list[Any] = [
            {"role": "user", "content": "What helps?"},
            *[item.model_dump() for item in first.output],
            {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
            {"type": "function_call_output", "call_id": "call_2", "output": "sun"},
        ]
        again: dict[str, Any] = {"model": "med", "input": conversation, "tools": [TOOL]}
        await client.responses.create(**again)
    tools = house.engine.asked[0][2]["tools"]
    assert tools == [{"type": "function", "function": {k: TOOL[k] for k in TOOL if k != "type"}}]
    messages = house.engine.asked[1][2]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool"]
    assert messages[1]["content"] == " w101"
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["call_1", "call_2"]
    assert messages[3] == {"role": "tool", "tool_call_id": "call_2", "content": "sun"}


async def test_functions_are_called_in_a_stream(house: House) -> None:
    house.engine.calls, house.engine.choices = CALLS, [[101]]
    events = await streamed(house, tools=[TOOL])
    response = final(events)
    calls = [item for item in response.output if item.type == "function_call"]
    assert [(call.call_id, call.name, call.arguments) for call in calls] == [
        (call["id"], call["name"], call["arguments"]) for call in CALLS
    ]
    places = [e.output_index for e in events if e.type == "response.output_item.added"]
    assert places == [0, 1, 2]


async def test_an_answer_that_was_cut_off_is_incomplete(house: House) -> None:
    house.engine.finish_reason = "length"
    plain = (await ask(house)).fields
    assert (plain["status"], plain["incomplete_details"]) == (
        "incomplete", {"reason": "max_output_tokens"},
    )  # fmt: skip
    events = await streamed(house)
    assert events[-1].type == "response.incomplete"
    assert plain["output"][0]["status"] == "incomplete"
    (done,) = [event.item for event in events if event.type == "response.output_item.done"]
    assert (done.type, getattr(done, "status", None)) == ("message", "incomplete")


async def test_only_the_last_item_of_what_was_cut_off_is_incomplete(house: House) -> None:
    house.engine.calls, house.engine.choices = CALLS, [[101]]
    house.engine.finish_reason = "length"
    plain = (await ask(house, tools=[TOOL])).fields
    done = [
        event.item
        for event in await streamed(house, tools=[TOOL])
        if event.type == "response.output_item.done"
    ]
    expected = ["completed", "completed", "incomplete"]
    assert [item["status"] for item in plain["output"]] == expected
    assert [getattr(item, "status", None) for item in done] == expected


async def test_a_choice_of_tools_without_tools_is_the_engines_to_judge(house: House) -> None:
    await ask(house, tool_choice="required")
    await ask(house, tool_choice="auto")
    asked = [fields for _, _, fields in house.engine.asked]
    assert asked[0]["tool_choice"] == "required"
    assert "tool_choice" not in asked[1]


@pytest.mark.parametrize(
    ("chats", "param"),
    [
        ("response_format", "text.format"), ("body.messages", "input"),
        ("max_completion_tokens", "max_output_tokens"), ("temperature", "temperature"),
    ],
)  # fmt: skip
async def test_a_refusal_of_the_engines_names_the_field_as_the_client_wrote_it(
    house: House, chats: str, param: str
) -> None:
    house.engine.refuses = (400, {"error": {"message": "no", "param": chats}})
    answer = await ask(house)
    assert (answer.status, answer.fields["error"]["param"]) == (400, param)


async def test_a_schema_that_is_not_compiled_is_named_as_the_client_wrote_it(house: House) -> None:
    house.engine.refuses = (500, {"error": {"message": "Internal server error"}})
    schema = {"type": "json_schema", "name": "x", "schema": {"type": "object"}}
    error = (await ask(house, text={"format": schema})).fields["error"]
    assert (error["param"], "'text.format'" in error["message"]) == ("text.format", True)


async def test_the_fields_are_translated(house: House) -> None:
    schema = {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}
    await ask(
        house, text={"format": schema}, reasoning={"effort": "low"}, temperature=0, top_p=0.5,
        seed=7, stop=["."], tools=[TOOL], tool_choice={"type": "function", "name": "weather"},
        store=False, background=False, include=[], truncation="disabled", service_tier="auto",
        input=[{"role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]},
               {"role": "user", "content": "Hi", "type": "message"}],
    )  # fmt: skip
    sent = house.engine.asked[0][2]
    assert sent["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True},
    }
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    expected = {"reasoning_effort": "low", "temperature": 0, "top_p": 0.5, "seed": 7, "stop": ["."]}
    assert {name: sent[name] for name in expected} == expected
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    assert not {"text", "reasoning", "include", "background", "truncation"} & sent.keys()


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"store": True}, "store"), ({"background": True}, "background"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "c"}, "conversation"), ({"prompt": {"id": "p"}}, "prompt"),
        ({"include": ["reasoning.encrypted_content"]}, "include"), ({"n": 2}, "n"),
        ({"truncation": "auto"}, "truncation"), ({"service_tier": "flex"}, "service_tier"),
        ({"top_logprobs": 2}, "top_logprobs"), ({"max_tool_calls": 1}, "max_tool_calls"),
        ({"messages": []}, "messages"), ({"max_tokens": 8}, "max_tokens"),
        ({"response_format": {"type": "text"}}, "response_format"), ({"store": 0}, "store"),
        ({"input": []}, "input"), ({"input": 7}, "input"), ({"input": [{}]}, "input.0.role"),
        ({"input": [{"role": "root", "content": "x"}]}, "input.0.role"),
        ({"input": [{"role": "user", "content": 7}]}, "input.0.content"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content.0"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input.0.call_id"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tool_choice": "sometimes"}, "tool_choice"), ({"tool_choice": {}}, "tool_choice"),
        ({"moderation": {"model": "m"}}, "moderation"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
    ],
)  # fmt: skip
async def test_what_can_not_be_translated_is_refused_by_name(
    house: House, change: dict[str, object], param: str
) -> None:
    answer = await ask(house, **change)
    assert answer.status == 400, answer.body
    error = answer.fields["error"]
    assert error["code"] == "invalid_value"
    assert error["param"] == param
    assert not house.ledger.attempts


async def test_a_stream_that_breaks_says_so(house: House) -> None:
    house.engine.stop_after = 3
    events = await streamed(house)
    assert events[-1].type == "error"
    assert events[-1].code == "engine_broke"
    await eventually(lambda: house.ledger.captures)
    (capture,) = house.ledger.captures.values()
    assert (capture.usage.completion_tokens, capture.partial) == ((2,), True)


def chat_of(message: object, **more: object) -> bytes:
    """A chat's whole answer."""
    choice = {"index": 0, "token_ids": [101], "finish_reason": "stop", "message": message}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    return json.dumps({"choices": [{**choice, **more}], "usage": usage}).encode()


@pytest.mark.parametrize(
    "answer",
    [
        chat_of(None),
        chat_of("no object"),
        chat_of({"content": "w", "tool_calls": [{"id": "call_1"}]}),
        chat_of({"content": "w", "tool_calls": {}, "refusal": None}, finish_reason=["stop"]),
        chat_of({"content": "w"}, deep=0).replace(b'"deep": 0', b'"deep": ' + b"9" * 5_000),
    ],
)
@pytest.mark.parametrize("inline", [False, True])
async def test_a_chat_that_can_not_be_shown_as_a_response_costs_nothing(
    house: House, answer: bytes, inline: bool
) -> None:
    house.engine.answer = answer
    wish = {"byline": {"attribution": "inline"}} if inline else {}
    told = await ask(house, **wish)
    assert (told.status, told.fields["error"]["code"]) == (502, "engine_broke")
    await eventually(lambda: house.ledger.voids)
    assert not house.ledger.captures


async def test_a_stream_whose_end_can_not_be_shown_says_so_and_is_charged(house: House) -> None:
    house.engine.finish_reason = ["stop"]  # type: ignore[assignment]
    events = await streamed(house)
    assert (events[-1].type, events[-1].code) == ("error", "engine_broke")  # type: ignore[union-attr]
    await eventually(lambda: house.ledger.captures)
    (capture,) = house.ledger.captures.values()
    assert capture.usage.completion_tokens == (3,)


async def test_a_client_that_leaves_pays_for_what_came(house: House) -> None:
    house.engine.hang_after = 3
    headers = {"authorization": f"Bearer {SHOP}"}
    async with house.http.post(
        f"{house.url}/v1/responses", json={**ASKED, "stream": True}, headers=headers
    ) as response:
        await response.content.readuntil(b"w102")
        response.close()
    await asyncio.wait_for(house.engine.aborted.wait(), 5)
    await eventually(lambda: house.ledger.captures)
    (capture,) = house.ledger.captures.values()
    assert (capture.usage.source, capture.usage.completion_tokens) == (UsageSource.COUNTED, (2,))


async def test_nothing_is_kept_to_be_asked_for(house: House) -> None:
    assert (await house.get("/v1/responses/resp_1")).status == 404


async def test_auto_is_routed_by_the_input(house: House) -> None:
    answer = await ask(house, model="auto", input="I have a fever")
    assert answer.headers["x-byline-adapter"] == MED.version
    assert json.loads(answer.body)["model"] == MED.version
