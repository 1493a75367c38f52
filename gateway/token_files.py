"""Keeps answers' token ids for the attribution worker, before their capture."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from byline.records import ServedTokens
from byline.served import ServedWriter

# A write that takes longer comes from no local disk's cache: for a while a thread waits for others.
SLOW_SECONDS = 0.002
IN_THREAD_SECONDS = 5.0


class TokenFiles:
    """Writes in the event loop, which is sooner done than a thread is asked, while the folder is
    quick; a folder on a network must not hold up every other answer."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._writer = ServedWriter(folder)
        self._clock = clock
        self._in_thread_until = 0.0

    async def keep(self, tokens: ServedTokens) -> str:
        """Keep one answer's ids; their SHA-256. Raises OSError."""
        began = self._clock()
        if began < self._in_thread_until:
            return await asyncio.to_thread(self._writer.write, tokens)
        try:
            return self._writer.write(tokens)
        finally:
            ended = self._clock()
            if ended - began > SLOW_SECONDS:
                self._in_thread_until = ended + IN_THREAD_SECONDS

    def close(self) -> None:
        """Close the file that is open."""
        self._writer.close()
