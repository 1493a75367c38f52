"""Tokenizing passes through, costs nothing and is bounded; embeddings are refused clearly."""

import asyncio
from typing import Any

import pytest

from tests.gateway.conftest import ANN, CHAT, MED, SHOP, Answer, House

pytestmark = pytest.mark.anyio


async def tokenize(house: House, key: str = SHOP, **fields: Any) -> Answer:
    return await house.ask({"model": "med", **fields}, path="/v1/tokenize", key=key)


async def test_a_prompt_and_a_chat_are_tokenized_by_the_engine(house: House) -> None:
    answer = await tokenize(house, prompt="What helps?")
    assert (answer.status, answer.fields["tokens"], answer.fields["count"]) == (
        200,
        [11, 12, 13],
        3,
    )
    answer = await tokenize(house, model=MED.version, messages=CHAT["messages"], tools=None)
    assert answer.fields["count"] == 3
    assert house.engine.tokenized == [
        {"model": "tiny", "prompt": "What helps?"},
        {"model": "tiny", "messages": CHAT["messages"]},
    ]
    assert not house.ledger.attempts  # nothing is held, nothing is charged


async def test_token_ids_become_text(house: House) -> None:
    fields = {"model": "auto", "tokens": [11, 12, 13]}
    answer = await house.ask(fields, path="/v1/detokenize")
    assert (answer.status, answer.fields) == (200, {"prompt": "What helps?"})


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({}, 400, "prompt"), ({"prompt": "x", "messages": CHAT["messages"]}, 400, "prompt"),
        ({"prompt": [1]}, 400, "prompt"), ({"messages": []}, 400, "messages"),
        ({"prompt": "x", "chat_template": "{{x}}"}, 400, "chat_template"),
        ({"prompt": "x", "model": "nobody"}, 404, "model"),
        ({"prompt": "x", "model": 7}, 400, "model"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named(
    house: House, fields: dict[str, Any], status: int, param: str
) -> None:
    answer = await tokenize(house, **fields)
    assert (answer.status, answer.fields["error"]["param"]) == (status, param)
    assert not house.engine.tokenized


@pytest.mark.parametrize("tokens", [[-1], [2**31], ["x"], "x", None])
async def test_token_ids_are_none(house: House, tokens: object) -> None:
    answer = await house.ask({"model": "med", "tokens": tokens}, path="/v1/detokenize")
    assert answer.status == 400


async def test_only_who_may_ask_may_tokenize(house: House) -> None:
    assert (await tokenize(house, ANN, prompt="x")).status == 403
    assert (await tokenize(house, "byl_no", prompt="x")).status == 401


async def test_a_tokenizer_has_a_bound_of_requests_and_seconds(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.tokens.SECONDS_MAX", 0.3)
    house.engine.tokenizer_pause = 5
    answers = await asyncio.gather(*(tokenize(house, prompt="x") for _ in range(12)))
    codes = [answer.fields["error"]["code"] for answer in answers]
    assert sorted(codes) == ["engine_busy"] * 4 + ["engine_timed_out"] * 8


@pytest.mark.parametrize("model", ["med", "tiny", "auto", MED.version])
async def test_no_model_has_embeddings(house: House, model: str) -> None:
    answer = await house.ask({"model": model, "input": "x"}, path="/v1/embeddings")
    error = answer.fields["error"]
    assert (answer.status, error["param"], error["code"]) == (400, "model", "invalid_value")
    assert "no embeddings" in error["message"]
    assert not house.engine.asked


async def test_embeddings_of_an_unknown_model_answer_404(house: House) -> None:
    answer = await house.ask({"model": "nobody", "input": "x"}, path="/v1/embeddings")
    assert (answer.status, answer.fields["error"]["code"]) == (404, "model_not_found")
    assert (await house.ask({"input": "x"}, path="/v1/embeddings")).status == 400
