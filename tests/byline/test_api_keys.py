"""A secret is shown once and stored only as its hash."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from typer.testing import CliRunner

from byline.api_keys import KEYS, ApiKeys, id_of
from byline.command.__main__ import app
from byline.errors import InvalidInput, LedgerUnavailable, NotFound, Unauthenticated
from byline.limits import API_KEY_SECONDS
from byline.posting.redis_client import Client
from byline.records import Caller, KeyRole

pytestmark = pytest.mark.anyio


@pytest.fixture
async def api_keys(redis_url: str) -> AsyncIterator[ApiKeys]:
    opened = await ApiKeys.open(redis_url)
    yield opened
    await opened.close()


@pytest.mark.parametrize("role", KeyRole)
async def test_a_key_stands_for_whom_it_was_made(api_keys: ApiKeys, role: KeyRole) -> None:
    secret = await api_keys.create(role, "demo", now_ms=1)
    assert secret.startswith("byl_")
    assert len(secret) == 47
    assert await api_keys.find(secret) == Caller(role, "demo")


async def test_the_secret_itself_is_not_stored(api_keys: ApiKeys, redis: Client) -> None:
    secret = await api_keys.create(KeyRole.APPLICATION, "demo", now_ms=1)
    stored = str(await redis.hgetall(KEYS))
    assert secret not in stored
    assert secret.removeprefix("byl_") not in stored


@pytest.mark.parametrize("secret", ["", "byl_", "byl_" + "a" * 43, "sk-" + "a" * 44, "é" * 47])
async def test_an_unknown_key_is_unauthenticated(api_keys: ApiKeys, secret: str) -> None:
    with pytest.raises(Unauthenticated):
        await api_keys.find(secret)


@pytest.mark.parametrize("subject", ["", "a b", "a/b", "a:b", "a" * 65, "é"])
async def test_a_subject_that_is_no_account_is_refused(api_keys: ApiKeys, subject: str) -> None:
    with pytest.raises(InvalidInput, match="subject"):
        await api_keys.create(KeyRole.CONTRIBUTOR, subject, now_ms=1)


async def test_an_application_may_belong_to_an_organisation(api_keys: ApiKeys) -> None:
    secret = await api_keys.create(KeyRole.APPLICATION, "shop", now_ms=1, organisation="acme")
    caller = await api_keys.find(secret)
    assert (caller.organisation, caller.key) == ("acme", id_of(secret))
    for role, name in [(KeyRole.OWNER, "acme"), (KeyRole.APPLICATION, "a b")]:
        with pytest.raises(InvalidInput, match="organisation"):
            await api_keys.create(role, "shop", now_ms=1, organisation=name)


async def test_a_revoked_key_is_refused_and_stays_on_the_list(api_keys: ApiKeys) -> None:
    lost = await api_keys.create(KeyRole.OWNER, "lost", now_ms=1_000)
    kept = await api_keys.create(KeyRole.OWNER, "kept", now_ms=2_000)
    await api_keys.find(lost)  # who revokes a key remembers it no more
    revoked = await api_keys.revoke(id_of(lost), now_ms=3_000)
    assert (revoked.subject, revoked.created_ms, revoked.revoked_ms) == ("lost", 1_000, 3_000)
    with pytest.raises(Unauthenticated, match="revoked"):
        await api_keys.find(lost)
    assert await api_keys.find(kept) == Caller(KeyRole.OWNER, "kept")
    assert await api_keys.revoke(id_of(lost), now_ms=9_000) == revoked
    listed = [key for key in await api_keys.known() if key.id in (id_of(lost), id_of(kept))]
    assert [(key.subject, key.revoked_ms) for key in listed] == [("lost", 3_000), ("kept", None)]
    assert lost[4:] not in str(listed)


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_key_revoked_elsewhere_is_refused_a_second_after_it_was_looked_up(
    api_keys: ApiKeys, redis_url: str
) -> None:
    clock = Clock()
    gateway = await ApiKeys.open(redis_url, clock=clock)
    secret = await api_keys.create(KeyRole.APPLICATION, "shop", now_ms=1)
    assert await gateway.find(secret) == Caller(KeyRole.APPLICATION, "shop")
    await api_keys.revoke(id_of(secret), now_ms=2)
    clock.now += API_KEY_SECONDS - 0.001
    assert await gateway.find(secret) == Caller(KeyRole.APPLICATION, "shop")
    clock.now += 0.001  # asking for it again has not made it live longer
    for _ in range(2):
        with pytest.raises(Unauthenticated, match="revoked"):
            await gateway.find(secret)
    await gateway.close()


async def test_a_slow_look_up_is_remembered_from_when_it_was_begun(
    api_keys: ApiKeys, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    gateway = await ApiKeys.open(redis_url, clock=clock)
    secret = await api_keys.create(KeyRole.APPLICATION, "shop", now_ms=1)
    hget = gateway._redis.hget

    async def slow(*asked: str) -> Any:
        answer = await hget(*asked)
        await api_keys.revoke(id_of(secret), now_ms=2)
        clock.now += API_KEY_SECONDS
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(gateway._redis, "hget", slow)
        await gateway.find(secret)
    with pytest.raises(Unauthenticated, match="revoked"):
        await gateway.find(secret)
    await gateway.close()


async def test_all_who_show_a_key_at_once_wait_for_one_look_up(
    api_keys: ApiKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = await api_keys.create(KeyRole.APPLICATION, "shop", now_ms=1)
    hget, asked = api_keys._redis.hget, 0

    async def counted(*words: str) -> Any:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.05)
        return await hget(*words)

    monkeypatch.setattr(api_keys._redis, "hget", counted)
    burst = [asyncio.create_task(api_keys.find(secret)) for _ in range(1_000)]
    await asyncio.sleep(0)
    burst[0].cancel()  # the one who began it leaves: the others are not disturbed
    found = await asyncio.gather(*burst, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [Caller(KeyRole.APPLICATION, "shop")] * 999
    assert asked == 1
    unknown = "byl_" + "a" * 43
    refused = await asyncio.gather(*(api_keys.find(unknown) for _ in range(9)),
                                   return_exceptions=True)  # fmt: skip
    assert all(isinstance(each, Unauthenticated) for each in refused)
    assert asked == 2
    with pytest.raises(Unauthenticated):
        await api_keys.find(unknown)
    assert asked == 3


async def test_a_key_that_was_not_known_is_found_as_soon_as_it_is(
    api_keys: ApiKeys, redis: Client
) -> None:
    secret = await api_keys.create(KeyRole.APPLICATION, "shop", now_ms=1)
    (at_rest,) = [each for each in await redis.hkeys(KEYS) if each.startswith(id_of(secret))]
    stored = await redis.hget(KEYS, at_rest)
    await redis.hdel(KEYS, at_rest)
    with pytest.raises(Unauthenticated, match="not known"):
        await api_keys.find(secret)
    await redis.hset(KEYS, at_rest, stored)
    assert (await api_keys.find(secret)).subject == "shop"


async def test_what_is_remembered_has_a_bound_and_no_secret(
    api_keys: ApiKeys, redis: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byline.api_keys.API_KEYS_REMEMBERED_MAX", 2)
    secrets = [await api_keys.create(KeyRole.APPLICATION, f"shop{n}", now_ms=1) for n in range(3)]
    for secret in secrets:
        await api_keys.find(secret)
    assert len(api_keys._remembered) == 2
    assert not any(secret[4:] in str(api_keys._remembered) for secret in secrets)
    await redis.delete(KEYS)
    assert (await api_keys.find(secrets[2])).subject == "shop2"  # from memory
    with pytest.raises(Unauthenticated):  # the oldest made room
        await api_keys.find(secrets[0])


async def test_what_names_no_single_key_revokes_none(api_keys: ApiKeys, redis: Client) -> None:
    secret = await api_keys.create(KeyRole.OPERATOR, "ops", now_ms=1)
    before = await redis.hgetall(KEYS)
    for slip in (
        "",
        "a",
        id_of(secret)[:11],
        id_of(secret) + "?",
        secret,
        id_of(secret).upper()[:11],
    ):
        with pytest.raises(InvalidInput, match="byline keys list"):
            await api_keys.revoke(slip, now_ms=2)
    with pytest.raises(NotFound, match="no API keys"):
        await api_keys.revoke("0" * 12, now_ms=2)
    twin = f"{id_of(secret)}{'0' * 52}"
    await redis.hset(KEYS, twin, next(iter(before.values())))
    with pytest.raises(NotFound, match="2 API keys"):
        await api_keys.revoke(id_of(secret), now_ms=2)
    await redis.hdel(KEYS, twin)
    assert await redis.hgetall(KEYS) == before


def test_an_operator_lists_and_revokes_keys(redis_url: str) -> None:
    def said(*words: str) -> Any:
        words = ("keys", *words, "--redis-url", redis_url)
        outcome = CliRunner().invoke(app, [*words, "--json"])
        assert outcome.exit_code == 0, outcome.exception
        return json.loads(outcome.output)

    made = said("create", "--role", "application", "shop", "--organisation", "acme")
    (listed,) = [key for key in said("list")["keys"] if key["id"] == made["id"]]
    assert listed.pop("created").startswith("20")
    assert listed.pop("organisation") == made["organisation"] == "acme"
    assert listed == {"id": made["id"], "role": "application", "subject": "shop", "revoked": None}
    assert said("revoke", made["id"])["revoked"].startswith("20")
    text = CliRunner().invoke(app, ["keys", "list", "--redis-url", redis_url]).output
    assert made["id"] in text
    assert made["key"] not in text


async def test_no_server_is_unavailable() -> None:
    with pytest.raises(LedgerUnavailable):
        await ApiKeys.open("unix:///nothing.sock")
