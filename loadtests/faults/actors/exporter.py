"""The exporter: brings the archive, a SQLite file in its folder, up to date with the journal."""

import asyncio
from multiprocessing.connection import Connection
from typing import Any

from byline.archive.database import Archive
from byline.archive.exporter import Exporter as Exporting
from byline.errors import ArchiveMismatch, ArchiveUnavailable, LedgerFenced, LedgerUnavailable
from byline.ledger.ledger import Ledger
from loadtests.faults.actors.stage import (
    IDLE_ROUNDS,
    PAUSE_SECONDS,
    Part,
    Stage,
    act,
    archive_url,
    opened,
)
from loadtests.faults.messages import Open, Perform


class Exporter:
    """Exports page after page until there is nothing new."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._archive = Archive.open(archive_url(stage.part.folder))
        self._ledger: Ledger | None = None

    async def open(self, command: Open) -> None:
        """Connect to the ledger; the archive stays open."""
        if self._ledger is not None:
            await self._ledger.close()
        self._ledger = await opened(command, self._stage.part)
        self._exporting = Exporting(self._ledger, self._archive, step=self._stage.step)

    async def perform(self, command: Perform) -> dict[str, int]:
        """Export all there is, or as far as it comes."""
        assert self._ledger is not None
        exported = failures = idle = 0
        while failures < command.tries and idle < IDLE_ROUNDS:
            try:
                entries = await self._exporting.once()
                exported += entries
                if not entries:
                    idle += 1
                    await asyncio.sleep(PAUSE_SECONDS)
            except LedgerFenced:
                failures += 1
                await self._ledger.rejoin()
            except (LedgerUnavailable, ArchiveUnavailable):
                failures += 1
                await asyncio.sleep(PAUSE_SECONDS)
            except ArchiveMismatch:  # a doubled reply was taken for another: read once more
                failures += 1
                if failures >= command.tries:
                    raise
        return {"exported": exported}


def main(connection: "Connection[Any, Any]", part: Part) -> None:
    """Run as an actor's process."""
    act(connection, part, Exporter)
