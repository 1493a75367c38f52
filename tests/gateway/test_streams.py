"""Streams: bytes pass as they come, the three special events, and every way to end early."""

import asyncio
import json
from typing import Any

import pytest

from byline.delivery.spool import Spool
from byline.money import POLICY, charge_nano
from byline.records import Capture, UsageSource
from byline.served import read_served
from tests.gateway.conftest import CHAT, SHOP, STREAM, Answer, House, eventually

pytestmark = pytest.mark.anyio

WITH_USAGE = {**STREAM, "stream_options": {"include_usage": True}}
DONE = b"data: [DONE]\n\n"


def capture_of(house: House, answer: Answer) -> Capture:
    return house.ledger.captures[answer.headers["x-byline-inference-id"]]


async def test_a_stream_passes_through_byte_for_byte(house: House) -> None:
    house.engine.keep_alive = True
    answer = await house.ask(WITH_USAGE)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.body == house.engine.sent
    assert b": keep-alive" in answer.body


@pytest.mark.parametrize("piece_bytes", [1, 2, 7, 100])
async def test_events_may_be_split_at_any_byte(house: House, piece_bytes: int) -> None:
    house.engine.piece_bytes = piece_bytes
    answer = await house.ask(WITH_USAGE)
    assert answer.body == house.engine.sent
    assert capture_of(house, answer).usage.completion_tokens == (3,)


async def test_usage_is_always_asked_for_and_withheld_if_the_client_did_not(house: House) -> None:
    answer = await house.ask(STREAM)
    assert house.engine.asked[0][2]["stream_options"] == {"include_usage": True}
    events = house.engine.events("/v1/chat/completions", house.engine.asked[0][2])
    assert answer.body == b"".join([*events[:-2], DONE])
    assert b'"usage"' not in answer.body
    assert capture_of(house, answer).usage.source is UsageSource.ENGINE


async def test_stream_options_that_ask_for_nothing_add_nothing(house: House) -> None:
    options = {"include_usage": False, "include_obfuscation": False}
    answer = await house.ask({**STREAM, "stream_options": options})
    assert house.engine.asked[0][2]["stream_options"] == {"include_usage": True}
    assert b'"usage"' not in answer.body


async def test_the_token_ids_of_a_stream_are_kept(house: House) -> None:
    house.engine.choices = [[5, 6], [7, 8, 9]]
    fields = {"model": "med", "prompt": "p", "stream": True, "n": 2}
    answer = await house.ask(fields, path="/v1/completions")
    capture = capture_of(house, answer)
    assert capture.tokens_sha256 is not None
    tokens = read_served(house.served, capture.inference, capture.tokens_sha256)
    assert (tokens.prompt, tokens.choices) == ((11, 12, 13), ((5, 6), (7, 8, 9)))
    assert capture.usage.completion_tokens == (2, 3)


@pytest.mark.parametrize("fields", [CHAT, STREAM])
async def test_an_answer_does_not_wait_for_the_ledger(
    house: House, fields: dict[str, object]
) -> None:
    house.ledger.capture_pause = 0.3
    answer = await house.ask(fields)
    assert answer.status == 200
    assert not house.ledger.captures
    inference = answer.headers["x-byline-inference-id"]
    shown = await house.get(f"/v1/attributions/{inference}")
    assert (shown.status, shown.fields["state"]) == (200, "pending"), "its charge is on its way"
    await eventually(lambda: inference in house.ledger.captures)


async def test_done_is_held_back_until_the_charge_is_kept(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, may_write = Spool.write, asyncio.Event()

    async def slowly(spool: Spool, *which: Any, **when: Any) -> None:
        await may_write.wait()
        await write(spool, *which, **when)

    monkeypatch.setattr(Spool, "write", slowly)
    headers = {"authorization": f"Bearer {SHOP}"}
    async with house.http.post(
        f"{house.url}/v1/chat/completions", json=STREAM, headers=headers
    ) as response:
        before = await response.content.readuntil(b'"finish_reason":"stop"')
        assert DONE not in before
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await response.content.readuntil(DONE)
        assert not house.ledger.captures
        may_write.set()
        assert (await response.read()).endswith(DONE)
    await eventually(lambda: house.ledger.captures)


async def test_a_ledger_that_is_away_does_not_hold_back_done_for_long(house: House) -> None:
    house.ledger.fail("capture", "before", "before", "after")
    answer = await asyncio.wait_for(house.ask(STREAM), 4)
    assert answer.body.endswith(DONE)
    inference = answer.headers["x-byline-inference-id"]
    assert inference not in house.ledger.captures
    await eventually(lambda: house.ledger.attempts.count("capture") == 4)
    await eventually(lambda: house.metric("byline_captures_waiting") == 0)
    assert list(house.ledger.captures) == [inference]
    assert house.ledger.funds["shop"] == 10**9 - house.ledger.captures[inference].charge_nano


async def test_a_client_that_leaves_pays_for_what_was_generated(house: House) -> None:
    house.engine.hang_after = 3  # the role and two tokens
    await house.leave_after(STREAM, b"w102")
    await asyncio.wait_for(house.engine.aborted.wait(), 5)
    await eventually(lambda: house.ledger.captures)
    (capture,) = house.ledger.captures.values()
    assert capture.usage.completion_tokens == (2,)
    assert (capture.usage.source, capture.partial) == (UsageSource.COUNTED, True)
    assert capture.charge_nano == charge_nano(POLICY.adapter_price, 3, 2)
    labels = {"route": "/v1/chat/completions", "model": "med", "status": "499"}
    await eventually(lambda: house.metric("byline_requests_total", **labels) == 1)


async def test_an_engine_that_breaks_in_the_middle_ends_with_an_error_event(house: House) -> None:
    house.engine.stop_after = 3
    answer = await house.ask(STREAM)
    assert answer.status == 200
    last = answer.body.strip().split(b"\n\n")[-1]
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert (error["code"], error["type"], error["param"]) == ("engine_broke", "server_error", None)
    assert DONE not in answer.body
    await eventually(lambda: house.ledger.captures)
    capture = capture_of(house, answer)
    assert (capture.usage.completion_tokens, capture.partial) == ((2,), True)


async def test_an_engines_own_error_event_is_cleaned_of_paths(house: House) -> None:
    house.engine.error_after = 2
    answer = await house.ask(STREAM)
    assert b"/srv/models" not in answer.body
    assert b"engine_broke" in answer.body
    assert b"w101" in answer.body
    await eventually(lambda: house.ledger.captures)
    assert capture_of(house, answer).usage.completion_tokens == (1,)


async def test_a_stream_without_usage_is_charged_by_its_token_ids(house: House) -> None:
    house.engine.has_usage = False
    answer = await house.ask(STREAM)
    capture = capture_of(house, answer)
    assert (capture.usage.source, capture.usage.completion_tokens) == (UsageSource.COUNTED, (3,))
    assert not capture.partial
    assert house.metric("byline_usage_total", source="counted") == 1


async def test_an_engine_that_says_nothing_for_too_long_has_broken(house: House) -> None:
    house.engine.hang_after = 2
    answer = await house.ask(STREAM)  # the test's engine client waits 2 seconds
    assert b"engine_timed_out" in answer.body


async def test_a_stopping_gateway_finishes_answers_and_captures(house: House) -> None:
    house.engine.pause = 0.1
    house.ledger.capture_pause = 0.3
    asking = asyncio.create_task(house.ask(STREAM))
    await eventually(lambda: house.engine.asked)
    await house.stop()
    answer = await asking
    assert answer.body.endswith(DONE)
    assert house.ledger.attempts[-2:] == ["capture", "close"]
