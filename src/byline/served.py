"""Served token ids: written before the capture, read by the attribution worker, then deleted.

A file is named by its inference id, which this program minted; its hash travels in the job. Nothing
from a client becomes part of a path.
"""

import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path

import orjson

from byline.canonical import sha256_hex
from byline.errors import ArtifactError
from byline.limits import SERVED_TOKENS_DAYS_MAX
from byline.records import ServedTokens

INFERENCE_ID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
FILE_MODE = 0o644  # the worker may be another user


def _path(folder: Path, inference: str) -> Path:
    if not INFERENCE_ID.match(inference):
        raise ArtifactError(f"'{inference}' is no inference id")
    return folder / f"{inference}.json"


def served_bytes(tokens: ServedTokens) -> bytes:
    """What is stored and hashed: the ids with their salt."""
    fields = {"inference": tokens.inference, "prompt": tokens.prompt, "choices": tokens.choices}
    return orjson.dumps({**fields, "salt": tokens.salt} if tokens.salt else fields)


def write_served(folder: Path, tokens: ServedTokens) -> str:
    """Write the token ids in the folder, which is made if need be; answers the file's SHA-256.

    No renaming: whoever reads a file knows its hash from the job, and the job is posted after this
    returns. What a killed program leaves half written is in no job, and is deleted with its age.
    """
    data = served_bytes(tokens)
    path = _path(folder, tokens.inference)
    try:
        _write(path, data)
    except FileNotFoundError:
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, data)
    return sha256_hex(data)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    try:
        written = 0
        while written < len(data):
            written += os.write(descriptor, data[written:])
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(descriptor)


def read_served(folder: Path, inference: str, sha256: str) -> ServedTokens:
    """The token ids of an inference. Raises ArtifactError if they are gone or have changed."""
    try:
        data = _path(folder, inference).read_bytes()
    except OSError as problem:
        raise ArtifactError(f"the served tokens of {inference} are gone: {problem}") from problem
    if sha256_hex(data) != sha256:
        raise ArtifactError(f"the served tokens of {inference} are not what their hash says")
    return served_from(data)


def served_from(data: bytes) -> ServedTokens:
    """The token ids in a file. Raises ArtifactError if it holds none."""
    try:
        fields = json.loads(data)
        choices = tuple(tuple(choice) for choice in fields["choices"])
        prompt = tuple(fields["prompt"])
        return ServedTokens(fields["inference"], prompt, choices, fields.get("salt", ""))
    except (ValueError, KeyError, TypeError) as problem:
        raise ArtifactError(f"this is no file of served tokens: {problem!r}") from problem


def delete_served(folder: Path, inference: str) -> None:
    """Delete the token ids of a settled inference; absent is fine."""
    _path(folder, inference).unlink(missing_ok=True)


def delete_old_served(folder: Path, *, now: float | None = None) -> int:
    """Delete what is older than SERVED_TOKENS_DAYS_MAX, whatever its state; answers how many."""
    oldest = (time.time() if now is None else now) - SERVED_TOKENS_DAYS_MAX * 86_400
    deleted = 0
    for path in folder.glob("*"):
        if path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
            deleted += 1
    return deleted
