"""Keeps answers' token ids for the attribution worker: a small file each, before the capture."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from byline.records import ServedTokens
from byline.served import write_served

# A write that takes longer comes from no local disk's cache: for a while a thread waits for others.
SLOW_SECONDS = 0.002
IN_THREAD_SECONDS = 5.0


class TokenFiles:
    """Writes in the event loop, which is sooner done than a thread is asked, while the folder is
    quick; a folder on a network must not hold up every other answer."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._folder = folder
        self._clock = clock
        self._in_thread_until = 0.0

    async def keep(self, tokens: ServedTokens) -> str:
        """Write one answer's ids; the file's SHA-256. Raises OSError."""
        began = self._clock()
        if began < self._in_thread_until:
            return await asyncio.to_thread(write_served, self._folder, tokens)
        try:
            return write_served(self._folder, tokens)
        finally:
            ended = self._clock()
            if ended - began > SLOW_SECONDS:
                self._in_thread_until = ended + IN_THREAD_SECONDS
