"""A key that was revoked is refused by the gateway that is already running, a second later."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from byline.api_keys import ApiKeys, id_of
from byline.limits import API_KEY_SECONDS
from byline.records import KeyRole
from byline.redis_server import RedisServer, running_redis
from tests.gateway.conftest import CHAT, House

pytestmark = pytest.mark.anyio


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    server = RedisServer(tmp_path / "redis", unix_socket=tmp_path / "redis.sock")
    with running_redis(server):
        yield server.url


@pytest.fixture
async def keys(
    redis_url: str, house: House, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ApiKeys]:
    """Another program's way to the keys; the gateway looks them up over a connection of its own."""
    ours, gateways = await ApiKeys.open(redis_url), await ApiKeys.open(redis_url)
    monkeypatch.setattr(house.keys, "find", gateways.find)
    yield ours
    await ours.close()
    await gateways.close()


async def test_a_revoked_key_is_refused_within_a_second_and_no_other_with_it(
    house: House, keys: ApiKeys
) -> None:
    secret = await keys.create(KeyRole.APPLICATION, "shop", now_ms=1)
    other = await keys.create(KeyRole.APPLICATION, "shop", now_ms=1)
    assert (await house.ask(CHAT, key=secret)).status == 200
    await keys.revoke(id_of(secret), now_ms=2)
    await asyncio.sleep(API_KEY_SECONDS)
    refused = await house.ask(CHAT, key=secret)
    assert (refused.status, refused.fields["error"]["code"]) == (401, "invalid_api_key")
    assert "revoked" in refused.fields["error"]["message"]
    assert (await house.ask(CHAT, key=other)).status == 200
