"""An answer that carries its attribution, and receipts: what became of the money, by id."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from byline.ledger.ledger import Ledger, Standing
from byline.ledger.shards import Shards
from byline.records import AttributionState, InferenceRecord, Share
from byline.redis_server import RedisServer, running_redis
from tests.fake_engine import FakeEngine
from tests.fakes import Failure
from tests.gateway.conftest import (
    CHAT,
    MED,
    OPERATOR,
    OTHER,
    SHOP,
    House,
    eventually,
    serving_engine,
    serving_gateway,
)
from tests.gateway.real_ledger import ask, deposit, services_over
from tests.gateway.test_openai_client import MESSAGES, client_of

pytestmark = pytest.mark.anyio

INLINE = {**CHAT, "byline": {"attribution": "inline"}}


async def settle(house: House) -> None:
    """What the worker does, as soon as there is a capture."""
    await eventually(lambda: house.ledger.captures)
    (inference,) = house.ledger.captures
    (choice,) = house.ledger.attributions[inference]
    done = replace(
        choice, state=AttributionState.DONE,
        shares=(Share("ann", score=1.0, share_ppb=10**9, nano=choice.pool_nano),),
    )  # fmt: skip
    house.ledger.attributions[inference] = [done]


def assert_attributed(fields: dict[str, Any], inference: str) -> None:
    assert (fields["object"], fields["id"]) == ("attribution", inference)
    assert fields["state"] == "done"
    assert [share["contributor"] for share in fields["shares"]] == ["ann"]


async def test_a_plain_answer_carries_its_attribution(house: House) -> None:
    settling = asyncio.create_task(settle(house))
    answer = await house.ask(INLINE)
    await settling
    assert_attributed(answer.fields["byline"], answer.headers["x-byline-inference-id"])
    rest = {name: value for name, value in answer.fields.items() if name != "byline"}
    assert rest == json.loads(house.engine.sent)
    assert "byline" not in house.engine.asked[0][2]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_the_last_chunk_of_a_stream_carries_it(house: House, path: str) -> None:
    question = CHAT if "chat" in path else {"model": "med", "prompt": "p"}
    settling = asyncio.create_task(settle(house))
    fields = {**question, "stream": True, "byline": INLINE["byline"]}
    answer = await house.ask(fields, path=path)
    await settling
    *_, last, done = answer.body.strip().split(b"\n\n")
    assert done == b"data: [DONE]"
    chunk = json.loads(last.removeprefix(b"data: "))
    assert chunk["choices"] == []
    assert chunk["model"] == MED.version
    assert_attributed(chunk["byline"], answer.headers["x-byline-inference-id"])


async def test_the_official_client_reads_it(house: House) -> None:
    settling = asyncio.create_task(settle(house))
    async with client_of(house) as client:
        stream = await client.chat.completions.create(
            model="med", messages=MESSAGES, stream=True,
            extra_body={"byline": {"attribution": "inline"}},
        )  # fmt: skip
        chunks = [chunk async for chunk in stream]
    await settling
    assert chunks[-1].model_extra is not None
    assert chunks[-1].model_extra["byline"]["state"] == "done"
    assert [chunk for chunk in chunks if "byline" in (chunk.model_extra or {})] == chunks[-1:]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_carries_it_too(house: House, stream: bool) -> None:
    settling = asyncio.create_task(settle(house))
    fields = {"model": "med", "input": "Hi", "stream": stream, "byline": INLINE["byline"]}
    answer = await house.ask(fields, path="/v1/responses")
    await settling
    found = answer.fields
    if stream:
        last = answer.body.strip().split(b"\n\n")[-1]
        found = json.loads(last.split(b"\ndata: ", 1)[1])["response"]
    assert_attributed(found["byline"], answer.headers["x-byline-inference-id"])


async def test_what_is_not_ready_in_time_is_pending(house: House) -> None:
    house.ledger.capture_pause = 5
    answer = await house.ask(INLINE)  # the test's gateway waits for half a second
    inference = answer.headers["x-byline-inference-id"]
    assert answer.fields["byline"] == {
        "object": "attribution", "id": inference, "state": "pending", "reason": None,
    }  # fmt: skip
    assert answer.fields["choices"]


async def test_a_ledger_that_is_away_leaves_it_pending(house: House) -> None:
    failures: list[Failure] = ["before"] * 50
    house.ledger.fail("capture", *failures)
    answer = await house.ask(INLINE)
    assert (answer.status, answer.fields["byline"]["state"]) == (200, "pending")


async def test_an_answer_of_nobody_says_so_at_once(house: House) -> None:
    base = await house.ask({**INLINE, "model": "tiny"})
    assert base.fields["byline"]["reason"] == "base_model"
    house.engine.choices = [[]]
    empty = await house.ask(INLINE)
    assert empty.fields["byline"]["state"] == "skipped"
    assert empty.fields["byline"]["reason"] == "no tokens were generated"


@pytest.mark.parametrize(
    ("byline", "param"),
    [({"attribution": "yes"}, "byline.attribution"), ({"shares": True}, "byline.shares"),
     ("inline", "byline"), ({"attribution": "inline", "x": None}, "byline.x")],
)  # fmt: skip
async def test_an_unknown_wish_is_refused(house: House, byline: object, param: str) -> None:
    answer = await house.ask({**CHAT, "byline": byline})
    assert (answer.status, answer.fields["error"]["param"]) == (400, param)
    assert not house.ledger.attempts


async def test_no_wish_adds_nothing(house: House) -> None:
    for byline in (None, {}, {"attribution": None}):
        answer = await house.ask({**CHAT, "byline": byline})
        assert "byline" not in answer.fields


async def test_a_receipt_says_what_was_charged_and_to_whom(house: House) -> None:
    answer = await house.ask(CHAT)
    inference = answer.headers["x-byline-inference-id"]
    receipt = (await house.get(f"/v1/receipts/{inference}")).fields
    capture = house.ledger.captures[inference]
    assert (receipt["object"], receipt["state"]) == ("receipt", "captured")
    assert receipt["charge_nano"] == capture.charge_nano == sum(receipt["legs"].values())
    assert receipt["charge_usd"] == "0.000002250"
    assert (receipt["adapter"], receipt["usage_source"]) == (MED.version, "engine")
    assert (receipt["prompt_tokens"], receipt["completion_tokens"]) == (3, 3)
    assert (receipt["partial"], receipt["late"]) == (False, False)
    assert answer.headers["x-byline-receipt"] == f"/v1/receipts/{inference}"


async def test_a_receipt_is_for_who_asked(house: House) -> None:
    inference = (await house.ask(CHAT)).headers["x-byline-inference-id"]
    path = f"/v1/receipts/{inference}"
    assert (await house.get(path, OTHER)).status == 404
    assert (await house.get(path, OPERATOR)).status == 200
    assert (await house.get(path, "byl_ann")).status == 403
    assert (await house.get("/v1/receipts/../../etc")).status == 404
    unknown = await house.get("/v1/receipts/0197a5a0-0000-7000-8000-000000000000")
    assert (unknown.status, unknown.fields["error"]["code"]) == (404, "not_found")


async def test_a_receipt_of_what_is_charged_between_two_looks_has_its_charge(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    inference = (await house.ask(CHAT)).headers["x-byline-inference-id"]
    look, looks = house.ledger.inference, 0

    async def at_first_nothing(name: str) -> InferenceRecord | None:
        nonlocal looks
        looks += 1
        return await look(name) if looks > 1 else None

    async def captured(_: str) -> Standing:
        return Standing("captured", "shop", 10**6)

    monkeypatch.setattr(house.ledger, "inference", at_first_nothing)
    monkeypatch.setattr(house.ledger, "standing", captured)
    receipt = await house.get(f"/v1/receipts/{inference}")
    charge = house.ledger.captures[inference].charge_nano
    assert (receipt.fields["state"], receipt.fields["charge_nano"]) == ("captured", charge)
    assert looks == 2


async def test_a_receipt_of_what_is_held_or_went_back(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "data", unix_socket=tmp_path / "s.sock")
    engine = FakeEngine()
    with running_redis(server):
        await deposit(server)
        async with serving_engine(engine) as engine_url:
            services = await services_over(server.url, engine_url, tmp_path)
            async with serving_gateway(services) as (url, _):
                engine.pause = 0.3
                asking = asyncio.create_task(ask(url, CHAT))
                await eventually(lambda: engine.asked)
                inference = engine.asked[0][1]["x-request-id"]
                held = await receipt_of(url, inference)
                assert held[0] == 202
                assert (held[1]["state"], held[1]["charge_nano"]) == ("held", None)
                assert (await receipt_of(url, inference, OTHER))[0] == 404
                await asking
                assert (await receipt_of(url, inference))[1]["state"] == "captured"
                engine.refuses = (400, {"error": {"message": "no"}})
                await ask(url, CHAT)
                inference = engine.asked[-1][1]["x-request-id"]
                ledger: Ledger = Shards.ledger_of(services.shards, "shop")
                async with asyncio.timeout(5):
                    while (await ledger.unfinished()).holds:
                        await asyncio.sleep(0.02)
                status, voided = await receipt_of(url, inference)
                assert (status, voided["state"], voided["charge_nano"]) == (200, "voided", 0)


async def receipt_of(url: str, inference: str, key: str = SHOP) -> tuple[int, dict[str, Any]]:
    headers = {"authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{url}/v1/receipts/{inference}", headers=headers) as response,
    ):
        return response.status, await response.json()
