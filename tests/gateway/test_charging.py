"""Charges over a real ledger that goes away: what was served is paid once, what can't be kept is
not begun; also when the gateway is killed meanwhile."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
import uuid_utils

from byline.delivery.spool import REFUSED, Spool
from byline.errors import KeyConflict, SpoolFull
from byline.ledger.ledger import Ledger
from byline.posting import postings
from byline.redis_server import running_redis
from tests.gateway.conftest import CHAT, SHOP, STREAM, House, eventually
from tests.gateway.real_ledger import (
    FUNDS,
    Place,
    ask,
    clock_ms,
    deposit,
    gateway_over,
    kinds_of,
)

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
SMALL_SPOOL = 64 * 1024


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with Place.made(tmp_path) as made:
        yield made


@pytest.mark.parametrize("fields", [CHAT, STREAM], ids=["plain", "stream"])
async def test_an_answer_during_which_the_ledger_stops_is_served_and_charged_when_it_is_back(
    place: Place, fields: object
) -> None:
    with running_redis(place.server):
        await deposit(place.server)
        services = await place.services()
        url = await place.gateway(services)
        asking = await place.asked(url, fields)
    status, body = await asking
    assert status == 200
    assert body
    registry = services.telemetry.registry
    assert registry.get_sample_value("byline_spool_waiting") == 1
    await asyncio.sleep(0.05)
    assert 0 < (registry.get_sample_value("byline_spool_oldest_seconds") or 0) < 10
    status, body = await ask(url, fields)
    assert (status, b"ledger_unavailable" in body) == (503, True)
    with running_redis(place.server):
        assert await kinds_of(place.server, count=3) == ["deposit", "hold", "capture"]
        await eventually(lambda: registry.get_sample_value("byline_spool_waiting") == 0)
        assert registry.get_sample_value("byline_spool_oldest_seconds") == 0


async def test_a_hold_of_an_engine_that_fails_while_the_ledger_is_away_goes_back(
    place: Place,
) -> None:
    place.engine.stop_after = 0
    with running_redis(place.server):
        await deposit(place.server)
        url = await place.gateway()
        asking = await place.asked(url)
    assert (await asking)[0] == 502
    with running_redis(place.server):
        assert await kinds_of(place.server, count=3) == ["deposit", "hold", "void"]


VICTIM = """
import asyncio, sys
from pathlib import Path
from tests.gateway.conftest import serving_gateway
from tests.gateway.real_ledger import services_over

async def serve() -> None:
    services = await services_over(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    async with serving_gateway(services) as (url, _):
        print(url, flush=True)
        await asyncio.sleep(60)

asyncio.run(serve())
"""


@asynccontextmanager
async def gateway_process(
    place: Place,
) -> AsyncIterator[tuple[str, "subprocess.Popen[str]"]]:
    """A gateway in a process of its own, and its address; its engine is in this process."""
    process = subprocess.Popen(
        [sys.executable, "-c", VICTIM, place.server.url, place.engine_url, str(place.home)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "src:."},
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        yield (await asyncio.to_thread(process.stdout.readline)).strip(), process
        process.kill()


async def test_a_gateway_killed_while_the_ledger_is_down_leaves_its_charge_to_the_next(
    place: Place,
) -> None:
    with running_redis(place.server):
        await deposit(place.server)
        victim = gateway_process(place)
        url, process = await place.running.enter_async_context(victim)
        asking = await place.asked(url)
    assert (await asking)[0] == 200
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    with running_redis(place.server):
        async with gateway_over(await place.services()):
            assert await kinds_of(place.server, count=3) == ["deposit", "hold", "capture"]
    assert not list((place.home / "spool").rglob("*.spool"))


async def test_a_full_spool_refuses_holds_before_the_engine_is_asked(place: Place) -> None:
    with running_redis(place.server):
        await deposit(place.server)
        services = await place.services(spool_bytes_max=SMALL_SPOOL)
        ledger, spool = services.shards.ledgers["usd"], services.spools["usd"]
        await ledger.freeze("until the test has asked")
        with pytest.raises(SpoolFull):
            await fill(spool)
        async with gateway_over(services) as url:
            status, body = await ask(url, CHAT)
            assert (status, b'"spool_full"' in body) == (503, True)
            assert not place.engine.asked
            await ledger.thaw()
            await eventually(lambda: spool.waiting == 0)
            assert (await ask(url, CHAT))[0] == 200
            assert await kinds_of(place.server, count=3) == ["deposit", "hold", "capture"]


async def fill(spool: Spool) -> None:
    """Voids of what was never held: the ledger refuses them as soon as it is asked."""
    for _ in range(1_000):
        spool.require_room()
        void = postings.void(str(uuid_utils.uuid7()), "shop", time_ms=clock_ms())
        await spool.write(void, time_ms=clock_ms())


async def test_a_raised_epoch_needs_no_restart(place: Place) -> None:
    with running_redis(place.server):
        await deposit(place.server)
        services = await place.services()
        async with gateway_over(services) as url, aiohttp.ClientSession() as http:
            for asks in (True, False):
                operator = await Ledger.open(place.server.url)
                await operator.promote()
                await operator.close()
                if asks:
                    assert (await ask(url, CHAT))[0] == 200
                async with http.get(f"{url}/readyz") as response:
                    assert response.status == 200
            assert await kinds_of(place.server, count=3) == ["deposit", "hold", "capture"]


async def test_a_stopping_gateway_leaves_what_waits_to_the_next(place: Place) -> None:
    with running_redis(place.server):
        await deposit(place.server)
        url = await place.gateway()
        asking = await place.asked(url)
    assert (await asking)[0] == 200
    await place.running.aclose()
    with running_redis(place.server):
        async with gateway_over(await place.services()):
            assert await kinds_of(place.server, count=3) == ["deposit", "hold", "capture"]


@pytest.mark.parametrize("fields", [CHAT, STREAM], ids=["plain", "stream"])
async def test_an_answer_that_outlives_its_hold_is_served_charged_and_marked_late(
    place: Place, fields: object
) -> None:
    place.engine.pause = 0.4
    with running_redis(place.server):
        await deposit(place.server)
        given = await place.services()
        services = replace(given, limits=replace(given.limits, hold_seconds=0.1))
        url = await place.gateway(services)
        ledger = services.shards.ledgers["usd"]
        asking = asyncio.create_task(ask(url, fields))
        async with asyncio.timeout(5):
            while not (expired := await ledger.expired_holds(now_ms=clock_ms())):
                await asyncio.sleep(0.02)
        (inference,) = expired
        assert not asking.done()
        assert await ledger.expire(inference, time_ms=clock_ms()) is not None  # as a worker does
        assert await ledger.balance("app:shop") == FUNDS
        status, body = await asking
        assert status == 200
        assert not isinstance(fields, dict) or not fields.get("stream") or b"[DONE]" in body
        kinds = await kinds_of(place.server, count=4)
        assert kinds == ["deposit", "hold", "expire", "capture_late"]
        (late,) = [entry async for entry in ledger.entries() if entry.kind == "capture_late"]
        assert late.charge > 0
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {SHOP}"}) as http:
            receipt = await (await http.get(f"{url}/v1/receipts/{inference}")).json()
        assert (receipt["late"], receipt["charge_nano"]) == (True, late.charge)
        assert await ledger.balance("app:shop") == FUNDS - late.charge
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {SHOP}"}) as http:
            receipt = await http.get(f"{url}/v1/receipts/{inference}")
            assert (receipt.status, (await receipt.json())["charge_nano"]) == (200, late.charge)


async def test_a_capture_that_is_refused_late_is_counted_and_lies_among_the_refusals(
    house: House, tmp_path: Path
) -> None:
    house.ledger.fail("capture", "before")
    assert (await house.ask(CHAT)).status == 200
    assert house.metric("byline_spool_waiting") == 1
    house.ledger.refusals["capture"] = deque([KeyConflict("another payload")])
    await eventually(lambda: house.metric("byline_captures_lost_total") == 1)
    assert house.metric("byline_spool_waiting") == 0
    assert "KeyConflict" in (tmp_path / "spool" / REFUSED).read_text()


async def test_a_void_that_is_refused_is_no_lost_capture(house: House, tmp_path: Path) -> None:
    house.engine.stop_after = 0
    house.ledger.refusals["void"] = deque([KeyConflict("another payload")])
    assert (await house.ask(CHAT)).status == 502
    await eventually((tmp_path / "spool" / REFUSED).exists)
    house.ledger.fail("void", "before")
    assert (await house.ask(CHAT)).status == 502
    await eventually(lambda: house.metric("byline_spool_waiting") == 1)
    house.ledger.refusals["void"] = deque([KeyConflict("another payload")])
    await eventually(lambda: house.metric("byline_spool_waiting") == 0)
    assert house.metric("byline_captures_lost_total") == 0


async def test_a_hold_of_unknown_outcome_that_can_not_go_back_leaves_nothing_behind(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.ledger.away = True
    assert (await house.ask(CHAT)).status == 503
    await eventually(lambda: "is perhaps held" in caplog.text)
    assert house.metric("byline_spool_waiting") == 0
