"""Served token ids: kept before the capture, read by the attribution worker, then erased.

A gateway appends them to a segment of its own, a line an answer; a file for each took longer than
anything else that an answer needs (docs/decisions.md). A line's hash travels in the job. It is
erased in place, and a segment goes when no line is left in it. Segments are named by ids that this
program mints: nothing from a client becomes part of a path.
"""

import json
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import orjson
import uuid_utils

from byline.canonical import sha256_hex
from byline.errors import ArtifactError
from byline.limits import SERVED_TOKENS_DAYS_MAX
from byline.records import ServedTokens

UUID7 = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
INFERENCE_ID = re.compile(rf"^{UUID7}\Z")
SEGMENT = re.compile(rf"^{UUID7}\.tokens\Z")
LINE = re.compile(rf'^{{"inference":"({UUID7})"'.encode(), re.MULTILINE)

# A segment is written for so long, and holds about so much: what is erased late keeps little else.
SEGMENT_SECONDS = 30.0
SEGMENT_BYTES_MAX = 4 << 20
CLOSED_SECONDS = 10 * SEGMENT_SECONDS  # nobody writes to it by then, whatever clocks say
SEGMENT_MODE = 0o660  # worker and auditor, who erase, may be other users of the group


def served_bytes(tokens: ServedTokens) -> bytes:
    """What is stored and hashed: the ids with their salt, in one line."""
    fields = {"inference": tokens.inference, "prompt": tokens.prompt, "choices": tokens.choices}
    return orjson.dumps({**fields, "salt": tokens.salt} if tokens.salt else fields)


class ServedWriter:
    """Appends to segments of its own; for any number of threads.

    Nothing is synced: whoever reads a line knows its hash from the job, which is posted after the
    write. What a killed program leaves half written is in no job, and goes with its segment.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._descriptor = -1  # none is open
        self._opened, self._size = 0.0, 0

    def write(self, tokens: ServedTokens) -> str:
        """Keep one answer's ids; the SHA-256 of its line. Raises OSError, and then kept nothing."""
        _require_id(tokens.inference)
        data = served_bytes(tokens)
        with self._lock:
            self._append(data + b"\n")
            if not os.fstat(self._descriptor).st_nlink:  # deleted under a writer that was asleep
                self._close()
                self._append(data + b"\n")
        return sha256_hex(data)

    def close(self) -> None:
        """Close the segment."""
        with self._lock:
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, line: bytes) -> None:
        aged = self._clock() - self._opened > SEGMENT_SECONDS
        if self._descriptor < 0 or aged or self._size > SEGMENT_BYTES_MAX:
            self._close()
            self._open()
        written = 0
        try:
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            self._close()
            raise
        self._size += len(line)

    def _open(self) -> None:
        path = self._folder / f"{uuid_utils.uuid7()}.tokens"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
        try:
            self._descriptor = os.open(path, flags)
        except FileNotFoundError:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, flags)
        os.fchmod(self._descriptor, SEGMENT_MODE)
        self._opened, self._size = self._clock(), 0

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def write_served(folder: Path, tokens: ServedTokens) -> str:
    """Keep one answer's ids in a segment of its own; the SHA-256 of its line. Raises OSError."""
    with ServedWriter(folder) as writer:
        return writer.write(tokens)


def read_served(folder: Path, inference: str, sha256: str) -> ServedTokens:
    """The token ids of an inference. Raises ArtifactError if they are gone or have changed."""
    found = _find(folder, inference)
    if found is None:
        raise ArtifactError(f"the served tokens of {inference} are gone")
    _, _, line = found
    if sha256_hex(line) != sha256:
        raise ArtifactError(f"the served tokens of {inference} are not what their hash says")
    return served_from(line)


def served_from(line: bytes) -> ServedTokens:
    """The token ids in a line. Raises ArtifactError if it holds none."""
    try:
        fields = json.loads(line)
        choices = tuple(tuple(choice) for choice in fields["choices"])
        prompt = tuple(fields["prompt"])
        return ServedTokens(fields["inference"], prompt, choices, fields.get("salt", ""))
    except (ValueError, KeyError, TypeError) as problem:
        raise ArtifactError(f"these are no served tokens: {problem!r}") from problem


def line_of_hash(data: bytes, sha256: str) -> bytes | None:
    """The line with this hash, of a segment or of a file with that line alone; None: not there."""
    return next((line for line in data.split(b"\n") if sha256_hex(line) == sha256), None)


def served_inferences(folder: Path) -> list[str]:
    """Whose token ids are kept, the oldest inference first."""
    return sorted(
        inference.decode() for path in _segments(folder) for inference in LINE.findall(_read(path))
    )


def erase_served(folder: Path, inference: str) -> None:
    """Overwrite the token ids of an inference with spaces; absent is fine. Raises OSError."""
    found = _find(folder, inference)
    if found is None:
        return
    segment, start, line = found
    with suppress(FileNotFoundError), segment.open("r+b") as file:
        file.seek(start)
        file.write(b" " * len(line))


def delete_old_served(folder: Path, *, now: float | None = None) -> int:
    """Delete segments with nothing left in them, and what is older than SERVED_TOKENS_DAYS_MAX,
    whatever its state, earlier versions' files too; answers how many. `now`: seconds since 1970."""
    now = time.time() if now is None else now
    too_old = SERVED_TOKENS_DAYS_MAX * 86_400
    ended = []
    for path in _segments(folder):
        age = now - _born_ms(path.stem) / 1_000
        if age > too_old or (age > CLOSED_SECONDS and _is_erased(path)):
            ended.append(path)
    ended += [path for path in _others(folder) if now - _changed(path, now) > too_old]
    for path in ended:
        path.unlink(missing_ok=True)
    return len(ended)


def _find(folder: Path, inference: str) -> tuple[Path, int, bytes] | None:
    """The segment with an inference, where its line starts there, and the line."""
    _require_id(inference)
    begins = f'{{"inference":"{inference}"'.encode()
    for path in _likely_first(_segments(folder), inference):
        data = _read(path)
        start = data.find(begins)
        end = data.find(b"\n", start)
        if start >= 0 and end >= 0:
            return path, start, data[start:end]
    return None


def _likely_first(segments: list[Path], inference: str) -> list[Path]:
    """An answer is in a segment that was opened `SEGMENT_SECONDS` before its question, or later; in
    an older one only where a clock was set back."""
    earliest = _born_ms(inference) - 1_000 * SEGMENT_SECONDS
    late = [path for path in segments if _born_ms(path.stem) >= earliest]
    return late + segments[: len(segments) - len(late)][::-1]


def _segments(folder: Path) -> list[Path]:
    """All segments, the oldest first."""
    try:
        return sorted(path for path in folder.iterdir() if SEGMENT.match(path.name))
    except FileNotFoundError:
        return []


def _others(folder: Path) -> list[Path]:
    """What else lies there, such as the files of earlier versions, one an answer."""
    try:
        entries = list(folder.iterdir())
    except FileNotFoundError:
        return []
    return [path for path in entries if path.is_file() and not SEGMENT.match(path.name)]


def _changed(path: Path, now: float) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # deleted a moment ago
        return now


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # deleted a moment ago
        return b""


def _is_erased(path: Path) -> bool:
    """Whether there is nothing but spaces and ends of lines, or a line cut short."""
    return LINE.search(_read(path)) is None


def _born_ms(uuid7: str) -> int:
    """When an id was minted, in ms since 1970 (RFC 9562, section 5.7)."""
    return int(uuid7[:8] + uuid7[9:13], 16)


def _require_id(inference: str) -> None:
    if not INFERENCE_ID.match(inference):
        raise ArtifactError(f"'{inference}' is no inference id")
