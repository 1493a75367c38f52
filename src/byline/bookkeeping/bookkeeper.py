"""One ledger's bookkeeper: round after round it compares, freezes what is wrong, and makes room.

What is found is looked at a second time at once; only what is found twice stops posting. A round
that finds nothing may end with a snapshot of the fold, and with trimming what lies before it.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from byline.archive.database import Archive
from byline.bookkeeping.archive_books import ArchiveBooks
from byline.bookkeeping.archive_patrol import ArchivePatrol
from byline.bookkeeping.figures import figures_of
from byline.bookkeeping.findings import Figures, Finding, Findings, Kind
from byline.bookkeeping.live import Astray, LiveBooks
from byline.bookkeeping.lost_jobs import LostJobs
from byline.bookkeeping.patrol import Patrol
from byline.bookkeeping.readings import Look, Readings
from byline.bookkeeping.trimming import Trimming
from byline.bookkeeping.upkeep import USUAL, Upkeep
from byline.errors import (
    ArchiveUnavailable,
    LedgerError,
    LedgerFenced,
    LedgerMisconfigured,
    LedgerRefused,
)
from byline.ledger.books import Snapshot
from byline.ledger.journal import Journal
from byline.ledger.ledger import Ledger
from byline.ledger.snapshots import Snapshots
from byline.ledger.waiting import Waiting
from byline.program import pause

logger = logging.getLogger("byline.bookkeeping")

FINDINGS_SAID = 3  # in the reason of a freeze


class _Desk:
    """What the bookkeeper works with as long as the ledger's epoch stands."""

    def __init__(
        self, ledger: Ledger, archive: Archive | None, name: str, step: Callable[[str], None]
    ) -> None:
        redis, keys = ledger.inside
        self.journal = Journal(redis, keys)
        self.readings = Readings(redis, keys)
        self.snapshots = Snapshots(redis, keys, step)
        self.trimming = Trimming(redis, keys, self.journal, step)
        self.patrol = Patrol(self.journal, self.readings)
        self.lost_jobs = LostJobs(Waiting(redis, keys), name)
        self.archive = ArchiveBooks(archive, name, self.journal) if archive else None
        self.archive_patrol = ArchivePatrol(archive, name, self.journal) if archive else None
        self.live: LiveBooks

    async def sit_down(self) -> None:
        """Begin the fold at the newest snapshot; at the first entry where that one is wrong."""
        try:
            base = await self.journal.base()
        except LedgerRefused as problem:
            if await self.journal.trimmed():
                raise
            logger.error("%s", problem)  # noqa: TRY400
            base = await self.journal.base(full=True)
        self.live = LiveBooks(self.journal, self.readings, base)


class Bookkeeper:
    """Keeps one ledger's books. `freeze=False` only reports. `observe` is told of each round."""

    def __init__(
        self,
        ledger: Ledger,
        archive: Archive | None,
        *,
        name: str = "usd",
        step: Callable[[str], None] = lambda _: None,
        freeze: bool = True,
        upkeep: Upkeep = USUAL,
        observe: Callable[[Findings], None] = lambda _: None,
    ) -> None:
        self._ledger = ledger
        self._archive = archive
        self._name = name
        self._step = step
        self._freezes = freeze
        self._upkeep = upkeep
        self._observe = observe
        self._desk: _Desk | None = None

    async def run(
        self,
        stop: asyncio.Event,
        *,
        interval_seconds: float = 1.0,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """A round every so often until `stop`. A ledger that is away is met again later."""
        while not stop.is_set():
            try:
                await self.once(clock())
            except LedgerFenced as problem:
                logger.warning("ledger %s: %s; joining again", self._name, problem)
                with suppress(LedgerError):
                    await self._ledger.rejoin()
            except (LedgerError, ArchiveUnavailable) as problem:
                logger.warning("ledger %s: %s; waiting", self._name, problem)
            await pause(stop, interval_seconds)

    async def once(self, now_ms: int) -> Findings:
        """One round. Raises LedgerFenced when the epoch was raised: then the ledger must rejoin."""
        try:
            findings = await self._round(now_ms)
        except (LedgerFenced, Astray):
            self._desk = None  # the journal may be another one: the fold begins anew
            raise
        self._observe(findings)
        return findings

    async def _round(self, now_ms: int) -> Findings:
        desk = self._desk or await self._new_desk()
        look, found = await self._looked(desk, now_ms)
        suspected = {(finding.kind, finding.subject) for finding in found}
        if suspected:
            look, found = await self._looked(desk, now_ms)
            found = [each for each in found if (each.kind, each.subject) in suspected]
        restored = 0
        if found:
            await self._stop_posting(desk, found)
        elif not suspected:
            await self._keep(desk, look, now_ms)
            restored = await desk.lost_jobs.restore(now_ms=now_ms)
        figures = await self._figures(desk, look, now_ms)
        return Findings(tuple(found), replace(figures, restored_jobs=restored))

    async def _new_desk(self) -> _Desk:
        desk = _Desk(self._ledger, self._archive, self._name, self._step)
        await desk.sit_down()
        self._desk = desk
        return desk

    async def _looked(self, desk: _Desk, now_ms: int) -> tuple[Look, list[Finding]]:
        """All comparisons once."""
        look, found = await desk.live.round()
        if look.meta.epoch != self._ledger.epoch:
            raise LedgerFenced(f"the epoch is {look.meta.epoch}, ours is {self._ledger.epoch}")
        found += await desk.patrol.round(desk.live, now_ms=now_ms)
        if desk.archive is not None and desk.archive_patrol is not None:
            found += await desk.archive.round(desk.live, look.meta)
            found += await desk.archive_patrol.round()
        found += await self._unsafe_server(desk)
        return look, found

    async def _unsafe_server(self, desk: _Desk) -> list[Finding]:
        """A poster asks this when it connects: a server that was changed since is found here."""
        server = await desk.readings.server()
        try:
            server.require_safe()
        except LedgerMisconfigured as problem:
            return [Finding(Kind.SERVER, "settings", str(problem))]
        return []

    async def _figures(self, desk: _Desk, look: Look, now_ms: int) -> Figures:
        ratio = await desk.readings.memory_used_ratio()
        figures = figures_of(desk.live, look, memory_used_ratio=ratio, now_ms=now_ms)
        read = desk.archive_patrol.seq if desk.archive_patrol else 0
        jobless = len(desk.lost_jobs.jobless)
        return replace(figures, archive_read_seq=read, jobless_pools=jobless)

    async def _stop_posting(self, desk: _Desk, found: list[Finding]) -> None:
        more = f" and {len(found) - FINDINGS_SAID} more" if len(found) > FINDINGS_SAID else ""
        reason = "; ".join(str(finding) for finding in found[:FINDINGS_SAID]) + more
        logger.error("ledger %s: %s", self._name, reason)
        if self._freezes and await desk.readings.freeze(f"the bookkeeper found {reason}"):
            logger.critical("ledger %s: posting is frozen", self._name)
            self._step("frozen")

    async def _keep(self, desk: _Desk, look: Look, now_ms: int) -> None:
        """A snapshot when it is due; then what may go, goes."""
        fold, upkeep = desk.live.fold, self._upkeep
        if fold.seq - look.meta.snapshot >= upkeep.snapshot_entries:
            await desk.snapshots.write(Snapshot(fold.seq, dict(fold.accounts)), look.meta.epoch)
        await desk.trimming.trim(
            keep_entries=upkeep.keep_entries, keep_days=upkeep.keep_days, now_ms=now_ms
        )
        await desk.trimming.forget(now_ms=now_ms)
