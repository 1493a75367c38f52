"""Clients that leave: the engine stops at once, and what was served is paid, to the nano-dollar.

A stream pays for the token ids that came; what nothing came of pays for its prompt, as the engine's
own tokenizer counts it, and nothing if it can't be counted. The ledger is real.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from starlette.requests import Request

from byline.ledger.ledger import Ledger
from byline.money import POLICY, charge_nano
from byline.records import AttributionState, InferenceRecord, UsageSource
from byline.redis_server import RedisServer, running_redis
from byline.served import read_served
from gateway.errors import ClientGone
from gateway.leaving import PRESENCE, Presence, unless_gone
from gateway.services import Services
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import CHAT, SHOP, STREAM, eventually, serving_engine, serving_gateway
from tests.gateway.real_ledger import FUNDS, deposit, services_over

pytestmark = pytest.mark.anyio
COMPLETION = {"model": "med", "prompt": [5, 6, 7, 8], "max_tokens": 8}
PROMPT = 3  # tokens, as the fake engine has it


@dataclass
class Shop:
    """A gateway over a real ledger, and a client of it."""

    url: str
    services: Services
    engine: FakeEngine
    http: aiohttp.ClientSession

    async def leave(self, fields: object, path: str = "/v1/chat/completions") -> None:
        """Ask, and go away as soon as the engine has the question."""
        before = len(self.engine.asked)
        headers = {"authorization": f"Bearer {SHOP}"}
        asking = asyncio.create_task(
            self.http.post(self.url + path, json=fields, headers=headers).__aenter__()
        )
        await eventually(lambda: len(self.engine.asked) > before)
        asking.cancel()
        await asyncio.wait_for(self.engine.aborted.wait(), 5)

    async def entries(self, count: int) -> list[Any]:
        """The journal, once it has so many entries; the books balance."""
        ledger = self.services.shards.ledgers["usd"]
        async with asyncio.timeout(5):
            while (await ledger.unfinished()).journal_entries < count:
                await asyncio.sleep(0.02)
        assert (await ledger.check()).balanced
        return [entry async for entry in ledger.entries()]

    async def record(self) -> InferenceRecord:
        """The one captured inference."""
        entries = await self.entries(3)
        assert [entry.kind for entry in entries] == ["deposit", "hold", "capture"]
        found = await self.services.shards.find(str(entries[-1].inference))
        assert found is not None
        return found[1]

    def metric(self, name: str, **labels: str) -> float:
        """One sample of the gateway's metrics."""
        return self.services.telemetry.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    server = RedisServer(tmp_path / "data", unix_socket=tmp_path / "s.sock")
    engine = FakeEngine()
    async with AsyncExitStack() as stack:
        stack.enter_context(running_redis(server))
        await deposit(server)
        engine_url = await stack.enter_async_context(serving_engine(engine))
        services = await services_over(server.url, engine_url, tmp_path)
        url, _ = await stack.enter_async_context(serving_gateway(services))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Shop(url, services, engine, http)


async def assert_paid(
    shop: Shop, source: UsageSource, *, prompt: int, completion: int, status: str = "499",
    route: str = "/v1/chat/completions",
) -> InferenceRecord:  # fmt: skip
    """One capture of exactly this; every leg as published."""
    record = await shop.record()
    usage, capture = record.capture.usage, record.capture
    assert (usage.source, usage.prompt_tokens) == (source, prompt)
    assert sum(usage.completion_tokens) == completion
    assert capture.partial
    charge = charge_nano(POLICY.adapter_price, prompt, completion)
    assert capture.charge_nano == charge == sum(record.legs.values())
    percent = {"platform": 10, "host": 15, "base:tiny": 5, "owner:med": 20,
               f"open:{capture.inference}": 50}  # fmt: skip
    assert record.legs.keys() == percent.keys()
    assert all(abs(record.legs[who] - charge * percent[who] / 100) < 1 for who in percent)
    ledger = shop.services.shards.ledgers["usd"]
    assert await ledger.balance("app:shop") == FUNDS - charge
    labels = {"route": route, "model": "med", "status": status}
    await eventually(lambda: shop.metric("byline_requests_total", **labels) == 1)
    return record


@pytest.mark.parametrize("fields", [CHAT, STREAM], ids=["plain", "stream"])
async def test_a_client_that_leaves_before_anything_came_pays_for_its_prompt(
    shop: Shop, fields: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gateway")
    shop.engine.pause = 30
    await shop.leave(fields)
    record = await assert_paid(shop, UsageSource.PROMPT_ONLY, prompt=PROMPT, completion=0)
    assert shop.engine.tokenized == [{"model": "tiny", "messages": CHAT["messages"]}]
    assert "(499)" in caplog.text
    assert "What helps?" not in caplog.text
    # The worker finds a prompt without an answer, and gives the pool to nobody.
    (choice,) = record.attributions
    assert choice.state is AttributionState.PENDING
    sha256 = str(record.capture.tokens_sha256)
    served = read_served(shop.services.served_folder, record.capture.inference, sha256)
    assert (served.prompt, served.choices) == ((11, 12, 13), ((),))


async def test_token_ids_of_a_prompt_are_counted_without_the_engine(shop: Shop) -> None:
    shop.engine.pause = 30
    await shop.leave({**COMPLETION, "n": 2}, "/v1/completions")
    route = "/v1/completions"
    await assert_paid(shop, UsageSource.PROMPT_ONLY, prompt=4, completion=0, route=route)
    assert not shop.engine.tokenized


@pytest.mark.parametrize(("side", "kept"), [(None, (7, 8)), ("left", (7, 8)), ("right", (5, 6))])
async def test_a_prompt_that_was_cut_is_the_part_that_the_engine_kept(
    shop: Shop, side: str | None, kept: tuple[int, ...]
) -> None:
    shop.engine.pause = 30
    cut = {"truncate_prompt_tokens": 2, "truncation_side": side}
    await shop.leave({**COMPLETION, **cut}, "/v1/completions")
    route = "/v1/completions"
    record = await assert_paid(shop, UsageSource.PROMPT_ONLY, prompt=2, completion=0, route=route)
    sha256 = str(record.capture.tokens_sha256)
    served = read_served(shop.services.served_folder, record.capture.inference, sha256)
    assert served.prompt == kept


@pytest.mark.parametrize(
    "change",
    [{"prompt": [1] * 2048}, {"prompt": [1] * 3000}],
)
async def test_a_prompt_that_the_engine_would_have_refused_is_free(
    shop: Shop, change: dict[str, object]
) -> None:
    shop.engine.pause = 30
    await shop.leave({**COMPLETION, **change}, "/v1/completions")
    assert [entry.kind for entry in await shop.entries(3)] == ["deposit", "hold", "void"]


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_a_prompt_that_can_not_be_counted_is_free(shop: Shop, status: int) -> None:
    shop.engine.pause, shop.engine.tokenizer_refuses = 30, status
    await shop.leave(CHAT)
    assert [entry.kind for entry in await shop.entries(3)] == ["deposit", "hold", "void"]
    assert await shop.services.shards.ledgers["usd"].balance("app:shop") == FUNDS


@pytest.mark.parametrize("content", [[{"type": "image_url", "image_url": {"url": "http://x/y"}}]])
async def test_a_prompt_with_more_than_text_is_not_guessed_at(shop: Shop, content: object) -> None:
    shop.engine.pause = 30
    await shop.leave({**CHAT, "messages": [{"role": "user", "content": content}]})
    assert [entry.kind for entry in await shop.entries(3)] == ["deposit", "hold", "void"]
    assert not shop.engine.tokenized


async def test_what_the_template_sees_is_counted_too(shop: Shop) -> None:
    shop.engine.pause = 30
    tools = [{"type": "function", "function": {"name": "f"}}]
    more = {"tools": tools, "documents": [{"text": "d"}], "reasoning_effort": "none",
            "chat_template_kwargs": {"a": 1}, "temperature": 0}  # fmt: skip
    await shop.leave({**CHAT, **more})
    await assert_paid(shop, UsageSource.PROMPT_ONLY, prompt=PROMPT, completion=0)
    (asked,) = shop.engine.tokenized
    assert asked.keys() == {"model", "messages", "tools", "chat_template_kwargs"}
    assert asked["chat_template_kwargs"] == {
        "a": 1, "documents": [{"text": "d"}], "reasoning_effort": "none", "enable_thinking": False,
    }  # fmt: skip


@pytest.mark.parametrize(("events", "completion"), [(1, 0), (2, 1), (3, 2)])
async def test_a_stream_that_is_cut_pays_for_the_token_ids_that_came(
    shop: Shop, events: int, completion: int
) -> None:
    shop.engine.hang_after = events  # the first has the role, and the prompt's ids
    headers = {"authorization": f"Bearer {SHOP}"}
    async with shop.http.post(
        f"{shop.url}/v1/chat/completions", json=STREAM, headers=headers
    ) as response:
        for _ in range(events):
            await response.content.readuntil(b"\n\n")
        response.close()
    await asyncio.wait_for(shop.engine.aborted.wait(), 5)
    source = UsageSource.COUNTED if completion else UsageSource.PROMPT_ONLY
    await assert_paid(shop, source, prompt=PROMPT, completion=completion)
    assert not shop.engine.tokenized


async def test_an_engine_that_dies_in_a_stream_is_paid_for_what_it_delivered(shop: Shop) -> None:
    shop.engine.stop_after = 3
    headers = {"authorization": f"Bearer {SHOP}"}
    async with shop.http.post(
        f"{shop.url}/v1/chat/completions", json=STREAM, headers=headers
    ) as response:
        events = (await response.read()).strip().split(b"\n\n")
    error = json.loads(events[-1].removeprefix(b"data: "))["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["code"], error["type"]) == ("engine_broke", "server_error")
    await assert_paid(shop, UsageSource.COUNTED, prompt=PROMPT, completion=2, status="200")


async def test_an_engine_that_dies_before_its_first_token_is_not_paid(shop: Shop) -> None:
    shop.engine.stop_after = 1
    headers = {"authorization": f"Bearer {SHOP}"}
    async with shop.http.post(
        f"{shop.url}/v1/chat/completions", json=STREAM, headers=headers
    ) as response:
        assert b"engine_broke" in await response.read()
    assert [entry.kind for entry in await shop.entries(3)] == ["deposit", "hold", "void"]


async def test_an_operator_can_settle_a_prompt_alone(shop: Shop) -> None:
    """The pool of a prompt alone is closed to `unattributed`, as the worker does it."""
    shop.engine.pause = 30
    await shop.leave(CHAT)
    record = await shop.record()
    ledger: Ledger = shop.services.shards.ledgers["usd"]
    (choice,) = record.attributions
    closed = type(choice)(
        inference=choice.inference, ordinal=0, state=AttributionState.SKIPPED, reason="no_tokens",
        adapter_version=choice.adapter_version, index=choice.index, pool_nano=choice.pool_nano,
    )  # fmt: skip
    await ledger.settle(closed, time_ms=record.time_ms + 1)
    after = await ledger.inference(choice.inference)
    assert after is not None
    assert after.legs[f"unattributed:{choice.adapter_version}"] == choice.pool_nano
    assert (await ledger.check()).balanced


class Leaver:
    """A request whose client leaves when it is told to; another server's says so in a message."""

    def __init__(self) -> None:
        self.scope: dict[str, object] = {}
        self._gone = asyncio.Event()

    def leave(self) -> None:
        self._gone.set()

    async def receive(self) -> dict[str, str]:
        await self._gone.wait()
        return {"type": "http.disconnect"}


class OwnLeaver(Leaver):
    """The same on a connection of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.presence = Presence()
        self.scope[PRESENCE] = self.presence

    def leave(self) -> None:  # a transport says so in a turn of its own
        asyncio.get_running_loop().call_soon(self.presence.end)


leavers = pytest.mark.parametrize("leaver", [Leaver, OwnLeaver])


@leavers
@pytest.mark.parametrize("swallows", [False, True])
async def test_work_is_undone_before_its_client_is_given_up(
    swallows: bool, leaver: type[Leaver]
) -> None:
    client, undone = leaver(), []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as problem:
            undone.append(True)
            if swallows:  # as a time limit does
                raise TimeoutError from problem
            raise

    asyncio.get_running_loop().call_later(0.01, client.leave)
    with pytest.raises(ClientGone):
        await unless_gone(cast(Request, client), work())
    assert undone
    await asyncio.sleep(0)  # we ourselves go on
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@leavers
async def test_who_is_cancelled_by_somebody_else_is_cancelled(leaver: type[Leaver]) -> None:
    task = asyncio.create_task(unless_gone(cast(Request, leaver()), asyncio.sleep(60)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@leavers
async def test_a_client_that_has_left_already_gets_no_work_done(leaver: type[Leaver]) -> None:
    client = leaver()
    client.leave()
    with pytest.raises(ClientGone):
        await unless_gone(cast(Request, client), asyncio.sleep(60))


@leavers
@pytest.mark.parametrize("turns", range(6))
async def test_a_client_that_leaves_as_the_answer_is_there_cancels_nothing_later(
    turns: int, leaver: type[Leaver]
) -> None:
    client = leaver()

    async def work() -> str:
        await asyncio.sleep(0)
        client.leave()
        for _ in range(turns):
            await asyncio.sleep(0)
        return "the answer"

    async def asked() -> bool:
        try:
            found = await unless_gone(cast(Request, client), work())
        except ClientGone:
            return False
        for _ in range(6):
            await asyncio.sleep(0)
        assert found == "the answer"
        return True

    assert await asyncio.create_task(asked()) or turns > 0
