"""Deliveries to a ledger that fails when it is told to, and what came of them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from byline.delivery.delivery import Delivery
from byline.delivery.spool import REFUSED, Spool
from byline.ledger.ledger import Ledger
from byline.posting.postings import Posting
from byline.records import Posted

PAUSE_SECONDS = 0.02


class StubbornLedger(Ledger):
    """A real ledger, whose next posts fail before or after they are sent, in this order."""

    failures: Sequence[tuple[str, Exception]]
    sent: list[str]

    @classmethod
    async def over(cls, url: str, name: str) -> "StubbornLedger":
        ledger = await cls.open(url, name=name)
        assert isinstance(ledger, cls)
        ledger.failures, ledger.sent = [], []
        return ledger

    async def post(self, posting: Posting) -> Posted | None:
        self.sent.append(posting.key)
        (when, problem), *self.failures = [*self.failures, ("never", Exception())]
        if when == "before":
            raise problem
        posted = await super().post(posting)
        if when == "after":
            raise problem
        return posted


@asynccontextmanager
async def delivering(
    ledger: Ledger, folder: Path, *, runs: bool = True, **more: Callable[..., None]
) -> AsyncIterator[Delivery]:
    """A delivery over the folder's spool; its background runs unless a test wants it to stand."""
    spool = Spool.open(folder)
    delivery = Delivery(ledger, spool, pause_seconds=PAUSE_SECONDS, **more)
    stop = asyncio.Event()
    running = asyncio.create_task(delivery.run(stop)) if runs else None
    try:
        yield delivery
    finally:
        stop.set()
        if running is not None:
            await running
        await delivery.drain(5)
        await spool.close()


async def answered(delivery: Delivery) -> None:
    """Wait until nothing waits."""
    async with asyncio.timeout(10):
        while delivery.waiting:
            await asyncio.sleep(0.01)


async def captures_of(ledger: Ledger) -> list[str]:
    books = await ledger.check()
    assert books.balanced
    return [e.inference or "" async for e in ledger.entries() if e.kind.startswith("capture")]


def refusals(folder: Path) -> list[str]:
    lines = (folder / REFUSED).read_text().splitlines()
    return [json.loads(line)["posting"]["inference"] for line in lines]
