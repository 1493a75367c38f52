"""What is measured row by row, where contributors are too coarse: who taught an answer, row by row.

    example-level LDS   random halves of the rows are trained; as in `measures`, players are rows
    top rows removed    how far an answer's log-probability falls when the first hundredth of the
                        rows by a method is left out, beside as many rows at random
    mislabelled rows    a tenth of the rows exchange their completions; AUROC of finding them by
                        self-influence (Koh and Liang, https://arxiv.org/abs/1703.04730, 5.4), or
                        by their loss

A answers, n rows, S halves of the rows, R answers whose top rows are removed.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from byline.canonical import Json
from byline.errors import InvalidInput
from byline.fidelity.measures import Array, lds
from byline.fidelity.readings import NO_READINGS, tuning
from byline.fidelity.report import rounded, told
from byline.fidelity.resampling import Draws, Figure, draw, interval, lds_draws, mean_draws
from byline.fidelity.study import Study, halves

REMOVED_PART = 0.01  # of the rows, one at least
MISLABELLED_PART = 0.1
AT_RANDOM = "at random"  # the removal that others are compared with
SCORES, FALLS, SUSPICIONS = "scores:", "falls:", "suspicions:"


@dataclass(frozen=True, slots=True)
class RowReadings:
    """The arrays, in nats."""

    question: NDArray[np.int64]  # [A]: each served answer's question, by place in the study
    members: Array  # [S, n]: 1 where a row is in a trained half
    outcomes: Array  # [S, A]: log-probabilities under the halves
    scores: Mapping[str, Array]  # method -> [A, n]
    removed_from: NDArray[np.int64]  # [R]: answers, by place
    falls: Mapping[
        str, Array
    ]  # method -> [R]: log-probability with every row, less without its top
    mislabelled: NDArray[np.bool_]  # [n]
    suspicions: Mapping[str, Array]  # method -> [n]: more of it, more likely mislabelled


@dataclass(frozen=True, slots=True)
class RowFigures:
    """The figures, of the test split's answers and halves."""

    rows: int
    halves: int
    lds: Mapping[str, Figure]
    removed_rows: int
    falls_nats: Mapping[str, Figure]
    falls_above_random_nats: Mapping[str, Figure]
    mislabelled: int
    auroc: Mapping[str, float]


def by_rows(study: Study, wanted: int, seed: int) -> Study:
    """The same rows and first order with every row its own contributor, and halves of the rows."""
    chance = random.Random(seed)  # noqa: S311 - a design to repeat, not a secret
    rows = tuple(replace(row, contributor=row.id) for row in study.rows)
    return replace(
        study,
        rows=rows,
        contributors=tuple(row.id for row in rows),
        coalitions=halves(len(rows), wanted, chance),
        orders=study.orders[:1],
    )


def mislabelled(study: Study, seed: int) -> tuple[Study, NDArray[np.bool_]]:
    """The study with a tenth of its rows' completions handed on in a ring, and whose they are [n].

    No row keeps its own; a row that gets an equal text is no error, and is not counted as one.
    """
    chance = random.Random(seed)  # noqa: S311
    count = max(round(MISLABELLED_PART * len(study.rows)), 2)
    places = chance.sample(range(len(study.rows)), count)
    rows = list(study.rows)
    for place, giver in zip(places, [*places[1:], places[0]], strict=True):
        rows[place] = replace(rows[place], completion=study.rows[giver].completion)
    wrong = [
        one.completion != other.completion for one, other in zip(rows, study.rows, strict=True)
    ]
    return replace(study, rows=tuple(rows), coalitions=(), orders=study.orders[:1]), np.array(wrong)


def removed_count(rows: int) -> int:
    """How many rows are a hundredth of so many, one at least."""
    return max(round(REMOVED_PART * rows), 1)


def tested(study: Study, question: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which answers are of the test split, [A]."""
    chosen: NDArray[np.bool_] = ~tuning(len(study.questions))[question]
    return chosen


def auroc(suspicion: Array, mislabelled_rows: NDArray[np.bool_]) -> float:
    """The chance that a mislabelled row is suspected more than another; ties count half.

    By ranks, Mann and Whitney's U over the number of pairs. Raises ValueError without both kinds.
    """
    wrong = int(mislabelled_rows.sum())
    right = len(mislabelled_rows) - wrong
    if not wrong or not right:
        raise ValueError("AUROC needs rows of both kinds")
    ranks = rankdata(suspicion)[mislabelled_rows].sum()
    return float((ranks - wrong * (wrong + 1) / 2) / (wrong * right))


def row_figures(study: Study, readings: RowReadings, *, draws: int = 1_000) -> RowFigures:
    """The figures of a measurement."""
    mine = tested(study, readings.question)
    kept = ~tuning(len(readings.members))
    members, outcomes = readings.members[kept], readings.outcomes[kept][:, mine].T
    drawn = draw(int(mine.sum()), int(kept.sum()), draws, seed=3)
    removals = draw(len(readings.removed_from), 1, draws, seed=4)
    by_chance = readings.falls[AT_RANDOM]
    return RowFigures(
        rows=members.shape[1],
        halves=len(members),
        lds={
            name: interval(
                lds(scores[mine], members, outcomes),
                lds_draws(scores[mine], members, outcomes, drawn),
            )
            for name, scores in readings.scores.items()
        },
        removed_rows=removed_count(members.shape[1]),
        falls_nats={name: _mean(falls, removals) for name, falls in readings.falls.items()},
        falls_above_random_nats={
            name: _mean(falls - by_chance, removals)
            for name, falls in readings.falls.items()
            if name != AT_RANDOM
        },
        mislabelled=int(readings.mislabelled.sum()),
        auroc={
            name: auroc(each, readings.mislabelled) for name, each in readings.suspicions.items()
        },
    )


def _mean(values: Array, draws: Draws) -> Figure:
    return interval(float(values.mean()), mean_draws(values, draws))


def figures_json(found: RowFigures) -> dict[str, Json]:
    """Under `rows_measured`."""
    return {"rows_measured": rounded(asdict(found))}


def figures_page(found: RowFigures) -> str:
    """The page's part."""
    lines = ["", f"## row by row: {found.rows} rows, {found.halves} halves of them", ""]
    lines += [f"* example-level LDS of {name}: {told(each)}" for name, each in found.lds.items()]
    lines += [
        f"* log-probability falls without the first {found.removed_rows} by {name}: {told(each)} "
        "nats"
        for name, each in found.falls_nats.items()
    ]
    lines += [
        f"* … more than without as many rows at random, by {name}: {told(each)} nats"
        for name, each in found.falls_above_random_nats.items()
    ]
    lines += [
        f"* AUROC of finding {found.mislabelled} mislabelled rows by {name}: {each:.2f}"
        for name, each in found.auroc.items()
    ]
    return "\n".join(lines) + "\n"


def write_row_readings(path: Path, readings: RowReadings) -> None:
    """Write them aside and rename."""
    named: dict[str, Sequence[object] | Array | NDArray[np.int64] | NDArray[np.bool_]] = {
        name: getattr(readings, name)
        for name in ("question", "members", "outcomes", "removed_from", "mislabelled")
    }
    for prefix, each in (
        (SCORES, readings.scores), (FALLS, readings.falls), (SUSPICIONS, readings.suspicions)
    ):  # fmt: skip
        named |= {prefix + name: array for name, array in each.items()}
    aside = path.with_suffix(".partial.npz")
    np.savez_compressed(aside, **named)  # type: ignore[arg-type]
    aside.replace(path)


def read_row_readings(path: Path) -> RowReadings:
    """Read them. Raises InvalidInput where the file is none."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            named = {name: arrays[name] for name in arrays.files}

        def under(prefix: str) -> dict[str, Array]:
            return {
                name.removeprefix(prefix): array
                for name, array in named.items()
                if name.startswith(prefix)
            }

        return RowReadings(
            question=named["question"],
            members=named["members"],
            outcomes=named["outcomes"],
            scores=under(SCORES),
            removed_from=named["removed_from"],
            falls=under(FALLS),
            mislabelled=named["mislabelled"],
            suspicions=under(SUSPICIONS),
        )
    except NO_READINGS as problem:
        raise InvalidInput(f"{path} holds no readings: {problem}", param="readings") from problem
