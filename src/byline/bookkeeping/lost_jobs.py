"""Open pools whose attribution job is gone: nobody would ever settle them.

A job lies in its stream until its pool is settled, so a pool without one has lost it, whatever
waits before it. The job is made again from its capture's record, by itself: that moves no money,
and a pool is settled once, however many jobs it has.
"""

import logging

from byline.ledger.waiting import Waiting

logger = logging.getLogger("byline.bookkeeping")

GRACE_MS = 600_000  # a younger pool is left to its worker: the stream of jobs may be long
LOOK_EVERY_MS = 60_000
POOLS_SAID = 3


class LostJobs:
    """Looks for them, once a minute at the most."""

    def __init__(self, waiting: Waiting, name: str) -> None:
        self.jobless: list[str] = []  # the pools that can't be helped
        self._waiting = waiting
        self._name = name
        self._looked_ms: int | None = None

    async def restore(self, *, now_ms: int) -> int:
        """Enqueue what is lost; answers how many jobs."""
        if self._looked_ms is not None and now_ms - self._looked_ms < LOOK_EVERY_MS:
            return 0
        made, self.jobless = await self._waiting.restore_jobs(captured_by_ms=now_ms - GRACE_MS)
        self._looked_ms = now_ms
        if made:
            logger.error("ledger %s: %d lost attribution jobs are enqueued again", self._name, made)
        if self.jobless:
            logger.error(
                "ledger %s: %d open pools have no attribution job, and the records of their "
                "captures are lost: %s",
                self._name, len(self.jobless), ", ".join(self.jobless[:POOLS_SAID]),
            )  # fmt: skip
        return made
