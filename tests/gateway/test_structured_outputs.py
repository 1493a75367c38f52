"""A grammar that the engine can't follow is the request's fault: 400, with the field's name."""

import json

import pytest

from byline.errors import EngineBroke, EngineRefused, GenerationFailed
from gateway.structured_outputs import structured_param
from gateway.wire import JsonObject
from tests.gateway.conftest import CHAT, House, eventually

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
FIELDS: list[tuple[JsonObject, str]] = [
    ({"response_format": SCHEMA}, "response_format"),
    ({"structured_outputs": {"regex": "("}}, "structured_outputs"),
    ({"tool_choice": "required", "tools": []}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
]
FAILED = {"message": "Internal server error", "type": "InternalServerError", "code": 500}
FAILED_EVENT = b"data: %s\n\n" % json.dumps({"error": FAILED}).encode()


@pytest.mark.parametrize(("fields", "param"), FIELDS)
async def test_a_refusal_without_a_field_gets_its_name(
    house: House, fields: JsonObject, param: str
) -> None:
    message = "Failed to convert the grammar from Lark to EBNF"
    house.engine.refuses = (400, {"error": {"message": message, "param": None}})
    answer = await house.ask({**CHAT, **fields})
    error = answer.fields["error"]
    assert (answer.status, error["code"], error["param"]) == (400, "engine_refused", param)
    assert error["message"] == message
    await eventually(lambda: house.ledger.voids)


@pytest.mark.parametrize(
    ("message", "param"), [("max_tokens is too large", None), ("bad schema", "temperature")]
)
async def test_a_refusal_of_something_else_keeps_its_own(
    house: House, message: str, param: str | None
) -> None:
    house.engine.refuses = (400, {"error": {"message": message, "param": param}})
    answer = await house.ask({**CHAT, "response_format": SCHEMA})
    assert answer.fields["error"]["param"] == param


@pytest.mark.parametrize(("fields", "param"), FIELDS)
async def test_a_grammar_that_fails_when_it_is_compiled_answers_400(
    house: House, fields: JsonObject, param: str
) -> None:
    house.engine.refuses = (500, {"error": FAILED})
    answer = await house.ask({**CHAT, **fields})
    error = answer.fields["error"]
    assert (answer.status, error["code"], error["param"]) == (400, "engine_refused", param)
    assert param in error["message"]
    await eventually(lambda: house.ledger.voids)
    assert house.ledger.funds["shop"] == 10**9


@pytest.mark.parametrize(
    ("error", "message"),
    [(FAILED, "gave no reason"), ({"message": "Grammar error: x", "code": 400}, "Grammar error")],
)
async def test_a_stream_that_begins_with_an_error_is_answered_400(
    house: House, error: JsonObject, message: str
) -> None:
    house.engine.error_after = 0
    house.engine.error_event = b"data: %s\n\n" % json.dumps({"error": error}).encode()
    answer = await house.ask({**CHAT, "stream": True, "response_format": SCHEMA})
    error = answer.fields["error"]
    assert (answer.status, error["code"], error["param"]) == (
        400, "engine_refused", "response_format",
    )  # fmt: skip
    assert message in error["message"]
    await eventually(lambda: house.ledger.voids)
    assert house.metric("byline_requests_total", status="400", model="med",
                        route="/v1/chat/completions") == 1  # fmt: skip


@pytest.mark.parametrize(
    ("message", "given", "param"),
    [
        ("1 validation error", "body.response_format.type", "response_format.type"),
        ('"auto" tool choice requires --enable-auto-tool-choice', None, "tool_choice"),
    ],
)
async def test_a_field_is_named_as_the_client_wrote_it(
    house: House, message: str, given: str | None, param: str
) -> None:
    house.engine.refuses = (400, {"error": {"message": message, "param": given}})
    assert (await house.ask(CHAT)).fields["error"]["param"] == param


async def test_in_a_stream_it_is_an_error_event_with_the_field(house: House) -> None:
    house.engine.error_after, house.engine.error_event = 1, FAILED_EVENT
    answer = await house.ask({**CHAT, "stream": True, "response_format": SCHEMA})
    event = answer.body.strip().split(b"\n\n")[-1]
    error = json.loads(event.removeprefix(b"data: "))["error"]
    assert (error["code"], error["param"]) == ("engine_refused", "response_format")
    assert error["type"] == "invalid_request_error"
    await eventually(lambda: house.ledger.voids)


async def test_after_a_token_has_come_it_is_the_engines_fault(house: House) -> None:
    house.engine.error_after, house.engine.error_event = 2, FAILED_EVENT
    answer = await house.ask({**CHAT, "stream": True, "response_format": SCHEMA})
    assert b'"code": "engine_broke"' in answer.body
    await eventually(lambda: house.ledger.captures)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "Internal server error"),
        ({"response_format": {"type": "text"}}, "Internal server error"),
        ({"response_format": SCHEMA}, "EngineCore encountered an issue."),
    ],
)
async def test_an_engine_that_fails_otherwise_is_still_broken(
    house: House, fields: JsonObject, message: str
) -> None:
    house.engine.refuses = (500, {"error": {**FAILED, "message": message}})
    answer = await house.ask({**CHAT, **fields})
    assert (answer.status, answer.fields["error"]["code"]) == (502, "engine_broke")


@pytest.mark.parametrize(
    "fields", [{}, {"response_format": None}, {"response_format": "text"}, {"tool_choice": "auto"}]
)
def test_what_binds_nothing_has_no_name(fields: JsonObject) -> None:
    assert structured_param(fields) is None


def test_one_request_that_failed_is_an_engine_that_broke() -> None:
    assert issubclass(GenerationFailed, EngineBroke)
    assert not issubclass(EngineRefused, EngineBroke)
