"""What the ledger has not taken yet, kept on disk until it has: bounded, durable, in order.

A posting that was put here is sent byte for byte, so under the same key, by this process or by the
next one that opens the folder. Knows the files, not the sending: that is `delivery`. Whatever waits
to be written, or synced, when the disk is free shares one write and one sync.
"""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from byline.delivery.spool_files import (
    FILE_MODE,
    Kept,
    SpoolFile,
    create,
    done_line,
    kept_line,
    orphans,
    sync_folder,
)
from byline.errors import SpoolFull, StartFailed
from byline.limits import SPOOL_BYTES_MAX
from byline.posting.postings import Posting

REFUSED = "refused.jsonl"
# Above this part of the bound no hold is taken: the rest is for the answers that are under way.
FILLED_MAX = 0.9
PROBE = b"\n" * 8_192  # empty lines: is there room again for a few captures?
FILES = 16  # the bound is cut into so many files: each is deleted when nothing waits in it


@dataclass(frozen=True, slots=True)
class _Write:
    """What one caller waits for."""

    kept: Kept | None  # None: only what was written before
    data: bytes
    synced: bool
    ended: "asyncio.Future[None]"


@dataclass(frozen=True, slots=True)
class _Waiting:
    kept: Kept
    file: SpoolFile


class Spool:
    """The postings of one process that wait. Two live processes share a folder, never a file."""

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._file_bytes_max = bytes_max // FILES
        self._problem: OSError | None = None  # why nothing can be written
        self._waiting: dict[str, _Waiting] = {}
        self._writes: list[_Write] = []
        self._marks: list[tuple[SpoolFile, str]] = []  # done, and not noted in the file yet
        self._queued_bytes = 0
        self._flushing: asyncio.Task[None] | None = None
        # The files. One flush at a time touches them: in the thread if it waits for a disk.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._files: list[SpoolFile] = []
        self._current: SpoolFile | None = None
        self._stored_bytes = 0

    @classmethod
    def open(cls, folder: Path, *, bytes_max: int = SPOOL_BYTES_MAX) -> "Spool":
        """The folder's spool, with what processes that are gone have left in it."""
        spool = cls(folder, bytes_max)
        try:
            for file in orphans(folder):
                spool._adopt(file)
        except OSError as problem:
            raise StartFailed(f"the spool {folder} can't be opened: {problem}") from problem
        return spool

    @property
    def waiting(self) -> int:
        """How many postings wait."""
        return len(self._waiting)

    @property
    def oldest_ms(self) -> int | None:
        """Since when the oldest waits."""
        return next((waiting.kept.time_ms for waiting in self._waiting.values()), None)

    def postings(self) -> list[Posting]:
        """What waits, the oldest first."""
        return [waiting.kept.posting for waiting in self._waiting.values()]

    def require_room(self) -> None:
        """Raise SpoolFull where the captures of new answers might find no room."""
        if self._problem is not None:
            raise SpoolFull(f"the spool can't be written: {self._problem}") from self._problem
        if self._stored_bytes + self._queued_bytes > FILLED_MAX * self._bytes_max:
            raise SpoolFull(f"the spool is full: {self.waiting} posts wait for the ledger")

    async def put(self, posting: Posting, *, time_ms: int) -> None:
        """Keep it: on the disk when this returns. Raises SpoolFull if it is not."""
        await self._keep(posting, time_ms, synced=True)

    async def write(self, posting: Posting, *, time_ms: int) -> None:
        """Keep it in the file: this process may die then, the machine only after `sync`."""
        await self._keep(posting, time_ms, synced=False)

    async def sync(self) -> None:
        """Bring all that was written before to the disk. Raises SpoolFull where that fails."""
        await self._submit(None, b"" if self._problem is None else PROBE, synced=True)

    def done(self, key: str) -> None:
        """It waits no more. The mark is written with what is written next, or by `tidy`.

        A mark that is lost has the posting sent again, under its key: the ledger knows it.
        """
        if waiting := self._waiting.pop(key, None):
            self._marks.append((waiting.file, key))

    async def refuse(self, posting: Posting, reason: str) -> None:
        """The ledger refused it for good: note it in `refused.jsonl`. It waits no more."""
        line = orjson.dumps({"reason": reason, "posting": posting}) + b"\n"
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._append_refused, line)
        except OSError as problem:
            raise SpoolFull(f"{posting.key}: its refusal can't be noted: {problem}") from problem
        self.done(posting.key)

    async def tidy(self) -> None:
        """Write the marks that wait, delete finished files; after a failure, see if it is over."""
        if self._problem is not None:
            await self._submit(None, PROBE, synced=True)
        elif self._marks:
            await self._submit(None, b"", synced=False)

    async def close(self) -> None:
        """Write what waits to be written and give the files up: the next process adopts them."""
        while self._flushing is not None:
            await asyncio.wait({self._flushing})
        marks, self._marks = self._marks, []
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close_files, marks)
        self._thread.shutdown()

    # --- in the event loop ---

    async def _keep(self, posting: Posting, time_ms: int, *, synced: bool) -> None:
        if posting.key in self._waiting:
            await self._submit(None, b"", synced=synced)
            return
        kept = Kept(posting, time_ms)
        data = kept_line(kept)
        if self._stored_bytes + self._queued_bytes + len(data) > self._bytes_max:
            raise SpoolFull(f"the spool is full: {self.waiting} posts wait for the ledger")
        await self._submit(kept, data, synced=synced)

    async def _submit(self, kept: Kept | None, data: bytes, *, synced: bool) -> None:
        ended = asyncio.get_running_loop().create_future()
        self._writes.append(_Write(kept, data, synced, ended))
        self._queued_bytes += len(data)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        await ended

    async def _flush(self) -> None:
        """Write what waits, as one, until nothing does."""
        try:
            while self._writes:
                writes, self._writes = self._writes, []
                marks, self._marks = self._marks, []
                await self._flush_once(writes, marks)
        finally:
            self._flushing = None

    async def _flush_once(self, writes: list[_Write], marks: list[tuple[SpoolFile, str]]) -> None:
        data = b"".join(write.data for write in writes)
        keys = [write.kept.posting.key for write in writes if write.kept is not None]
        synced = any(write.synced for write in writes)
        loop = asyncio.get_running_loop()
        try:
            if synced or not self._fits(len(data)):
                file = await loop.run_in_executor(
                    self._thread, self._write, data, keys, marks, synced
                )
            else:  # into the system's cache: sooner done than a thread is asked
                file = self._write(data, keys, marks, synced)
        except OSError as problem:
            self._problem = problem
            for write in writes:
                if not write.ended.done():
                    write.ended.set_exception(SpoolFull(f"the spool can't be written: {problem}"))
        else:
            if data:
                self._problem = None
            for write in writes:
                if write.kept is not None:
                    assert file is not None, "what is kept lies in a file"
                    self._waiting[write.kept.posting.key] = _Waiting(write.kept, file)
                if not write.ended.done():
                    write.ended.set_result(None)
        finally:
            self._queued_bytes -= len(data)

    # --- the files: in the thread, or in the loop while the thread rests; raises OSError ---

    def _write(
        self, data: bytes, keys: list[str], marks: list[tuple[SpoolFile, str]], synced: bool
    ) -> SpoolFile | None:
        """The file that `data` is in now; None where nothing was ever written."""
        try:
            self._mark(marks)  # first: a key may come again
            if not self._fits(len(data)):
                self._begin_file()
            if file := self._current:
                file.append(data)
                file.waiting.update(keys)
            if synced:
                for each in self._files:
                    each.sync()
        except OSError:
            self._give_up_current()  # nothing is certain of a file that failed once
            raise
        finally:
            self._stored_bytes = sum(file.size for file in self._files)
        return file

    def _mark(self, marks: list[tuple[SpoolFile, str]]) -> None:
        """Note what is done, and delete the files in which nothing waits any more."""
        for file in {file for file, _ in marks}:
            keys = [key for marked, key in marks if marked is file]
            file.waiting.difference_update(keys)
            if not file.waiting and file is not self._current:
                self._close_file(file)
                continue
            try:
                file.append(b"".join(done_line(key) for key in keys))
            except OSError:  # what is not marked is sent again, and known
                if file is self._current:
                    self._give_up_current()

    def _fits(self, size: int) -> bool:
        if self._current is None:
            return not size
        return not self._current.size or self._current.size + size <= self._file_bytes_max

    def _begin_file(self) -> None:
        self._give_up_current()
        self._current = create(self._folder)
        self._files.append(self._current)

    def _give_up_current(self) -> None:
        current, self._current = self._current, None
        if current is not None and not current.waiting:
            self._close_file(current)

    def _close_file(self, file: SpoolFile) -> None:
        self._files.remove(file)
        file.close()

    def _adopt(self, file: SpoolFile) -> None:
        for key, kept in file.adopt().kept.items():
            if key not in self._waiting:
                self._waiting[key] = _Waiting(kept, file)
                file.waiting.add(key)
        self._files.append(file)
        if file.waiting:
            file.sync()
            self._stored_bytes += file.size
        else:
            self._close_file(file)

    def _append_refused(self, line: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        with os.fdopen(os.open(self._folder / REFUSED, flags, FILE_MODE), "ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self._folder)

    def _close_files(self, marks: list[tuple[SpoolFile, str]]) -> None:
        self._mark(marks)
        for file in list(self._files):
            if file.waiting:
                with suppress(OSError):  # the lines are written: this process's end loses none
                    file.sync()
            self._close_file(file)
