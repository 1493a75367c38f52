"""The log's private files: its signing keys, oldest first, and the secret of its salts, for the
notary alone; and the keys that sign receipts, which the gateways' group may read.

Lost signing keys end a log: back them up with the ledger.
"""

import os
import secrets
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from pathlib import Path

from byline.errors import StartFailed
from byline.notary.state import FOR_GROUP, PRIVATE, STATE
from byline.transparency.leaves import Salts
from byline.transparency.notes import COSIGNATURE, SIGNATURE, SigningKey
from byline.transparency.receipts import receipt_key_name

KEY_BYTES = 32
LOG, RECEIPTS = "log", "receipts"  # what a key file's name begins with
SALTS = "salts.secret"
MODES = {LOG: 0o600, RECEIPTS: 0o640}


@dataclass(frozen=True, slots=True)
class LogKeys:
    """What signs one log's heads, and what signs receipts; a rotated-in key is the last."""

    keys: tuple[SigningKey, ...]
    salts: Salts
    receipts: tuple[SigningKey, ...]

    @property
    def newest(self) -> SigningKey:
        """What the next key would be announced by."""
        return self.keys[-1]


def log_keys(private: Path, openings: Path, origin: str) -> LogKeys:
    """The keys in the notary's own folder and in the gateways', made if there are none.

    Raises StartFailed for a broken file, or for a log whose entries have no secrets of their own.
    """
    if (private / STATE).exists():
        raise StartFailed(
            f"the log of {private} was begun before entries had secrets of their own, and can't go "
            f"on. Move {private} and the published folder away: the journal is then logged anew, "
            "under new keys; name another origin if anybody has proofs of the old log"
        )
    for folder, mode, kind in ((private, PRIVATE, LOG), (openings, FOR_GROUP, RECEIPTS)):
        folder.mkdir(parents=True, exist_ok=True, mode=mode)
        if not _paths(folder, kind):
            _write_new(folder / f"{kind}-001.key", MODES[kind])
    if not (private / SALTS).exists():
        _write_new(private / SALTS)
    keys = tuple(SigningKey(origin, SIGNATURE, _read(path)) for path in _paths(private, LOG))
    return LogKeys(keys, Salts(_read(private / SALTS)), receipt_keys(openings, origin))


def receipt_keys(openings: Path, origin: str) -> tuple[SigningKey, ...]:
    """What signs the receipts of this log's ledger; none before the notary began the log."""
    name = receipt_key_name(origin)
    return tuple(SigningKey(name, SIGNATURE, _read(path)) for path in _paths(openings, RECEIPTS))


def rotate(folder: Path, kind: str = LOG) -> Path:
    """Put a new key beside the others: the notary publishes it when it starts next."""
    paths = _paths(folder, kind)
    if not paths:
        raise StartFailed(f"there is no {kind} key in {folder}: start the notary first")
    newest = int(paths[-1].stem.removeprefix(f"{kind}-"))
    path = folder / f"{kind}-{newest + 1:03}.key"
    _write_new(path, MODES[kind])
    return path


def witness_key(folder: Path, name: str) -> SigningKey:
    """A witness's key, made if there is none."""
    path = folder / "witness.key"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
        _write_new(path)
    return SigningKey(name, COSIGNATURE, _read(path))


def _paths(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"{kind}-[0-9]*.key"))


def _write_new(path: Path, mode: int = 0o600) -> None:
    """32 random bytes, whole or not there."""
    aside = path.with_name(f".{path.name}.aside")
    aside.unlink(missing_ok=True)
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "w") as file:
        file.write(b64encode(secrets.token_bytes(KEY_BYTES)).decode() + "\n")
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)


def _read(path: Path) -> bytes:
    try:
        raw = b64decode(path.read_text().strip(), validate=True)
    except (OSError, ValueError, Base64Error) as problem:
        raise StartFailed(f"the key file {path} can't be read") from problem
    if len(raw) != KEY_BYTES:
        raise StartFailed(f"the key file {path} holds no 32 bytes in base64")
    return raw
