"""The archive's program: one exporter a ledger, and the port that shows how far they are.

Waits for a ledger or a database that is away, also at the start. Where a journal contradicts the
archive, that ledger is exported no further and `/healthz` answers 503 with the reason.
"""

import asyncio
import logging
import time
from contextlib import suppress
from functools import partial

from byline.archive.adapters import keep_adapters
from byline.archive.database import Archive
from byline.archive.exporter import Exporter
from byline.archive.metrics import ArchiveMetrics
from byline.archive.settings import ArchiveSettings
from byline.archive.writing import missing_texts
from byline.errors import (
    ArchiveMismatch,
    ArchiveUnavailable,
    LedgerError,
    LedgerMisconfigured,
    StartFailed,
)
from byline.home import Home
from byline.ledger.ledger import Ledger
from byline.metrics_server import metrics_server
from byline.program import pause, run, settings_of, until_signalled
from byline.registry import read_release

log = logging.getLogger("byline.archive")

AWAY_SECONDS = 1.0  # between two attempts to reach what is away
STOPPED_SECONDS = 30.0  # between two looks at a contradiction that somebody has to resolve
LOOK_SECONDS = 1.0  # between two measurements of the lag
RELEASE_SECONDS = 60.0  # between two looks for a new release


async def export_all(settings: ArchiveSettings, metrics: ArchiveMetrics) -> None:
    """Export every ledger until SIGTERM or SIGINT."""
    stop = until_signalled()
    with metrics_server(
        metrics.registry, settings.metrics_host, settings.metrics_port, problem=metrics.problem
    ):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_releases(settings, stop))
            for name in settings.ledgers:
                tasks.create_task(export(settings, name, metrics, stop))


async def export(
    settings: ArchiveSettings, name: str, metrics: ArchiveMetrics, stop: asyncio.Event
) -> None:
    """Export one ledger, over and over opened again when something is away or wrong."""
    while not stop.is_set():
        try:
            await _export_opened(settings, name, metrics, stop)
        except LedgerMisconfigured:
            raise
        except (LedgerError, ArchiveUnavailable) as problem:
            log.warning("ledger %s: %s; waiting", name, problem)
            await pause(stop, AWAY_SECONDS)
        except ArchiveMismatch as problem:
            log.error("ledger %s is not exported any more: %s", name, problem)  # noqa: TRY400
            metrics.observe_stopped(name, str(problem))
            await pause(stop, STOPPED_SECONDS)


async def keep_releases(settings: ArchiveSettings, stop: asyncio.Event) -> None:
    """Remember which datasets the adapters were trained on, now and after each new release."""
    path = Home(settings.home).release
    while not stop.is_set():
        try:
            release = read_release(path)
            archive = await asyncio.to_thread(Archive.open, settings.archive_url)
            await asyncio.to_thread(keep_adapters, archive, release)
            archive.close()
        except (StartFailed, ArchiveUnavailable) as problem:
            log.info("earnings are not shown by the datasets of a new release: %s", problem)
        await pause(stop, RELEASE_SECONDS)


async def _export_opened(
    settings: ArchiveSettings, name: str, metrics: ArchiveMetrics, stop: asyncio.Event
) -> None:
    archive = await asyncio.to_thread(Archive.open, settings.archive_url)
    try:
        ledger = await Ledger.open(settings.redis_url, name=name, replicas=settings.replicas)
        try:
            observe = partial(metrics.observe_written, name)
            exporter = Exporter(ledger, archive, name=name, observe=observe)
            done = asyncio.Event()
            looking = asyncio.create_task(_look(exporter, archive, name, metrics, done))
            try:
                await exporter.run(stop)
            finally:
                done.set()
                await looking
        finally:
            await ledger.close()
    finally:
        archive.close()


async def _look(
    exporter: Exporter, archive: Archive, name: str, metrics: ArchiveMetrics, done: asyncio.Event
) -> None:
    """Measure the lag until the export is done with."""
    while not done.is_set():
        with suppress(LedgerError, ArchiveUnavailable, ArchiveMismatch):  # the exporter says so
            lag = await exporter.lag()
            missing = await asyncio.to_thread(missing_texts, archive)
            metrics.observe_lag(name, lag, missing=missing, now_ms=time.time_ns() // 1_000_000)
        await pause(done, LOOK_SECONDS)


def main() -> None:
    """The program."""
    settings = settings_of("archive", ArchiveSettings)
    run("archive", export_all(settings, ArchiveMetrics()))


if __name__ == "__main__":
    main()
