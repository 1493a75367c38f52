"""The bookkeeper's program: one bookkeeper a ledger, and the port that shows what they find.

`/healthz` answers 200 as long as the process lives: what is wrong with the money is on /metrics.
"""

import asyncio
import logging
from functools import partial

from byline.archive.database import Archive
from byline.bookkeeping.bookkeeper import Bookkeeper
from byline.bookkeeping.gauges import BooksMetrics
from byline.bookkeeping.settings import BookkeeperSettings
from byline.bookkeeping.upkeep import Upkeep
from byline.errors import ArchiveUnavailable, LedgerError, LedgerMisconfigured
from byline.ledger.ledger import Ledger
from byline.metrics_server import metrics_server
from byline.program import pause, run, settings_of, until_signalled

logger = logging.getLogger("byline.bookkeeping")

AWAY_SECONDS = 1.0  # between two attempts to reach a ledger that is away at the start


async def keep_all(settings: BookkeeperSettings, metrics: BooksMetrics) -> None:
    """Keep the books of every ledger until SIGTERM or SIGINT."""
    stop = until_signalled()
    with metrics_server(metrics.registry, settings.metrics_host, settings.metrics_port):
        async with asyncio.TaskGroup() as tasks:
            for name in settings.ledgers:
                tasks.create_task(keep(settings, name, metrics, stop))


async def keep(
    settings: BookkeeperSettings, name: str, metrics: BooksMetrics, stop: asyncio.Event
) -> None:
    """Keep one ledger's books; it and the archive may be away, also at the start."""
    while not stop.is_set():
        try:
            await _keep_opened(settings, name, metrics, stop)
        except LedgerMisconfigured:
            raise
        except (LedgerError, ArchiveUnavailable) as problem:
            logger.warning("ledger %s: %s; waiting", name, problem)
            await pause(stop, AWAY_SECONDS)


async def _keep_opened(
    settings: BookkeeperSettings, name: str, metrics: BooksMetrics, stop: asyncio.Event
) -> None:
    url = settings.archive_url
    archive = await asyncio.to_thread(Archive.open, url) if url else None
    try:
        ledger = await Ledger.open(settings.redis_url, name=name)
        try:
            bookkeeper = Bookkeeper(
                ledger,
                archive,
                name=name,
                freeze=settings.freeze,
                upkeep=Upkeep(settings.snapshot_entries, settings.keep_entries, settings.keep_days),
                observe=partial(metrics.observe, name),
            )
            await bookkeeper.run(stop, interval_seconds=settings.interval_seconds)
        finally:
            await ledger.close()
    finally:
        if archive is not None:
            archive.close()


def main() -> None:
    """The program."""
    settings = settings_of("bookkeeper", BookkeeperSettings)
    run("bookkeeper", keep_all(settings, BooksMetrics()))


if __name__ == "__main__":
    main()
