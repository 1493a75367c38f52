"""The bookkeeper: checks, takes snapshots and trims while the others post and die."""

import asyncio
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from byline.archive.database import Archive
from byline.bookkeeping.bookkeeper import Bookkeeper as Keeping
from byline.bookkeeping.upkeep import Upkeep
from byline.errors import ArchiveUnavailable, LedgerError, LedgerFenced
from byline.ledger.ledger import Ledger
from loadtests.faults.actors.stage import PAUSE_SECONDS, Part, Stage, act, archive_url, opened
from loadtests.faults.messages import Open, Perform, Wrong

# Small, so that snapshots are taken and the journal is trimmed many times in a run.
UPKEEP = Upkeep(snapshot_entries=2_000, keep_entries=4_000, keep_days=0.01)
ROUNDS = 3  # in one command


class Bookkeeper:
    """Keeps the books round after round. Whatever it finds is wrong: nobody has done any."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._archive = Archive.open(archive_url(stage.part.folder))
        self._ledger: Ledger | None = None

    async def open(self, command: Open) -> None:
        """Connect to the ledger; the archive stays open."""
        if self._ledger is not None:
            await self._ledger.close()
        self._ledger = await opened(command, self._stage.part)
        self._keeping = Keeping(self._ledger, self._archive, step=self._stage.step, upkeep=UPKEEP)

    async def perform(self, command: Perform) -> dict[str, int]:
        """A few rounds, or fewer if the ledger is away.

        None in a mutant's run: it would be caught by what the bookkeeper freezes, and the run is to
        notice by itself.
        """
        if self._stage.part.scripts is not None:
            return {}
        assert self._ledger is not None
        rounds = trimmed = 0
        for _ in range(command.tries):
            try:
                findings = await self._keeping.once(command.now_ms)
            except LedgerFenced:
                with suppress(LedgerError):
                    await self._ledger.rejoin()
            except (LedgerError, ArchiveUnavailable):
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                for finding in findings.found:
                    self._stage.report(Wrong(str(finding)))
                trimmed = findings.figures.trimmed_seq
                rounds += 1
                self._stage.step("round")
                await asyncio.sleep(PAUSE_SECONDS)
                if rounds == ROUNDS:
                    break
        return {"rounds": rounds, "trimmed": trimmed}


def main(connection: "Connection[Any, Any]", part: Part) -> None:
    """Run as an actor's process."""
    act(connection, part, Bookkeeper)
