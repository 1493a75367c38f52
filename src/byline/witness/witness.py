"""Decides what a witness cosigns: only a head that continues the last one it cosigned.

The newest head of each log is on the disk before its cosignature leaves the house.
"""

import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from byline.errors import ProofRefused, StartFailed
from byline.transparency.heads import TreeHead, parse_head
from byline.transparency.notes import SigningKey, VerifierKey
from byline.transparency.tree import EMPTY_ROOT, is_consistent
from byline.transparency.witnessing import AddCheckpoint, parse_add_checkpoint

HEADS = "heads.json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the witness says: an HTTP status, and a text with it."""

    status: HTTPStatus
    text: str
    is_size: bool = False  # the text is the size of the head that it cosigned last


class Witness:
    """One cosigner of some logs. `folder` remembers the newest head of each."""

    def __init__(self, key: SigningKey, logs: Sequence[VerifierKey], folder: Path) -> None:
        self._key = key
        self._logs = logs
        self._path = folder / HEADS
        self._turn = threading.Lock()  # checking and remembering are one step
        self._heads = _read(self._path)

    def add_checkpoint(self, body: str, *, time_seconds: int) -> Answer:
        """Answer one `add-checkpoint`: the cosignature's line, or why there is none."""
        try:
            request = parse_add_checkpoint(body)
            head, note = parse_head(request.checkpoint)
        except ProofRefused as problem:
            return Answer(HTTPStatus.BAD_REQUEST, str(problem))
        known = [key for key in self._logs if key.name == head.origin]
        if not known:
            return Answer(HTTPStatus.NOT_FOUND, f"'{head.origin}' is not a log that is witnessed")
        try:
            signers = note.signers(known)
        except ProofRefused as problem:
            return Answer(HTTPStatus.FORBIDDEN, str(problem))
        if not signers:
            return Answer(HTTPStatus.FORBIDDEN, f"no known key of '{head.origin}' signed it")
        if request.old > head.size:
            return Answer(HTTPStatus.BAD_REQUEST, "the old size is more than the head's")
        with self._turn:
            refusal = self._refusal(request, head)
            if refusal is not None:
                return refusal
            self._remember(head)
        return Answer(HTTPStatus.OK, self._key.line(note.text, time_seconds=time_seconds))

    def _refusal(self, request: AddCheckpoint, head: TreeHead) -> Answer | None:
        last = self._heads.get(head.origin, TreeHead(head.origin, 0, EMPTY_ROOT))
        if request.old != last.size:
            return Answer(HTTPStatus.CONFLICT, f"{last.size}\n", is_size=True)
        if request.old == head.size and head.root != last.root:
            return Answer(HTTPStatus.CONFLICT, f"{last.size}\n", is_size=True)
        if not is_consistent(last.size, head.size, last.root, head.root, request.path):
            return Answer(
                HTTPStatus.UNPROCESSABLE_ENTITY, "the head does not continue the one before"
            )
        return None

    def _remember(self, head: TreeHead) -> None:
        heads = {**self._heads, head.origin: head}
        _write(self._path, heads)
        self._heads = heads


def _read(path: Path) -> dict[str, TreeHead]:
    try:
        found = json.loads(path.read_text())
        return {
            origin: TreeHead(origin, int(size), bytes.fromhex(root))
            for origin, (size, root) in found.items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as problem:
        raise StartFailed(f"the witness's memory {path} can't be read: nothing is cosigned") from (
            problem
        )


def _write(path: Path, heads: Mapping[str, TreeHead]) -> None:
    text = json.dumps({head.origin: [head.size, head.root.hex()] for head in heads.values()})
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".aside")
    with aside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
