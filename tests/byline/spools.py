"""Spools for tests: opened and closed again, their files, and a disk that is full."""

import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from byline.delivery.spool import Spool

SMALL = 64 * 1024


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spool"))


@asynccontextmanager
async def opened(folder: Path, bytes_max: int = SMALL * 16) -> AsyncIterator[Spool]:
    spool = Spool.open(folder, bytes_max=bytes_max)
    try:
        yield spool
    finally:
        await spool.close()


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file of this process may grow beyond `room` bytes: a write stops short, the next fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
