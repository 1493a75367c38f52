"""Limits at the door: what a client is told, what is taken and given back, and what is never
served when the quotas do not answer."""

import asyncio
import dataclasses
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import uuid_utils

from byline.api_keys import ApiKeys, id_of
from byline.errors import LedgerRefused, LedgerUnavailable
from byline.quotas.quotas import Quotas
from byline.quotas.scopes import (
    Admitted,
    LimitName,
    Overdue,
    Quota,
    Refused,
    Scope,
    ScopeKind,
    Used,
    Want,
    Window,
)
from byline.records import Caller, KeyRole
from byline.redis_server import RedisServer, running_redis
from gateway import quotas as module
from gateway.quotas import Admissions, duration, scopes_of, wait_headers
from gateway.wire import Endpoint, read_question
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import CHAT, STREAM, House, eventually, serving_engine
from tests.gateway.real_ledger import ask, deposit, gateway_over, kinds_of, services_over

pytestmark = pytest.mark.anyio
APPLICATION = Scope(ScopeKind.APPLICATION, "shop")
MOST_TOKENS = 8 + read_question(Endpoint.CHAT, json.dumps(CHAT).encode()).prompt_tokens_max
USED_TOKENS = 6  # by an answer to CHAT: three of the prompt, three of the completion


def refused(name: LimitName, wait_ms: int | None = 1_200) -> Refused:
    return Refused(
        name, APPLICATION, 60, 60, 1, wait_ms, Window(60, 0, 61_000), Window(900, 100, 6_456)
    )


# --- what a client is told ---


@pytest.mark.parametrize(
    ("name", "type_", "code"),
    [
        (LimitName.REQUESTS, "requests", "rate_limit_exceeded"),
        (LimitName.TOKENS, "tokens", "rate_limit_exceeded"),
        (LimitName.DAY, "insufficient_quota", "insufficient_quota"),
        (LimitName.MONTH, "insufficient_quota", "insufficient_quota"),
    ],
)
async def test_a_limit_is_refused_as_openai_refuses(
    house: House, name: LimitName, type_: str, code: str
) -> None:
    house.quotas.answer = refused(name)
    answer = await house.ask(CHAT)
    assert answer.status == 429
    error = answer.fields["error"]
    assert (error["type"], error["code"], error["param"]) == (type_, code, None)
    assert "application 'shop'" in error["message"]
    told = {n: v for n, v in answer.headers.items() if n.startswith(("x-ratelimit", "retry"))}
    assert told == {
        "retry-after": "2",
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m1s",
        "x-ratelimit-limit-tokens": "900",
        "x-ratelimit-remaining-tokens": "100",
        "x-ratelimit-reset-tokens": "6.456s",
    }
    assert not house.engine.asked
    assert "hold" not in house.ledger.attempts
    assert house.metric("byline_limit_refusals_total", scope="application", limit=name) == 1


async def test_what_can_never_fit_is_not_to_be_tried_again(house: House) -> None:
    house.quotas.answer = refused(LimitName.TOKENS, wait_ms=None)
    answer = await house.ask(CHAT)
    assert answer.status == 429
    assert "retry-after" not in answer.headers
    assert answer.headers["x-should-retry"] == "false"
    assert "max_tokens" in answer.fields["error"]["message"]
    nothing = dataclasses.replace(refused(LimitName.REQUESTS, wait_ms=None), limit=0, used=0)
    house.quotas.answer = nothing
    assert "max_tokens" not in (await house.ask(CHAT)).fields["error"]["message"]
    # An exhausted budget's error carries the header itself: twice is not understood.
    assert wait_headers(refused(LimitName.DAY, wait_ms=None)) == {}


@pytest.mark.parametrize("fields", [CHAT, STREAM], ids=["plain", "stream"])
async def test_an_answer_says_what_is_left(house: House, fields: object) -> None:
    house.quotas.answer = Admitted(is_limited=True, requests=Window(60, 59, 60_250))
    answer = await house.ask(fields)
    assert answer.status == 200
    assert answer.headers["x-ratelimit-remaining-requests"] == "59"
    assert answer.headers["x-ratelimit-reset-requests"] == "1m0.25s"
    assert "x-ratelimit-limit-tokens" not in answer.headers


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0ms"), (12, "12ms"), (1_000, "1s"), (59_500, "59.5s"), (360_000, "6m0s")],
)
def test_durations_are_written_as_openai_writes_them(milliseconds: int, text: str) -> None:
    assert duration(milliseconds) == text


def test_a_caller_is_limited_by_its_key_its_application_and_its_organisation() -> None:
    caller = Caller(KeyRole.APPLICATION, "shop", "acme", "0123456789ab")
    assert set(map(str, scopes_of(caller))) == {
        "application:shop", "key:0123456789ab", "organisation:acme",
    }  # fmt: skip
    assert scopes_of(Caller(KeyRole.APPLICATION, "shop")) == (APPLICATION,)


# --- what is taken, and what is given back ---


async def test_the_most_that_is_possible_is_taken_and_what_was_used_stays(house: House) -> None:
    house.quotas.answer = Admitted(is_limited=True)
    answer = await house.ask({**CHAT, "n": 2, "max_tokens": 8})
    assert answer.status == 200
    (want,) = house.quotas.wants
    await eventually(lambda: house.quotas.corrections)
    capture = house.ledger.captures[want.inference]
    assert want.nano == capture.held_nano
    assert want.tokens > 2 * 8
    used = capture.usage.prompt_tokens + sum(capture.usage.completion_tokens)
    assert house.quotas.corrections == [(want.inference, 1, used, capture.charge_nano)]


async def test_a_refused_hold_gives_everything_back(house: House) -> None:
    house.quotas.answer = Admitted(is_limited=True)
    house.ledger.funds["shop"] = 0
    assert (await house.ask(CHAT)).fields["error"]["code"] == "insufficient_quota"
    await eventually(lambda: house.quotas.corrections)
    assert house.quotas.corrections == [(house.quotas.wants[0].inference, 0, 0, 0)]


async def test_an_engine_that_fails_costs_a_request_and_no_tokens(house: House) -> None:
    house.quotas.answer = Admitted(is_limited=True)
    house.engine.refuses = (400, {"error": {"message": "no"}})
    assert (await house.ask(CHAT)).status == 400
    await eventually(lambda: house.quotas.corrections)
    assert house.quotas.corrections == [(house.quotas.wants[0].inference, 1, 0, 0)]


async def test_a_charge_that_the_ledger_refused_is_in_no_budget(house: House) -> None:
    house.quotas.answer = Admitted(is_limited=True)
    house.ledger.refusals["capture"] = deque([LedgerRefused("no")])
    assert (await house.ask(CHAT)).status == 200
    await eventually(lambda: house.quotas.corrections)
    ((_, requests, tokens, nano),) = house.quotas.corrections
    assert (requests, nano) == (1, 0)
    assert tokens > 0


async def test_who_has_no_limit_is_asked_for_once_in_a_while(house: House) -> None:
    for _ in range(3):
        assert (await house.ask(CHAT)).status == 200
    assert len(house.quotas.wants) == 1
    assert house.quotas.corrections == []


# --- when the quotas do not answer ---


async def test_without_an_answer_nothing_is_served_and_what_was_perhaps_taken_is_given_back(
    house: House,
) -> None:
    house.quotas.away = True
    answer = await house.ask(CHAT)
    assert answer.status == 503
    assert answer.fields["error"]["code"] == "ledger_unavailable"
    assert not house.engine.asked
    assert "hold" not in house.ledger.attempts
    house.quotas.away = False
    await house.stop()  # what was not sent goes with the stopping gateway's last attempt
    assert house.quotas.corrections == [(house.quotas.wants[0].inference, 0, 0, 0)]


async def test_what_could_not_be_given_back_is_remembered_up_to_a_bound(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond it, it is overdue like what a dead gateway had taken."""
    monkeypatch.setattr(module, "UNSENT_MAX", 2)
    house.quotas.away = True
    for _ in range(4):
        assert (await house.ask(CHAT)).status == 503
    house.quotas.away = False
    await house.stop()
    assert len(house.quotas.wants) == 4
    assert len(house.quotas.corrections) == 2


async def test_a_shard_that_is_away_holds_up_only_its_own_reservations(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, found = (
        Overdue(name, name, (Scope(ScopeKind.APPLICATION, name),), is_looked_at=True)
        for name in ("lost", "found")
    )

    async def find(_: str, *, payer: str) -> None:
        if payer == "lost":
            raise LedgerUnavailable("its shard is away")

    async def overdue(**_: int) -> list[Overdue]:
        return [lost, found]

    monkeypatch.setattr(house.services.shards, "find", find)
    monkeypatch.setattr(house.quotas, "overdue", overdue)
    admissions = Admissions(house.services)
    admissions.start()
    await eventually(lambda: house.quotas.corrections)
    await admissions.drain(5)
    assert [inference for inference, *_ in house.quotas.corrections] == ["found"]


# --- over a real server ---


@asynccontextmanager
async def real(
    tmp_path: Path,
) -> AsyncIterator[tuple[RedisServer, FakeEngine, str, AsyncExitStack]]:
    server = RedisServer(tmp_path / "data", unix_socket=tmp_path / "s.sock")
    async with AsyncExitStack() as stack:
        engine = FakeEngine()
        engine_url = await stack.enter_async_context(serving_engine(engine))
        stack.enter_context(running_redis(server))
        await deposit(server)
        yield server, engine, engine_url, stack


@pytest.mark.slow
async def test_two_gateways_together_serve_exactly_what_the_limit_allows(tmp_path: Path) -> None:
    async with real(tmp_path) as (server, engine, engine_url, stack):
        operator = Quotas.of(server.url)
        await operator.set(APPLICATION, Quota(requests_per_minute=7, nano_per_day=10**9))
        urls = [
            await stack.enter_async_context(
                gateway_over(await services_over(server.url, engine_url, tmp_path / str(number)))
            )
            for number in range(2)
        ]
        answers = await asyncio.gather(*(ask(urls[number % 2], CHAT) for number in range(30)))
        assert sorted(status for status, _ in answers) == [200] * 7 + [429] * 23
        assert len(engine.asked) == 7

        async def used() -> Used:
            return await operator.used(APPLICATION)

        async with asyncio.timeout(5):
            # Each answer: three tokens of the prompt and three of the answer; no hold is as small.
            while (found := await used()).nano_of_day > 7 * 100_000 or found.tokens != 7 * 6:
                await asyncio.sleep(0.02)
        assert found.requests == 7
        await operator.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quota", "admitted"),
    [
        (Quota(requests_per_minute=7), 7),
        # Room for what one may use at most while four are over, whatever that is: so five begin.
        (Quota(tokens_per_minute=MOST_TOKENS + 4 * USED_TOKENS), 5),
    ],
)
async def test_an_api_keys_limit_holds_over_two_gateways_and_leaves_other_keys_alone(
    tmp_path: Path, quota: Quota, admitted: int
) -> None:
    async with real(tmp_path) as (server, engine, engine_url, stack):
        operator, keys = Quotas.of(server.url), await ApiKeys.open(server.url)
        limited, free = [await keys.create(KeyRole.APPLICATION, "shop", now_ms=1) for _ in range(2)]
        scope = Scope(ScopeKind.KEY, id_of(limited))
        await operator.set(scope, quota)
        urls = []
        for number in range(2):
            services = await services_over(server.url, engine_url, tmp_path / str(number))
            own = dataclasses.replace(services, keys=await ApiKeys.open(server.url))
            urls.append(await stack.enter_async_context(gateway_over(own)))

        async def served(rounds: int) -> int:
            answers = []
            for _ in range(rounds):
                answers += await asyncio.gather(*(ask(url, CHAT, limited) for url in urls))
                await quiet(operator, scope, sum(status == 200 for status, _ in answers))
            assert {status for status, _ in answers} == {200, 429}
            assert all(b"this API key" in body for status, body in answers if status == 429)
            return sum(status == 200 for status, _ in answers)

        assert await served(10) == len(engine.asked) == admitted
        others = await asyncio.gather(*(ask(url, CHAT, free) for url in urls * 5))
        assert [status for status, _ in others] == [200] * 10
        await keys.close()
        await operator.close()


async def quiet(operator: Quotas, scope: Scope, answered: int) -> None:
    """Wait until what was taken for these answers is corrected to what they used."""
    async with asyncio.timeout(5):
        while (await operator.used(scope)).tokens != answered * USED_TOKENS:
            await asyncio.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("captured", [True, False])
async def test_what_a_dead_gateway_left_is_settled_by_what_the_ledger_says(
    tmp_path: Path, captured: bool
) -> None:
    async with real(tmp_path) as (server, _, engine_url, stack):
        operator = Quotas.of(server.url)
        await operator.set(APPLICATION, Quota(nano_per_day=10**9))
        services = await services_over(server.url, engine_url, tmp_path)
        url = await stack.enter_async_context(gateway_over(services))
        inference, charge = str(uuid_utils.uuid7()), 0
        if captured:
            assert (await ask(url, CHAT))[0] == 200
            assert await kinds_of(server, count=3) == ["deposit", "hold", "capture"]
            entries = [entry async for entry in services.shards.ledgers["usd"].entries()]
            (captures,) = [entry for entry in entries if entry.kind == "capture"]
            assert captures.inference is not None
            inference, charge = captures.inference, captures.charge
            await eventually_used(operator, charge)
            raw = operator._line
            await raw.call("DEL", f"{{byline:quotas}}:reservation:{inference}")
        want = Want(inference, "shop", (APPLICATION,), tokens=5, nano=10**6)
        await operator.admit(want, lasts_ms=0)
        admissions = Admissions(services)
        (overdue,) = await operator.overdue()
        await admissions._settle(overdue)
        await eventually_used(operator, 2 * charge)  # it was admitted twice, by this test
        assert await operator.overdue() == []
        # A charge that comes later still, from a spool, is found at the second look.
        assert await operator.correct(inference, [APPLICATION], tokens=0, nano=9) is not captured
        await operator.close()


async def eventually_used(operator: Quotas, nano: int) -> None:
    async with asyncio.timeout(5):
        while (await operator.used(APPLICATION)).nano_of_day != nano:
            await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_limit_that_is_set_while_a_caller_has_none_is_in_force_within_five_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUOTA_UNLIMITED_SECONDS", 1.0)
    async with real(tmp_path) as (server, _, engine_url, stack):
        services = await services_over(server.url, engine_url, tmp_path)
        url = await stack.enter_async_context(gateway_over(services))
        assert (await ask(url, CHAT))[0] == 200
        operator = Quotas.of(server.url)
        await operator.set(APPLICATION, Quota(requests_per_minute=0))
        assert (await ask(url, CHAT))[0] == 200
        await asyncio.sleep(1.05)
        assert (await ask(url, CHAT))[0] == 429
        await operator.close()
