"""Quotas under several processes at once, and when a process or the server goes away."""

import asyncio
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

from byline.errors import LedgerUnavailable
from byline.posting.redis_client import Client
from byline.quotas import quotas as module
from byline.quotas.quotas import Quotas, reservation_key
from byline.quotas.scopes import Admitted, Quota, Refused, Scope, ScopeKind, Used, Want
from byline.redis_server import RedisServer, running_redis

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
GATEWAYS, REQUESTS_EACH = 4, 200


def scope() -> Scope:
    return Scope(ScopeKind.APPLICATION, uuid.uuid4().hex)


def start(*words: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.byline.quota_gateway", *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


async def ended(programs: Sequence["subprocess.Popen[str]"]) -> list[str]:
    answers = [await asyncio.to_thread(program.communicate, timeout=60) for program in programs]
    return [output for output, _ in answers]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quota", "admitted"),
    [
        (Quota(requests_per_minute=101), 101),
        (Quota(tokens_per_minute=302), 100),  # 3 each
        (Quota(nano_per_month=504), 100),  # 5 each
        (Quota(requests_per_minute=90, tokens_per_minute=10**6, nano_per_day=10**6), 90),
    ],
)
async def test_four_processes_admit_together_exactly_what_the_limit_allows(
    redis_url: str, quota: Quota, admitted: int
) -> None:
    quotas, shop = Quotas.of(redis_url), scope()
    await quotas.set(shop, quota)
    programs = [start(redis_url, shop, REQUESTS_EACH) for _ in range(GATEWAYS)]
    counts = [int(output) for output in await ended(programs)]
    assert sum(counts) == admitted
    assert await quotas.used(shop) == Used(admitted, 3 * admitted, 5 * admitted, 5 * admitted)
    await quotas.close()


@pytest.mark.slow
async def test_applications_in_several_processes_share_their_organisations_limit_and_keep_their_own(
    redis_url: str,
) -> None:
    quotas, acme = Quotas.of(redis_url), Scope(ScopeKind.ORGANISATION, uuid.uuid4().hex)
    shops = [scope() for _ in range(GATEWAYS)]
    await quotas.set(acme, Quota(requests_per_minute=101))
    await quotas.set(shops[0], Quota(tokens_per_minute=61))  # 20 requests
    programs = [start(redis_url, f"{shop},{acme}", REQUESTS_EACH) for shop in shops]
    counts = [int(output) for output in await ended(programs)]
    assert sum(counts) == 101
    assert counts[0] <= 20
    assert await quotas.used(acme) == Used(101, 3 * 101, 5 * 101, 5 * 101)
    assert (await quotas.used(shops[0])).requests == counts[0]
    await quotas.close()


@pytest.mark.slow
async def test_what_a_killed_gateway_had_taken_is_overdue(redis_url: str, redis: Client) -> None:
    await redis.delete(module.OPEN)
    quotas, shop = Quotas.of(redis_url), scope()
    await quotas.set(shop, Quota(nano_per_month=5))
    program = start(redis_url, shop, 1, "--die")
    await ended([program])
    assert program.returncode == -9
    want = Want(uuid.uuid4().hex, "shop", (shop,), tokens=1, nano=1)
    assert isinstance(await quotas.admit(want, lasts_ms=60_000), Refused)
    await asyncio.sleep(0.3)
    (overdue,) = await quotas.overdue()
    await quotas.correct(overdue.inference, overdue.scopes, tokens=0, nano=0)
    assert isinstance(await quotas.admit(want, lasts_ms=60_000), Admitted)
    await quotas.close()


async def test_a_server_that_goes_away_refuses_and_its_return_is_found(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "data", unix_socket=tmp_path / "s.sock")
    shop = scope()
    quotas = Quotas.of(server.url, timeout_seconds=0.5)

    def want() -> Want:
        return Want(uuid.uuid4().hex, "shop", (shop,), tokens=1, nano=1)

    with running_redis(server):
        await quotas.set(shop, Quota(requests_per_minute=3))
        assert isinstance(await quotas.admit(want(), lasts_ms=60_000), Admitted)
    for _ in range(2):
        with pytest.raises(LedgerUnavailable):
            await quotas.admit(want(), lasts_ms=60_000)
    with running_redis(server):
        assert isinstance(await quotas.admit(want(), lasts_ms=60_000), Admitted)
        assert (await quotas.used(shop)).requests == 2  # what was taken had been written
    await quotas.close()


async def test_a_server_that_stalls_refuses_all_who_wait_in_one_time(redis_url: str) -> None:
    quotas, shop = Quotas.of(redis_url, timeout_seconds=0.5), scope()
    await quotas.set(shop, Quota(requests_per_minute=3))
    pause = Quotas.of(redis_url)
    await pause._line.call("CLIENT", "PAUSE", 10_000, "WRITE")
    began = time.monotonic()
    wants = [Want(uuid.uuid4().hex, "shop", (shop,), tokens=1, nano=1) for _ in range(20)]
    answers = await asyncio.gather(
        *(quotas.admit(want, lasts_ms=60_000) for want in wants), return_exceptions=True
    )
    assert all(isinstance(answer, LedgerUnavailable) for answer in answers)
    assert time.monotonic() - began < 2.0  # one after the other they would take ten seconds
    await pause._line.call("CLIENT", "UNPAUSE")
    for want in wants:  # perhaps taken: given back, as the gateway does
        await pause.correct(want.inference, [shop], requests=0, tokens=0, nano=0)
    assert await pause.used(shop) == Used(0, 0, 0, 0)
    await pause.close()
    await quotas.close()


async def test_scripts_that_the_server_forgot_are_sent_again(redis_url: str, redis: Client) -> None:
    quotas, shop = Quotas.of(redis_url), scope()
    await quotas.set(shop, Quota(requests_per_minute=3))
    await quotas.used(shop)
    await redis.script_flush()
    with pytest.raises(LedgerUnavailable, match="NOSCRIPT"):
        await quotas.used(shop)
    assert await quotas.used(shop) == Used(0, 0, 0, 0)
    await quotas.close()


async def test_a_key_of_another_type_is_found_before_the_first_write(
    redis_url: str, redis: Client
) -> None:
    quotas, shop = Quotas.of(redis_url), scope()
    await quotas.set(shop, Quota(requests_per_minute=3))
    want = Want(uuid.uuid4().hex, "shop", (shop,), tokens=1, nano=1)
    await redis.set(reservation_key(want.inference), "text")
    with pytest.raises(LedgerUnavailable, match="WRONGTYPE"):
        await quotas.admit(want, lasts_ms=60_000)
    assert await quotas.used(shop) == Used(0, 0, 0, 0)
    await quotas.close()
