"""Days on which the engine hangs, dies or answers garbage: a clear error, a right charge, no hold
left."""

import asyncio
import time

import pytest

from tests.bad_days.asking import CHAT, ask, connected, cut, eventually, request, within
from tests.gateway_program import GatewayProgram
from tests.stand_in_engine import Answer, Script

pytestmark = pytest.mark.slow

USAGE = '"usage":{"prompt_tokens":3,"completion_tokens":1}'
GARBAGE = {
    "nothing": "",
    "no JSON": "<html>busy</html>",
    "half": '{"choices": [{"index": 0, "mess',
    "null": "null",
    "a list": "[]",
    "a number": "17",
    "no choices": "{" + USAGE + "}",
    "choices null": '{"choices":null,' + USAGE + "}",
    "choices of numbers": '{"choices":[7],' + USAGE + "}",
    "index a text": '{"choices":[{"index":"0","token_ids":[1]}],' + USAGE + "}",
    "token ids texts": '{"choices":[{"index":0,"token_ids":["a"]}],' + USAGE + "}",
    "token ids a number": '{"choices":[{"index":0,"token_ids":5}],' + USAGE + "}",
    "usage null": '{"choices":[{"index":0,"token_ids":[1]}],"usage":null}',
    "usage texts": '{"choices":[{"index":0,"token_ids":[1]}],"usage":{"prompt_tokens":"x"}}',
    "usage negative": '{"choices":[{"index":0,"token_ids":[1]}],'
    '"usage":{"prompt_tokens":-3,"completion_tokens":-1}}',
    "usage infinite": '{"choices":[{"index":0,"token_ids":[1]}],'
    '"usage":{"prompt_tokens":1e999,"completion_tokens":1}}',
    "prompt ids texts": '{"prompt_token_ids":["a"],"choices":[{"index":0,"token_ids":[1]}],'
    + USAGE + "}",
    "too deep": "[" * 100_000,
}  # fmt: skip
EVENTS = {
    **GARBAGE,
    "a list about choices": '[{"choices":[]}]',
    "a text about choices": '"\\"choices\\": []"',
    "an error that is a number": '{"error":5}',
    "an error that is null": '{"error":null}',
    "choices empty, usage a number": '{"choices":[],"usage":5}',
    "choices empty, usage texts": '{"choices":[],"usage":{"prompt_tokens":"x"}}',
}


QUIET_SECONDS = 1.5


@pytest.mark.parametrize("kind", GARBAGE)
def test_a_plain_answer_that_is_garbage_is_a_bad_gateway_and_free(
    program: GatewayProgram, kind: str
) -> None:
    before = program.books()[1]["capture"]
    answer = ask(program, stand_in={"body": GARBAGE[kind]})
    assert answer.status == 502, answer.body
    assert answer.error["code"] == "engine_broke"
    assert program.assert_quiet(QUIET_SECONDS)["capture"] == before


@pytest.mark.parametrize("kind", EVENTS)
def test_a_stream_with_garbage_in_it_ends_as_a_stream_and_is_charged(
    program: GatewayProgram, kind: str
) -> None:
    before = program.books()[1]["capture"]
    answer = ask(program, stream=True, stand_in={"event": EVENTS[kind]})
    assert answer.status == 200
    end = answer.body.decode().rstrip().rsplit("\n\n", 1)[-1]
    assert end == "data: [DONE]" or '"code": "engine_broke"' in end, end
    assert program.assert_quiet(QUIET_SECONDS)["capture"] == before + 1


def test_an_engine_that_dies_in_the_middle_is_an_error_event_and_what_came_is_charged(
    program: GatewayProgram,
) -> None:
    answer = ask(program, stream=True, stand_in={"cut_after": 4})
    last = answer.events[-1]
    assert last["error"]["code"] == "engine_broke"
    assert set(last["error"]) == {"message", "type", "param", "code"}
    program.assert_quiet()
    receipt = ask(program, path=f"/v1/receipts/{answer.headers['x-byline-inference-id']}",
                  method="GET")  # fmt: skip
    assert b'"completion_tokens":3' in receipt.body
    assert b'"partial":true' in receipt.body


def test_an_engine_that_dies_before_its_first_token_is_a_bad_gateway_and_free(
    program: GatewayProgram,
) -> None:
    for stream in (False, True):
        before = program.books()[1]["capture"]
        answer = ask(program, stream=stream, stand_in={"cut_after": 0, "hang_after": None})
        if stream and answer.status == 200:  # its headers were out
            assert answer.events[-1]["error"]["code"] == "engine_broke"
        else:
            assert (answer.status, answer.error["code"]) == (502, "engine_broke")
        assert program.assert_quiet()["capture"] == before


@pytest.mark.parametrize("status", [400, 404, 413, 422, 429, 500, 503])
@pytest.mark.parametrize("error", [None, "text", {"message": 5}, {"message": "no", "param": []}])
def test_a_refusal_that_can_not_be_read_is_still_an_error_in_openais_shape(
    program: GatewayProgram, status: int, error: object
) -> None:
    answer = ask(program, stand_in={"status": status, "error": error})
    assert answer.status == {404: 503, 429: 503, 500: 502}.get(status, status)
    assert answer.error["code"]


def test_comments_of_the_engine_harm_nobody(program: GatewayProgram) -> None:
    answer = ask(program, stream=True, stand_in={"comments": True})
    assert answer.body.count(b"w10") == 6
    assert answer.events[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_a_hanging_engine_frees_it_within_a_second(
    program: GatewayProgram, stream: bool
) -> None:
    async def leave() -> float:
        _, writer = await connected(program)
        writer.write(request(program, stream=stream, stand_in={"hang_after": 3 if stream else 0}))
        while program.engine.under_way == 0:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        await cut(writer)
        left = time.monotonic()
        while program.engine.under_way:
            await asyncio.sleep(0.01)
        return time.monotonic() - left

    assert asyncio.run(asyncio.wait_for(leave(), 10)) < 1.0
    program.assert_quiet()


def test_a_hanging_engine_keeps_nobody_else_waiting(program: GatewayProgram) -> None:
    async def hang() -> None:
        pairs = [await connected(program) for _ in range(20)]
        for _, writer in pairs:
            writer.write(request(program, stream=True, stand_in={"hang_after": 2}))
        while program.engine.under_way < len(pairs):
            await asyncio.sleep(0.01)
        with within(2.0):
            answer = await asyncio.to_thread(ask, program)
            assert answer.status == 200
        for _, writer in pairs:
            await cut(writer)

    asyncio.run(asyncio.wait_for(hang(), 20))
    eventually(lambda: program.engine.under_way == 0, "the engine is idle")
    program.assert_quiet()


def test_the_stand_in_answers_as_it_is_told() -> None:
    """Else the days above would prove nothing."""
    fields = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
    events = list(Answer(True, fields, Script(tokens=2, event="garbage")).events())
    assert [event[:8] for event in events] == [b"data: {\""] * 2 + [b"data: ga"] + [
        b"data: {\""] * 2 + [b"data: [D"]  # fmt: skip
