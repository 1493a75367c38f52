"""What is read of an engine's answer: the same however fast, and never an exception after delivery.

The quick readers and the slow one have to count the same: what msgspec refuses orjson gets, and
what orjson refuses Python's reader.
"""

import json
import logging
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from byline.errors import EngineBroke
from byline.records import UsageSource
from gateway import charging
from gateway.answers import Answer, read_plain, read_stream, usage_of
from gateway.streaming import Tape, refusal_in
from tests.gateway.conftest import STREAM, House, eventually

pytestmark = pytest.mark.anyio

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 2**40), st.floats(), st.text(max_size=4),
    st.just("\ud800"), st.just([]), st.just({}), st.just([True]), st.just(["a"]),
)  # fmt: skip


def mixed(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly as it should be."""
    return st.one_of(usual, usual, usual, ODD)


IDS = mixed(st.lists(st.integers(0, 9), max_size=3))
USAGE = mixed(
    st.fixed_dictionaries(
        {}, optional={"prompt_tokens": mixed(st.integers(0, 9)),
                      "completion_tokens": mixed(st.integers(0, 9))},
    )
)  # fmt: skip
CHOICE = mixed(
    st.fixed_dictionaries(
        {}, optional={"index": mixed(st.integers(0, 2)), "token_ids": IDS,
                      "prompt_token_ids": IDS, "text": st.text(max_size=4)},
    )
)  # fmt: skip
CHUNK = mixed(
    st.fixed_dictionaries(
        {}, optional={"choices": mixed(st.lists(CHOICE, max_size=2)), "usage": USAGE,
                      "prompt_token_ids": IDS},
    )
)  # fmt: skip
USAGE_EVENT = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}'
EVENT = st.one_of(
    CHUNK.map(lambda chunk: b"data: " + json.dumps(chunk).encode()),
    CHUNK.map(lambda chunk: b"data:" + json.dumps(chunk, separators=(",", ":")).encode()),
    st.sampled_from([b": keep-alive", b"data: [DONE]", b"data: {broken", b"event: x", b"data:",
                     b'data: {"a":1},{"b":2}', USAGE_EVENT, USAGE_EVENT,
                     b'data: {"error":{"code":400}}', b'data: {"c":[{}', b"data: {}]}"]),
)  # fmt: skip


class Refusing:
    """A decoder that finds something odd in every event."""

    def decode(self, _: bytes) -> None:
        raise ValueError

    decode_lines = decode


TOKEN = b'{"token_ids":[1]}'


@given(st.lists(EVENT, max_size=6), st.integers(1, 2))
@example([b'data: {"choices":[%s,' % TOKEN, b"data: %s]}" % TOKEN, b"data: {} {}"], 1)
@example([b'data: {"choices":[%s]} {"choices":[%s]}' % (TOKEN, TOKEN)], 1)
@example([b'data: {"choices":[%s]}' % TOKEN, b"data: {"], 1)
def test_the_quick_reader_and_the_slow_one_count_the_same(events: list[bytes], n: int) -> None:
    stream = b"".join(event + b"\n\n" for event in events)
    quick = read_stream(stream, choices=n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.answers.EVENTS", Refusing())
        assert read_stream(stream, choices=n) == quick
        patch.setattr("gateway.answers.orjson.loads", json.loads)
        assert read_stream(stream, choices=n) == quick
    usage = usage_of(quick, "i")
    assert usage.prompt_tokens >= 0
    assert min(usage.completion_tokens) >= 0


@given(st.lists(EVENT, max_size=6), st.booleans(), st.integers(1, 400))
@example([USAGE_EVENT, b": x", b"data: [DONE]", b": y"], False, 1)
@example([b": x", b'data: {"error":{"code":400}}', b"data: [DONE]"], True, 7)
def test_a_burst_passes_on_what_its_events_pass_on_one_by_one(
    events: list[bytes], shows_usage: bool, read_bytes: int
) -> None:
    stream = b"".join(event + b"\n\n" for event in events)
    whole, single = (Tape(shows_usage=shows_usage) for _ in range(2))
    passed = b""
    for event in events:
        if not single.finished and single.problem is None:
            passed += single.feed(event + b"\n\n")
    assert whole.feed(stream) == passed
    assert whole.kept() == single.kept()
    assert (whole.finished, whole.last) == (single.finished, single.last)
    assert repr(whole.problem) == repr(single.problem)
    assert repr(refusal_in(stream)) == repr(
        None if passed or not events else refusal_in(events[0] + b"\n\n")
    )
    cut = Tape(shows_usage=shows_usage)
    for start in range(0, len(stream), read_bytes):
        if not cut.finished and cut.problem is None:
            cut.feed(stream[start : start + read_bytes])
    assert cut.kept() == single.kept()


@pytest.mark.parametrize(
    "body",
    ["", "[]", "[" * 100_000, '{"usage":{"prompt_tokens":1,"completion_tokens":1}}',
     '{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}',
     '{"choices":[{"token_ids":["a"]}],"usage":{"prompt_tokens":1,"completion_tokens":1}}',
     '{"choices":[{"token_ids":[1]}],"usage":{"prompt_tokens":1,"completion_tokens":-1}}',
     '{"choices":[{"token_ids":[1]}],"usage":{"prompt_tokens":1e999,"completion_tokens":1}}',
     '{"choices":[{"token_ids":[1]}],"usage":{"prompt_tokens":true,"completion_tokens":1}}'],
)  # fmt: skip
def test_what_is_no_answer_is_not_taken_for_one(body: str) -> None:
    with pytest.raises(EngineBroke):
        read_plain(body.encode(), choices=1, inference="i")


NO_TEXT = (
    b'{"choices":[{"index":0,"token_ids":[1],"text":"\xff"}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1}}'
)


async def test_an_engines_answer_that_is_no_utf8_is_no_answer_and_free(house: House) -> None:
    house.engine.answer = NO_TEXT
    answer = await house.ask({**STREAM, "stream": False})
    assert (answer.status, answer.fields["error"]["code"]) == (502, "engine_broke")
    await eventually(lambda: house.ledger.voids)


async def test_a_stream_with_an_event_that_is_no_utf8_is_charged(house: House) -> None:
    house.engine.error_after, house.engine.error_event = 1, b"data: " + NO_TEXT + b"\n\n"
    answer = await house.ask(STREAM)
    assert answer.body.endswith(b"data: [DONE]\n\n")
    capture = house.ledger.captures[answer.headers["x-byline-inference-id"]]
    assert sum(capture.usage.completion_tokens) == 3


def test_what_an_odd_event_leaves_is_charged() -> None:
    odd = b'data: {"choices":[7],"usage":"many"}\n\ndata: ' + b"[" * 100_000 + b"\n\n"
    good = b'data: {"choices":[{"index":0,"token_ids":[5,6]}]}\n\n'
    answer = read_stream(odd + good + odd, choices=1)
    assert answer == Answer((), ((5, 6),), None)
    assert usage_of(answer, "i").source is UsageSource.COUNTED


async def test_a_bug_in_charging_leaves_no_hold_and_is_critical(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(charging, "capture_of", broken)
    answer = await house.ask(STREAM)
    assert answer.body.endswith(b"data: [DONE]\n\n")
    inference = answer.headers["x-byline-inference-id"]
    await eventually(lambda: house.metric("byline_captures_lost_total") == 1)
    assert house.ledger.attempts[-1] == "void"
    assert house.ledger.funds["shop"] == 10**9
    (said,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert inference in said.getMessage()


async def test_token_ids_that_can_not_be_kept_are_charged_all_the_same(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> str:
        raise TypeError

    monkeypatch.setattr("gateway.token_files.TokenFiles.keep", broken)
    answer = await house.ask(STREAM)
    capture = house.ledger.captures[answer.headers["x-byline-inference-id"]]
    assert capture.tokens_sha256 == charging.NOT_WRITTEN
