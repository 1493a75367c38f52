"""Every way to be refused: the right status, in OpenAI's error shape, and nothing else told."""

import json
from collections import deque
from collections.abc import AsyncIterator

import pytest

from byline.errors import (
    KeyConflict,
    LedgerError,
    LedgerFenced,
    LedgerFrozen,
    LedgerFull,
    LedgerUnavailable,
)
from gateway.errors import clean
from tests.gateway.conftest import ANN, CHAT, OWNER, SHOP, Answer, House, eventually

pytestmark = pytest.mark.anyio


def assert_error(answer: Answer, status: int, code: str, param: str | None = None) -> None:
    assert answer.status == status, answer.body
    error = answer.fields["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    assert error["message"]
    assert "Traceback" not in answer.body.decode()
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("header", [None, "byl_shop", "Basic byl_shop", "Bearer ", "Bearer byl_no"])
async def test_a_missing_or_unknown_key_answers_401(house: House, header: str | None) -> None:
    headers = {"authorization": header} if header else {}
    answer = await house.ask(CHAT, key=None, headers=headers)
    assert_error(answer, 401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert not house.ledger.attempts


@pytest.mark.parametrize("key", [ANN, OWNER])
async def test_keys_that_do_not_pay_can_not_ask(house: House, key: str) -> None:
    assert_error(await house.ask(CHAT, key=key), 403, "permission_denied")


@pytest.mark.parametrize(
    "model",
    ["nobody", "../../etc/passwd", "med@ffffffffffff", "/srv/adapters/med", "MED", "\u2028"],
)
async def test_an_unknown_model_answers_404_and_reaches_nothing(house: House, model: str) -> None:
    assert_error(await house.ask({**CHAT, "model": model}), 404, "model_not_found", "model")
    assert not house.engine.asked
    assert not house.ledger.attempts


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'"x"', b"\xff", b'{"model": NaN}', b"[" * 4000,
        b'{"model":"med","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"med","n":' + b"9" * 4050 + b"}",
        b'{"model":"med","messages":[{"role":"user","content":"x"}],"temperature":1e999}',
    ],
)  # fmt: skip
async def test_bad_json_answers_400(house: House, body: bytes) -> None:
    answer = await house.ask(data=body)
    assert answer.status == 400
    assert answer.fields["error"]["code"] == "invalid_value"
    assert not house.ledger.attempts


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"), ({"model": 7}, "model"), ({"model": "x" * 201}, "model"),
        ({"messages": []}, "messages"), ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
        ({"n": 0}, "n"), ({"n": 9}, "n"), ({"n": "2"}, "n"), ({"n": True}, "n"),
        ({"max_tokens": 0}, "max_tokens"), ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"stream": "yes"}, "stream"), ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"continuous_usage_stats": True}},
         "stream_options.continuous_usage_stats"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}},
         "stream_options.include_obfuscation"),
        ({"structured_outputs": True}, "structured_outputs"),
        ({"structured_outputs": "x"}, "structured_outputs"), ({"top_k": 10**30}, "top_k"),
        ({"prompt_logprobs": 0}, "prompt_logprobs"), ({"best_of": 2}, "best_of"),
        ({"use_beam_search": True}, "use_beam_search"), ({"echo": True}, "echo"),
        ({"stream_interval": 100}, "stream_interval"), ({"stream_interval": 0}, "stream_interval"),
        ({"prompt_embeds": "AA"}, "prompt_embeds"), ({"chat_template": "{{x}}"}, "chat_template"),
    ],
)  # fmt: skip
async def test_a_bad_parameter_answers_400_and_is_named(
    house: House, change: dict[str, object], param: str
) -> None:
    assert_error(await house.ask({**CHAT, **change}), 400, "invalid_value", param)
    assert not house.ledger.attempts


@pytest.mark.parametrize(
    "prompt",
    [None, [], ["a", "b"], [[1], [2]], [[]], [["a"]], [[["a"]]], [1, -1], [[-1]], [True], 7],
)
async def test_more_or_less_than_one_prompt_answers_400(house: House, prompt: object) -> None:
    answer = await house.ask({"model": "med", "prompt": prompt}, path="/v1/completions")
    assert_error(answer, 400, "invalid_value", "prompt")


async def test_null_and_false_are_no_parameters(house: House) -> None:
    nulls = {"n": None, "stream": None, "max_completion_tokens": None, "prompt_logprobs": None,
             "echo": False, "best_of": 1, "stream_options": None, "stream_interval": 1}  # fmt: skip
    assert (await house.ask({**CHAT, **nulls})).status == 200


async def test_a_body_too_large_answers_413(house: House) -> None:
    answer = await house.ask({**CHAT, "user": "x" * 5_000})
    assert_error(answer, 413, "request_too_large")


async def test_a_body_of_no_announced_length_is_measured_too(house: House) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 1_000

    assert_error(await house.ask(data=body()), 413, "request_too_large")
    assert not house.ledger.attempts


async def test_no_funds_answers_429_without_asking_the_engine(house: House) -> None:
    house.ledger.funds["shop"] = 10
    answer = await house.ask(CHAT)
    assert_error(answer, 429, "insufficient_quota")
    assert answer.headers["x-should-retry"] == "false"
    assert not house.engine.asked


async def test_a_ledger_that_is_away_answers_503_without_asking_the_engine(house: House) -> None:
    house.ledger.fail("hold", "before", "before")
    answer = await house.ask(CHAT)
    assert_error(answer, 503, "ledger_unavailable")
    assert answer.headers["retry-after"] == "1"
    assert house.ledger.attempts[:2] == ["hold", "hold"]
    assert not house.engine.asked


async def test_a_hold_of_unknown_outcome_is_given_back(house: House) -> None:
    house.ledger.fail("hold", "after", "after")
    assert_error(await house.ask(CHAT), 503, "ledger_unavailable")
    await eventually(lambda: house.ledger.voids)
    assert house.ledger.funds["shop"] == 10**9


async def test_a_hold_whose_answer_was_lost_is_not_posted_twice(house: House) -> None:
    house.ledger.fail("hold", "after")
    answer = await house.ask(CHAT)
    assert answer.status == 200
    assert house.ledger.attempts[:2] == ["hold", "hold"]
    (capture,) = house.ledger.captures.values()
    assert house.ledger.funds["shop"] == 10**9 - capture.charge_nano


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (LedgerUnavailable("OOM command not allowed"), 503, "ledger_unavailable"),
        (LedgerFrozen("posting is frozen"), 503, "ledger_frozen"),
        (LedgerFenced("old epoch"), 503, "ledger_fenced"),
        (LedgerFull("too little memory"), 503, "ledger_full"),
        (KeyConflict("another payload"), 500, "internal_error"),
    ],
)
async def test_a_ledger_that_refuses_is_no_fault_of_the_clients(
    house: House, refusal: LedgerError, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    house.ledger.refusals["hold"] = deque([refusal] * 2)
    answer = await house.ask(CHAT)
    assert_error(answer, status, code)
    assert str(refusal) not in answer.fields["error"]["message"]  # the server's words are the log's
    assert str(refusal) in caplog.text
    assert not house.engine.asked


async def test_a_capture_that_is_refused_is_counted_as_lost(house: House) -> None:
    house.ledger.refusals["capture"] = deque([KeyConflict("another payload")])
    assert (await house.ask(CHAT)).status == 200
    await eventually(lambda: house.metric("byline_captures_lost_total") == 1)


async def test_a_capture_waits_while_the_ledger_is_frozen(house: House) -> None:
    house.ledger.refusals["capture"] = deque([LedgerFrozen("posting is frozen")])
    assert (await house.ask(CHAT)).status == 200
    await eventually(lambda: house.ledger.captures)
    assert house.metric("byline_captures_lost_total") == 0


async def test_keys_that_can_not_be_looked_up_answer_503(house: House) -> None:
    house.keys.away = True
    assert_error(await house.ask(CHAT), 503, "ledger_unavailable")


async def test_an_engine_that_refuses_passes_its_reason_on_without_paths(house: House) -> None:
    message = "temperature must be >= 0 (model /srv/byline/adapters/med at http://e/x/y)"
    error = {"message": message, "type": "BadRequestError", "param": "temperature", "code": 400}
    house.engine.refuses = (400, {"error": error})
    answer = await house.ask({**CHAT, "temperature": -1})
    assert_error(answer, 400, "engine_refused", "temperature")
    assert "temperature must be >= 0" in answer.fields["error"]["message"]
    assert "/srv" not in answer.fields["error"]["message"]
    await eventually(lambda: house.ledger.voids)
    assert house.ledger.funds["shop"] == 10**9


@pytest.mark.parametrize(
    ("status", "ours", "code"),
    [
        (404, 503, "adapter_unavailable"), (429, 503, "engine_busy"), (503, 503, "engine_busy"),
        (500, 502, "engine_broke"), (401, 502, "engine_broke"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_fails_is_no_fault_of_the_clients(
    house: House, status: int, ours: int, code: str, stream: bool
) -> None:
    house.engine.refuses = (status, "no JSON object")
    assert_error(await house.ask({**CHAT, "stream": stream}), ours, code)
    await eventually(lambda: house.ledger.voids)


async def test_an_engine_that_closes_the_connection_answers_502(house: House) -> None:
    house.engine.stop_after = 0
    assert_error(await house.ask(CHAT), 502, "engine_broke")
    await eventually(lambda: house.ledger.voids)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"choices": []}', b'{"usage": 7}'])
async def test_an_engines_answer_that_is_none_answers_502(house: House, body: bytes) -> None:
    house.engine.answer = body
    assert_error(await house.ask(CHAT), 502, "engine_broke")
    await eventually(lambda: house.ledger.voids)


async def test_unknown_routes_and_methods_answer_in_the_same_shape(house: House) -> None:
    assert_error(await house.get("/v1/unknown"), 404, "unknown_url")
    answer = await house.get("/v1/chat/completions")
    assert_error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    assert_error(await house.get("/docs"), 404, "unknown_url")


async def test_a_bug_answers_500_without_saying_more(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("gateway.inferences.read_question", broken)
    answer = await house.ask(CHAT)
    assert_error(answer, 500, "internal_error")
    assert b"secret detail" not in answer.body


async def test_a_clients_request_id_comes_back_if_it_is_harmless(house: House) -> None:
    answer = await house.ask(CHAT, headers={"x-request-id": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"
    answer = await house.ask(CHAT, headers={"x-request-id": "a b<script>"})
    assert answer.headers["x-request-id"] != "a b<script>"
    assert SHOP not in json.dumps(answer.headers)


def test_cleaning_leaves_urls_and_fractions_alone() -> None:
    assert clean("open /a/b.c\nand/or see http://h/x/y") == "open <path> and/or see http://h/x/y"
    assert len(clean("x" * 5_000)) == 1_000
    assert clean("See GET /v1/models.") == "See GET /v1/models."  # no path of this machine
