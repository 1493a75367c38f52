"""Readings on disk, a file a training: written by the program beside the model, read by figures."""

from pathlib import Path

import numpy as np

from byline.attacks.pay import Reading
from byline.errors import InvalidInput

ARRAYS = ("scores", "lift", "prompt_tokens", "completion_tokens")


def reading_path(folder: Path, training: str) -> Path:
    """Where the reading of a training lies, there or not."""
    return folder / f"{training}.npz"


def write_reading(path: Path, reading: Reading) -> None:
    """Write it aside and rename, so that a file that is there is whole."""
    aside = path.with_suffix(".partial.npz")
    arrays = {name: getattr(reading, name) for name in ARRAYS}
    np.savez_compressed(aside, rows=np.array(reading.rows), **arrays)
    aside.replace(path)


def read_reading(path: Path) -> Reading:
    """Read it. Raises InvalidInput where the file is none."""
    try:
        with np.load(path) as found:
            rows = tuple(str(row) for row in found["rows"])
            return Reading(rows, **{name: found[name] for name in ARRAYS})
    except (OSError, ValueError, KeyError) as problem:
        raise InvalidInput(f"{path} holds no reading: {problem}", param="readings") from problem
