"""Asks the SQL archive from a few threads, so that no query keeps an inference waiting.

The gateway starts and serves without an archive: it is opened when it is first asked, and again
after a failure.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from byline.archive.database import Archive
from byline.errors import ArchiveUnavailable

THREADS = 4  # as many queries run at once
WAITING_MAX = 64  # and as many more wait; what comes then is turned away

AWAY = "The archive of earnings, usage and statements can't be read now. Inferences go on."

Found = TypeVar("Found")

log = logging.getLogger("gateway")


class ArchiveReads:
    """The archive at `url`, asked without blocking the event loop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._archive: Archive | None = None
        self._opening = threading.Lock()  # guards `_archive`
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="archive")
        self._asked = 0

    async def ask(self, query: Callable[[Archive], Found]) -> Found:
        """What `query` finds. Raises ArchiveUnavailable where the archive is away or too busy."""
        if self._asked >= THREADS + WAITING_MAX:
            raise ArchiveUnavailable("The archive has too many questions to answer: ask later.")
        self._asked += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, lambda: query(self._opened()))
        except ArchiveUnavailable as problem:
            log.warning("%s", problem)
            raise ArchiveUnavailable(AWAY) from problem  # where it lies is nobody's business
        finally:
            self._asked -= 1

    async def close(self) -> None:
        """Close the archive; what still waits is not asked any more."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        if self._archive is not None:
            self._archive.close()

    def _opened(self) -> Archive:
        with self._opening:
            if self._archive is None:
                self._archive = Archive.open(self._url, create=False)
            return self._archive
