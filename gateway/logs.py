"""The ledgers' transparency logs, read beside the inferences: proofs, files, the receipts' key.

A proof is made from the log's published folder, the notary's state and the archive, a question at a
time: a statement of a hundred thousand lines is made piece by piece, and inferences go first.
"""

import asyncio
import logging
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from byline.archive.database import Archive
from byline.errors import ArchiveUnavailable, NotFound
from byline.home import Home
from byline.notary.folder import CHECKPOINT, KEYS, RECEIPT_KEYS, LogFolder
from byline.notary.log_keys import receipt_keys
from byline.notary.reader import LogReader
from byline.transparency.notes import SigningKey
from byline.transparency.tiles import ENTRIES, WIDTH, tile_path
from gateway.archive_reads import ArchiveReads

LINES_AT_ONCE = 25  # some ten milliseconds of a processor
WAITING_MAX = 64  # questions, with the one that is answered
STREAMS_MAX = 4  # each holds some megabytes of tiles
NO_LOG = "This installation keeps no transparency log of that ledger: nothing here can be proven."
AWAY = "The transparency log can't be read now. Inferences go on."
BUSY = "Many proofs are being made at this moment: ask again in a minute."

TILE = re.compile(r"tile/(entries|[0-9]{1,2})/((?:x[0-9]{3}/){0,4}[0-9]{3})(?:\.p/([0-9]{1,3}))?")
NAMED = frozenset({CHECKPOINT, KEYS, RECEIPT_KEYS})

Answer = TypeVar("Answer")

log = logging.getLogger("gateway")


class Logs:
    """Every ledger's log under one home folder. Names of ledgers are from the settings."""

    def __init__(self, home: Home, archive: ArchiveReads) -> None:
        self._home = home
        self._archive = archive
        self._making = asyncio.Lock()  # guards the processor: one proof is made at a time
        self._waiting = 0
        self._streams = 0

    async def ask(self, ledger: str, question: Callable[[LogReader], Answer]) -> Answer:
        """What the log's reader answers. NotFound without a log, NotProven while it is behind."""

        def asked(archive: Archive) -> Answer:
            with self._reading():
                reader = self._opened(archive, ledger)
                try:
                    return question(reader)
                finally:
                    reader.close()

        return await self._asked(asked)

    async def stream(
        self, ledger: str, lines_of: Callable[[LogReader], Iterator[str]]
    ) -> AsyncIterator[bytes]:
        """The lines, some at a time, all under one tree head. Raises before the first as `ask`."""
        if self._streams >= STREAMS_MAX:
            raise ArchiveUnavailable(BUSY)
        self._streams += 1
        try:
            # Closed with its last reference: a client that leaves may leave a thread at work.
            lines = await self._asked(lambda archive: self._begun(archive, ledger, lines_of))
            while piece := await self._asked(lambda _: self._piece(lines)):
                yield piece
        finally:
            self._streams -= 1

    async def receipts_key(self, ledger: str) -> SigningKey:
        """The newest published key for receipts. NotFound before the notary began the log."""
        return await asyncio.to_thread(self._receipts_key, ledger)

    async def published(self, ledger: str, path: str) -> bytes | None:
        """A file of the published folder; None where there is none, or it is no name of one.

        What the client sent is parsed and written anew: it never becomes a path.
        """
        name = published_name(path)
        if name is None:
            return None
        return await asyncio.to_thread(LogFolder(self._home.log_of(ledger)).read, name)

    async def _asked(self, question: Callable[[Archive], Answer]) -> Answer:
        if self._waiting >= WAITING_MAX:
            raise ArchiveUnavailable(BUSY)
        self._waiting += 1
        try:
            async with self._making:
                return await self._archive.ask(question)
        finally:
            self._waiting -= 1

    def _begun(
        self, archive: Archive, ledger: str, lines_of: Callable[[LogReader], Iterator[str]]
    ) -> Iterator[str]:
        with self._reading():
            return lines_of(self._opened(archive, ledger))

    def _opened(self, archive: Archive, ledger: str) -> LogReader:
        try:
            return LogReader.open(self._home.root, archive, name=ledger)
        except NotFound as problem:  # it names a path, which is for the operator
            log.info("%s", problem)
            raise NotFound(NO_LOG) from problem

    def _piece(self, lines: Iterator[str]) -> bytes:
        with self._reading():
            return "".join(islice(lines, LINES_AT_ONCE)).encode()

    def _receipts_key(self, ledger: str) -> SigningKey:
        folder = LogFolder(self._home.log_of(ledger))
        published = (folder.read(RECEIPT_KEYS) or b"").decode().split()
        if not published:
            raise NotFound(NO_LOG)
        origin = published[-1].partition("+")[0].removesuffix("/receipts")
        keys = receipt_keys(self._home.openings_of(ledger), origin)
        signing = [key for key in keys if key.verifier.text() in published]
        if not signing:
            raise ArchiveUnavailable(AWAY)
        return signing[-1]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as problem:
            log.warning("the notary's state can't be read: %s", problem)
            raise ArchiveUnavailable(AWAY) from problem


def published_name(path: str) -> str | None:
    """The name of a published file, written anew from what was asked for; None if it is none."""
    if path in NAMED:
        return path
    found = TILE.fullmatch(path)
    if found is None:
        return None
    level = found[1] if found[1] == ENTRIES else int(found[1])
    index = int(found[2].replace("x", "").replace("/", ""))
    width = WIDTH if found[3] is None else int(found[3])
    name = tile_path(level, index, width)
    return name if name == path and 0 < width <= WIDTH else None
