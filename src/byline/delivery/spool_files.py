"""The files of a spool: lines with a checksum, appended to files that only one process writes.

A file is locked (flock) as long as its process lives, and the lock goes with the process however
that ends; so a file whose lock is free belongs to nobody, and whoever opens the folder next adopts
it. Blocking; knows nothing of the ledger. Raises OSError.
"""

import fcntl
import logging
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from byline.posting.postings import Posting

log = logging.getLogger("byline.delivery.spool")

SUFFIX = ".spool"
DAMAGED = ".damaged"
FILE_MODE, FOLDER_MODE = 0o600, 0o700
CHECKSUM = slice(0, 8)  # of a line: CRC-32 in hexadecimal, a space, the JSON
TEXT = slice(9, None)


@dataclass(frozen=True, slots=True)
class Kept:
    """One posting that waits, and since when."""

    posting: Posting
    time_ms: int


def kept_line(kept: Kept) -> bytes:
    """The line that keeps a posting."""
    return _line(orjson.dumps(kept))


def done_line(key: str) -> bytes:
    """The line that says that the posting of this key waits no more."""
    return _line(orjson.dumps({"done": key}))


def _line(text: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(text), text)


def read_line(line: bytes) -> Kept | str | None:
    """What a line keeps, or the key that is done; None where a byte of it has changed."""
    if line[CHECKSUM] != b"%08x" % zlib.crc32(line[TEXT]) or line[8:9] != b" ":
        return None
    fields = orjson.loads(line[TEXT])
    if "done" in fields:
        return str(fields["done"])
    try:
        return Kept(_posting_from(fields["posting"]), fields["time_ms"])
    except TypeError:  # another version's
        return None


def _posting_from(fields: Mapping[str, Any]) -> Posting:
    """JSON has no tuples, and a posting no lists."""
    restored: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return Posting(**restored)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds."""

    kept: dict[str, Kept]  # what waits, by event key, oldest first
    damaged: int  # whole lines whose bytes have changed
    whole_bytes: int  # up to the end of the last whole line; a torn one was never acknowledged


def read_contents(data: bytes) -> Contents:
    """Everything of a file that can still be told. Empty lines only tried the disk."""
    whole = data[: data.rfind(b"\n") + 1]
    kept: dict[str, Kept] = {}
    damaged = 0
    for line in filter(None, whole.split(b"\n")):
        read = read_line(line)
        if read is None:
            damaged += 1
        elif isinstance(read, Kept):
            kept.pop(read.posting.key, None)
            kept[read.posting.key] = read
        else:
            kept.pop(read, None)
    return Contents(kept, damaged, len(whole))


class SpoolFile:
    """One locked file, the keys in it that wait, and its size."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.waiting: set[str] = set()
        self.size = 0
        self.damaged = False
        self._descriptor = descriptor
        self._is_synced = False  # whoever wrote to it before may have died before it was

    def adopt(self) -> Contents:
        """Read what a process that is gone has left, and cut off what it did not end writing."""
        data = self.path.read_bytes()
        contents = read_contents(data)
        if torn := len(data) - contents.whole_bytes:
            log.warning("%s ends in a torn line: %d bytes are dropped", self.path.name, torn)
            os.ftruncate(self._descriptor, contents.whole_bytes)
        if contents.damaged:
            log.critical(
                "%s has %d damaged lines: it is kept beside the spool as %s",
                self.path.name, contents.damaged, self.path.name + DAMAGED,
            )  # fmt: skip
        self.damaged = contents.damaged > 0
        self.size = contents.whole_bytes
        return contents

    def append(self, data: bytes) -> None:
        """Append all of it or nothing."""
        try:
            written = 0
            while written < len(data):
                self._is_synced = False
                written += os.write(self._descriptor, data[written:])
        except OSError:
            os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(data)

    def sync(self) -> None:
        """Bring it to the disk, if it is not there."""
        if not self._is_synced:
            os.fsync(self._descriptor)
            self._is_synced = True

    def close(self) -> None:
        """Unlock it. Nothing waits in it: delete it too, unless damaged lines are evidence."""
        with suppress(OSError):  # a file that can't be deleted is adopted, and empty
            if not self.waiting and self.damaged:
                self.path.rename(self.path.with_name(self.path.name + DAMAGED))
            elif not self.waiting:
                self.path.unlink()
        os.close(self._descriptor)


def create(folder: Path) -> SpoolFile:
    """A new, empty file behind all others of the folder."""
    with _locked(folder):
        names = [path.name for path in folder.glob(f"[0-9]*{SUFFIX}*")]
        numbers = [int(name.partition(".")[0]) for name in names]
        path = folder / f"{max(numbers, default=0) + 1:08d}{SUFFIX}"
        file = _open(path, os.O_CREAT | os.O_EXCL)
        assert file is not None, f"{path} is new and yet locked"
        sync_folder(folder)
        return file


def orphans(folder: Path) -> list[SpoolFile]:
    """The files whose processes are gone, oldest first. They are this process's from now on."""
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    with _locked(folder):
        found = [_open(path) for path in sorted(folder.glob(f"[0-9]*{SUFFIX}"))]
    return [file for file in found if file is not None]


def sync_folder(folder: Path) -> None:
    """Bring the folder's own entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path, flags: int = 0) -> SpoolFile | None:
    """The file, locked; None while another process has it, or if that has just deleted it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | flags, FILE_MODE)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return SpoolFile(path, descriptor)
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time creates or adopts: else a file could be adopted before it is locked."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
