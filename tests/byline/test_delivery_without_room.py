"""Where the spool has no room, charges are sent all the same; what waits lies in memory, and
nothing more is held until it has a place."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from byline.delivery.delivery import Delivery
from byline.delivery.spool import Spool
from byline.errors import LedgerUnavailable, SpoolFull
from byline.posting.postings import Posting
from tests.byline.cases import NOW_MS, a_capture, event_id, held
from tests.byline.deliveries import StubbornLedger, answered, captures_of, delivering, refusals

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ledger(redis_url: str, ledger_name: str) -> AsyncIterator[StubbornLedger]:
    opened = await StubbornLedger.over(redis_url, ledger_name)
    yield opened
    await opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


class FullSpool(Spool):
    """A spool that takes nothing while it is full."""

    full = True

    def require_room(self) -> None:
        if self.full:
            raise SpoolFull("no room")

    async def write(self, posting: Posting, *, time_ms: int) -> None:
        self.require_room()
        await super().write(posting, time_ms=time_ms)

    async def refuse(self, posting: Posting, reason: str) -> None:
        self.require_room()
        await super().refuse(posting, reason)

    async def sync(self) -> None:
        self.require_room()

    async def tidy(self) -> None:
        self.require_room()


async def test_without_room_a_capture_is_sent_all_the_same(
    ledger: StubbornLedger, folder: Path
) -> None:
    spool = FullSpool.open(folder)
    delivery = Delivery(ledger, spool)
    with pytest.raises(SpoolFull, match="no room"):
        delivery.require_room()
    inference = await held(ledger)
    assert await delivery.capture(a_capture(inference), time_ms=NOW_MS)
    assert delivery.waiting == 0
    await spool.close()


async def test_without_room_what_waits_lies_in_memory_and_stops_holds(
    ledger: StubbornLedger, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = FullSpool.open(folder)
    assert isinstance(spool, FullSpool)
    delivery = Delivery(ledger, spool)
    inference, refused = await held(ledger), event_id()
    ledger.failures = [("before", LedgerUnavailable("away"))] * 2
    for each in (inference, refused):
        assert await delivery.capture(a_capture(each), time_ms=NOW_MS) is None
    await delivery.drain(1)
    assert "is in no spool: lost" in caplog.text
    await delivery._send_waiting(asyncio.Event())
    assert delivery.waiting == 1  # the refused one, until its refusal can be noted
    spool.full = False
    with pytest.raises(SpoolFull, match="1 posts wait"):
        delivery.require_room()
    await delivery._send_waiting(asyncio.Event())
    delivery.require_room()
    await spool.close()
    assert refusals(folder) == [refused]
    assert await captures_of(ledger) == [inference]


async def test_what_lies_in_memory_is_kept_as_soon_as_there_is_room(
    ledger: StubbornLedger, folder: Path
) -> None:
    spool = FullSpool.open(folder)
    assert isinstance(spool, FullSpool)
    delivery = Delivery(ledger, spool)
    inference = await held(ledger)
    ledger.failures = [("before", LedgerUnavailable("away"))] * 2
    assert await delivery.capture(a_capture(inference), time_ms=NOW_MS) is None
    assert spool.waiting == 0
    spool.full = False
    await delivery._send_waiting(asyncio.Event())
    assert (spool.waiting, spool.oldest_ms, delivery.waiting) == (1, NOW_MS, 1)
    delivery.require_room()
    await spool.close()
    async with delivering(ledger, folder) as delivery:
        await answered(delivery)
    assert await captures_of(ledger) == [inference]
