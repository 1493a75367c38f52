"""A secret is shown once and stored only as its hash."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from typer.testing import CliRunner

from byline.api_keys import KEYS, ApiKeys, id_of
from byline.command.__main__ import app
from byline.errors import InvalidInput, LedgerUnavailable, NotFound, Unauthenticated
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
    revoked = await api_keys.revoke(id_of(lost), now_ms=3_000)
    assert (revoked.subject, revoked.created_ms, revoked.revoked_ms) == ("lost", 1_000, 3_000)
    with pytest.raises(Unauthenticated, match="revoked"):
        await api_keys.find(lost)
    assert await api_keys.find(kept) == Caller(KeyRole.OWNER, "kept")
    assert await api_keys.revoke(id_of(lost), now_ms=9_000) == revoked
    listed = [key for key in await api_keys.known() if key.id in (id_of(lost), id_of(kept))]
    assert [(key.subject, key.revoked_ms) for key in listed] == [("lost", 3_000), ("kept", None)]
    assert lost[4:] not in str(listed)


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

    made = said("create", "--role", "application", "shop")
    (listed,) = [key for key in said("list")["keys"] if key["id"] == made["id"]]
    assert listed.pop("created").startswith("20")
    assert listed.pop("organisation") is None
    assert listed == {"id": made["id"], "role": "application", "subject": "shop", "revoked": None}
    assert said("revoke", made["id"])["revoked"].startswith("20")
    text = CliRunner().invoke(app, ["keys", "list", "--redis-url", redis_url]).output
    assert made["id"] in text
    assert made["key"] not in text


async def test_no_server_is_unavailable() -> None:
    with pytest.raises(LedgerUnavailable):
        await ApiKeys.open("unix:///nothing.sock")
