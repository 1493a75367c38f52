"""A gateway over two ledgers on one server: who is charged where, and what one knows of the other.

`shop` lies in usd-2 and `other` in usd-1, by the hash of their names.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uuid_utils

from byline.attribution import Measurement, attribute
from byline.jobs import Jobs
from byline.ledger.shards import Move, Shards
from byline.posting.cluster import located
from byline.posting.keys import Keys
from byline.redis_server import RedisServer, running_redis
from gateway.services import Services
from tests.byline.six_nodes import six_nodes, until
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import (
    ANN,
    BOB,
    CHAT,
    OPERATOR,
    OTHER,
    SHOP,
    eventually,
    serving_engine,
    serving_gateway,
)
from tests.gateway.real_ledger import clock_ms, services_over

pytestmark = pytest.mark.anyio

NAMES = ("usd-1", "usd-2")
HOME = {"other": "usd-1", "shop": "usd-2"}  # of each application
FUNDS = 10**9


@dataclass
class House:
    """A running gateway over two ledgers."""

    url: str
    services: Services
    http: aiohttp.ClientSession

    @property
    def shards(self) -> Shards:
        return self.services.shards

    async def ask(self, key: str) -> tuple[int, str]:
        """The status of one question's answer, and its inference."""
        headers = {"authorization": f"Bearer {key}"}
        path = f"{self.url}/v1/chat/completions"
        async with self.http.post(path, json=CHAT, headers=headers) as response:
            await response.read()
            return response.status, response.headers.get("x-byline-inference-id", "")

    async def get(self, path: str, key: str) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {key}"}
        async with self.http.get(self.url + path, headers=headers) as response:
            return response.status, json.loads(await response.read())

    def metric(self, name: str) -> float | None:
        return self.services.telemetry.registry.get_sample_value(name)

    async def kinds(self, name: str) -> list[str]:
        """The kinds of a ledger's entries; its books balance."""
        ledger = self.shards.ledgers[name]
        assert (await ledger.check()).balanced
        return [entry.kind async for entry in ledger.entries()]


@dataclass
class Street:
    """The server and the engine that gateways stand on."""

    redis_url: str
    engine: FakeEngine
    engine_url: str
    folder: Path

    @asynccontextmanager
    async def gateway(self, placed: Mapping[str, str] | None = None) -> AsyncIterator[House]:
        services = await services_over(
            self.redis_url, self.engine_url, self.folder, names=NAMES, placed=placed
        )
        async with serving_gateway(services) as (url, _), aiohttp.ClientSession() as http:
            yield House(url, services, http)


@pytest.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    server = RedisServer(tmp_path / "data", unix_socket=tmp_path / "s.sock")
    engine = FakeEngine()
    with running_redis(server):
        async with serving_engine(engine) as engine_url:
            yield Street(server.url, engine, engine_url, tmp_path)


@pytest.fixture
async def house(street: Street) -> AsyncIterator[House]:
    async with street.gateway() as house:
        await fund(house)
        yield house


async def fund(house: House) -> None:
    """Give each application money, where it lies."""
    for application, name in HOME.items():
        assert house.shards.name_of(application) == name
        await house.shards.ledgers[name].deposit(
            str(uuid_utils.uuid7()), application, FUNDS, time_ms=clock_ms()
        )


async def settle(street: Street, house: House, name: str) -> None:
    """Settle a ledger's one job: ann earns it."""
    jobs = await Jobs.open(street.redis_url, consumer="test", name=name)
    (job,) = await jobs.claim(count=1, block_ms=1_000)
    await jobs.close()
    attribution = attribute(job, Measurement(lift_nats=2.0, scores={"ann": 1.0}, examples=()))
    await house.shards.ledgers[name].settle(attribution, time_ms=clock_ms())


async def test_each_application_is_charged_in_its_own_ledger(house: House) -> None:
    assert (await house.get("/readyz", SHOP))[0] == 200
    for key in (SHOP, OTHER, SHOP):
        assert (await house.ask(key))[0] == 200
    assert await house.kinds("usd-1") == ["deposit", "hold", "capture"]
    assert await house.kinds("usd-2") == ["deposit", *["hold", "capture"] * 2]
    for application, elsewhere in (("shop", "usd-1"), ("other", "usd-2")):
        account = f"app:{application}"
        assert 0 < await house.shards.ledger_of(application).balance(account) < FUNDS
        assert await house.shards.ledgers[elsewhere].balance(account) == 0


async def test_what_waits_for_one_ledger_keeps_no_other_waiting(
    street: Street, house: House
) -> None:
    street.engine.pause = 0.2
    asking = asyncio.create_task(house.ask(SHOP))
    await eventually(lambda: street.engine.asked)
    await house.shards.ledgers["usd-2"].freeze("until the test has asked")
    assert (await asking)[0] == 200
    assert house.services.spools["usd-2"].waiting == house.metric("byline_spool_waiting") == 1
    assert (house.metric("byline_spool_oldest_seconds") or 0) > 0
    assert (await house.ask(SHOP))[0] == 503
    assert (await house.ask(OTHER))[0] == 200
    assert (await house.get("/readyz", SHOP))[0] == 200, "the others are still served"
    assert await house.kinds("usd-1") == ["deposit", "hold", "capture"]
    assert await house.kinds("usd-2") == ["deposit", "hold"]
    await house.shards.ledgers["usd-1"].freeze("now both are")
    assert (await house.get("/readyz", SHOP))[0] == 503
    for ledger in house.shards.ledgers.values():
        await ledger.thaw()
    await eventually(lambda: house.metric("byline_spool_waiting") == 0)
    assert await house.kinds("usd-2") == ["deposit", "hold", "capture"]
    assert (await house.get("/readyz", SHOP))[0] == 200


async def test_what_a_stopped_gateway_leaves_goes_to_the_ledger_that_it_was_for(
    street: Street,
) -> None:
    async with street.gateway() as house:
        ledger = house.shards.ledgers["usd-2"]
        await ledger.deposit(str(uuid_utils.uuid7()), "shop", FUNDS, time_ms=clock_ms())
        street.engine.pause = 0.2
        asking = asyncio.create_task(house.ask(SHOP))
        await eventually(lambda: street.engine.asked)
        await ledger.freeze("until the next gateway is there")
        assert (await asking)[0] == 200
    async with street.gateway(placed={"shop": "usd-1"}) as house:
        await house.shards.ledgers["usd-2"].thaw()
        await eventually(lambda: house.metric("byline_spool_waiting") == 0)
        assert await house.kinds("usd-2") == ["deposit", "hold", "capture"]
        assert await house.kinds("usd-1") == []


async def test_an_attribution_is_found_by_whoever_may_see_it(street: Street, house: House) -> None:
    for key, name in ((SHOP, "usd-2"), (OTHER, "usd-1")):
        _, inference = await house.ask(key)
        path = f"/v1/attributions/{inference}"
        await settle(street, house, name)
        for who in (key, OPERATOR, ANN):
            status, fields = await house.get(path, who)
            assert (status, fields["id"], fields["state"]) == (200, inference, "done")
        for stranger in ({SHOP, OTHER} - {key}) | {BOB}:
            assert (await house.get(path, stranger))[0] == 404


async def test_a_wait_that_begins_before_the_charge_ends_with_the_settlement(
    street: Street, house: House
) -> None:
    street.engine.pause = 0.1
    question = {**CHAT, "stream": True}
    headers = {"authorization": f"Bearer {SHOP}"}
    async with house.http.post(
        f"{house.url}/v1/chat/completions", json=question, headers=headers
    ) as response:
        path = f"/v1/attributions/{response.headers['x-byline-inference-id']}"
        waiting = [asyncio.create_task(house.get(f"{path}?wait=10", key)) for key in (SHOP, ANN)]
        for key in (SHOP, OPERATOR):
            status, fields = await house.get(path, key)
            assert (status, fields["state"]) == (200, "pending")
        for key in (OTHER, ANN):
            assert (await house.get(path, key))[0] == 404
        await response.read()
    await settle(street, house, "usd-2")
    for answer in await asyncio.gather(*waiting):
        assert (answer[0], answer[1]["state"]) == (200, "done")


async def test_a_moved_application_still_sees_what_it_asked_before(
    street: Street, house: House
) -> None:
    _, inference = await house.ask(SHOP)
    await settle(street, house, "usd-2")
    left = await house.shards.balance("app:shop")
    move = Move(str(uuid_utils.uuid7()), "shop", left, source="usd-2", target="usd-1", by="ops")
    await house.shards.move(move, time_ms=clock_ms())
    async with street.gateway(placed={"shop": "usd-1"}) as after:
        status, fields = await after.get(f"/v1/attributions/{inference}", SHOP)
        assert (status, fields["state"]) == (200, "done")
        assert (await after.ask(SHOP))[0] == 200
        assert await after.kinds("usd-1") == ["deposit", "adjust", "hold", "capture"]


@pytest.mark.slow
async def test_in_a_cluster_a_lost_primary_stops_only_its_own_applications(tmp_path: Path) -> None:
    async with six_nodes(tmp_path) as cluster:
        async with serving_engine(engine := FakeEngine()) as engine_url:
            street = Street(cluster.url, engine, engine_url, tmp_path)
            async with street.gateway() as house:
                await fund(house)
                for key, name in ((SHOP, "usd-2"), (OTHER, "usd-1")):
                    status, inference = await house.ask(key)
                    assert status == 200
                    await settle(street, house, name)
                    path = f"/v1/attributions/{inference}"
                    assert (await house.get(path, ANN))[1]["state"] == "done"
                primaries = {
                    name: cluster.node_at(await located(cluster.url, Keys(name).tag))
                    for name in NAMES
                }
                assert primaries["usd-1"] is not primaries["usd-2"]
                primaries["usd-2"].kill()
                assert (await house.ask(SHOP))[0] == 503
                assert (await house.ask(OTHER))[0] == 200

                async def served_again() -> bool:
                    return (await house.ask(SHOP))[0] == 200

                await until(served_again)
                for application, name in HOME.items():
                    assert house.shards.name_of(application) == name
                    assert (await house.kinds(name)).count("capture") == 2
