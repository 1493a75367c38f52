"""What was read off the models for one measurement, as a file of plain arrays.

A answers (of kind served or reference), C contributors, S coalitions, O orders. All are summed
log-probabilities of an answer's tokens, in nats, or scores of a method's variant.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from byline.errors import InvalidInput
from byline.fidelity.measures import Array
from byline.fidelity.study import Study

FRONTIER = "tangent frontier"  # the name of cheaper vectors, not tangents alone: "form/bytes"
SCORES, LIKENESS = "scores:", "likeness:"
BY_ROW = "by_row"
REPEATED = "repeated"


@dataclass(frozen=True, slots=True)
class Readings:
    """The arrays; see the module."""

    question: NDArray[np.int64]  # [A]: each answer's question, by place in the study
    is_served: NDArray[np.bool_]  # [A]
    tokens: NDArray[np.int64]  # [A]: completion tokens
    row_tokens: NDArray[np.int64]  # [n]: completion tokens of each row
    base: Array  # [A]
    full: Array  # [O, A]
    without: Array  # [O, A, C]
    coalitions: Array  # [S, A]; those that are trained
    coalition_places: NDArray[np.int64]  # [S]: of the study's coalitions
    halved: Array  # [H, A]: contributor `halved_places[h]` at half its weight
    halved_places: NDArray[np.int64]  # [H]
    smoothness: Array  # [H, 2]: cosine and weighted sign agreement of the two halves
    scores: Mapping[str, Array]  # "method/variant" -> [A, C]
    likeness: Mapping[str, Array]  # "name" -> [A, n], not below 0
    by_row: Array | None = None  # [A, n], nats: each row's score by the method that serves
    repeated: Array | None = None  # [O - 1, S, A]: the same coalitions under further orders

    @property
    def effects(self) -> Array:
        """[O, A, C]: log-probability with everybody minus that without each, inside one order."""
        result: Array = self.full[:, :, None] - self.without
        return result


NO_READINGS = (
    OSError,
    EOFError,
    BadZipFile,
    ValueError,
    KeyError,
)  # what a file that is none raises
PLAIN = (
    "question", "is_served", "tokens", "row_tokens", "base", "full", "without", "coalitions",
    "coalition_places", "halved", "halved_places", "smoothness",
)  # fmt: skip


def write_readings(path: Path, readings: Readings) -> None:
    """Write them aside and rename."""
    arrays = {name: getattr(readings, name) for name in PLAIN}
    arrays |= {SCORES + name: found for name, found in readings.scores.items()}
    arrays |= {LIKENESS + name: found for name, found in readings.likeness.items()}
    arrays |= {} if readings.by_row is None else {BY_ROW: readings.by_row}
    arrays |= {} if readings.repeated is None else {REPEATED: readings.repeated}
    write_scores(path, arrays)


def write_scores(path: Path, scores: Mapping[str, Any]) -> None:
    """Named arrays as a file, written aside and renamed."""
    aside = path.with_suffix(".partial.npz")
    np.savez_compressed(aside, **scores)
    aside.replace(path)


def read_scores(path: Path) -> dict[str, Any]:
    """Read them. Raises InvalidInput where the file is none."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except NO_READINGS as problem:
        raise InvalidInput(f"{path} holds no readings: {problem}", param="readings") from problem


def read_readings(path: Path) -> Readings:
    """Read them. Raises InvalidInput where the file is none."""
    try:
        named = read_scores(path)
        return Readings(
            **{name: named[name] for name in PLAIN},
            scores=_under(SCORES, named),
            likeness=_under(LIKENESS, named),
            by_row=named.get(BY_ROW),  # a file from before has none
            repeated=named.get(REPEATED),
        )
    except KeyError as problem:
        raise InvalidInput(f"{path} holds no readings: {problem}", param="readings") from problem


def _under(prefix: str, named: Mapping[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(prefix): found for name, found in named.items() if prefix in name}


def membership_of(study: Study, readings: Readings) -> Array:
    """[S, C]: 1 where a contributor is in a trained coalition."""
    members = np.zeros((len(readings.coalition_places), len(study.contributors)))
    for line, place in zip(members, readings.coalition_places, strict=True):
        line[list(study.coalitions[place])] = 1
    return members


def tuning(count: int) -> NDArray[np.bool_]:
    """Which of `count` answers or coalitions are for tuning: every third; the rest is the test."""
    chosen: NDArray[np.bool_] = np.arange(count) % 3 == 0
    return chosen
