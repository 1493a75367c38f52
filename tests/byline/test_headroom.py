"""Holds stop while there is room left for what is held; everything else goes on."""

import asyncio
from typing import Any

import pytest

from byline.errors import LedgerFull, LedgerUnavailable
from byline.ledger.ledger import Ledger
from byline.posting.headroom import Headroom
from byline.redis_server import RedisServer, running_redis
from tests.byline.cases import HOLD_MS, NOW_MS, a_capture, an_attribution, event_id, held

pytestmark = pytest.mark.anyio


class Server:
    """Says how much memory it uses, and counts how often it was asked."""

    def __init__(self, used: int, *, most: int = 0, machine: int = 1_000) -> None:
        self.memory = {"used_memory": used, "maxmemory": most, "total_system_memory": machine}
        self.asked = 0
        self.problem: Exception | None = None

    async def info(self, section: str) -> dict[str, Any]:
        assert section == "memory"
        self.asked += 1
        await asyncio.sleep(0)
        if self.problem is not None:
            raise self.problem
        return self.memory


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("server", "full"),
    [
        (Server(79, most=100), False),
        (Server(80, most=100), True),
        (Server(799), False),  # no bound of its own: the machine's memory is the bound
        (Server(800), True),
    ],
)
async def test_holds_stop_at_eighty_hundredths(server: Server, full: bool) -> None:
    headroom = Headroom(server)
    if full:
        with pytest.raises(LedgerFull, match="80% of the ledger's memory is used"):
            await headroom.require()
    else:
        await headroom.require()


async def test_many_holds_share_one_reading_a_second() -> None:
    server, clock = Server(1), Clock()
    headroom = Headroom(server, clock=clock)
    for now, readings in ((0.0, 1), (0.9, 1), (1.1, 2)):
        clock.now = now
        await asyncio.gather(*(headroom.require() for _ in range(20)))
        assert server.asked == readings
    server.memory["used_memory"] = 900
    await headroom.require()  # the reading is still young
    clock.now = 2.2
    with pytest.raises(LedgerFull):
        await headroom.require()


async def test_without_a_reading_there_is_no_hold() -> None:
    server = Server(1)
    server.problem = ConnectionError("gone")
    headroom = Headroom(server)
    with pytest.raises(LedgerUnavailable, match="look at the ledger's memory"):
        await headroom.require()
    server.problem = None
    await headroom.require()


async def test_a_nearly_full_server_finishes_what_is_held(tmp_path: Any) -> None:
    server = RedisServer(tmp_path / "data", unix_socket=tmp_path / "s.sock")
    with running_redis(server):
        ledger = await Ledger.open(server.url)
        inference, other = await held(ledger), await held(ledger)
        used = (await ledger._redis.info("memory"))["used_memory"]
        await ledger._redis.config_set("maxmemory", str(int(used * 1.2)))
        await asyncio.sleep(1.1)  # until the next reading
        with pytest.raises(LedgerFull):
            await held(ledger, funds=0)
        await ledger.capture(a_capture(inference), time_ms=NOW_MS)
        await ledger.settle(an_attribution(inference), time_ms=NOW_MS)
        await ledger.void(other, "demo", time_ms=NOW_MS)
        await ledger.deposit(event_id(), "demo", 1, time_ms=NOW_MS)
        assert await ledger.expired_holds(now_ms=NOW_MS + HOLD_MS) == []
        await ledger.close()
