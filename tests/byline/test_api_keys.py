"""A secret is shown once and stored only as its hash."""

from collections.abc import AsyncIterator

import pytest

from byline.api_keys import KEYS, ApiKeys
from byline.errors import InvalidInput, LedgerUnavailable, Unauthenticated
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


async def test_no_server_is_unavailable() -> None:
    with pytest.raises(LedgerUnavailable):
        await ApiKeys.open("unix:///nothing.sock")
