"""Keeps answers' token ids for the attribution worker: a small file each, before the capture."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from byline.records import ServedTokens
from byline.served import write_served

# Writes that each take longer go to no local disk's cache: for a while a thread waits for others.
# One alone proves nothing: another program may have had the processor meanwhile.
SLOW_SECONDS = 0.002
SLOW_IN_A_ROW = 3
IN_THREAD_SECONDS = 5.0


class TokenFiles:
    """Writes in the event loop, which is sooner done than a thread is asked, while the folder is
    quick; a folder on a network must not hold up every other answer."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._folder = folder
        self._clock = clock
        self._in_thread_until = 0.0
        self._slow_in_a_row = 0

    async def keep(self, tokens: ServedTokens) -> str:
        """Write one answer's ids; the file's SHA-256. Raises OSError."""
        began = self._clock()
        if began < self._in_thread_until:
            return await asyncio.to_thread(write_served, self._folder, tokens)
        try:
            return write_served(self._folder, tokens)
        finally:
            ended = self._clock()
            is_slow = ended - began > SLOW_SECONDS
            self._slow_in_a_row = self._slow_in_a_row + 1 if is_slow else 0
            if self._slow_in_a_row >= SLOW_IN_A_ROW:
                self._in_thread_until = ended + IN_THREAD_SECONDS
