"""Trains and reads off what is measured row by row (`byline.fidelity.example_level`).

    python -m serving.fidelity.by_row --home HOME --base REFERENCE --study FILE --readings FILE
                                      [--halves 100] [--removals 20]

The study's full run must be trained. Every run is a run like the others, in HOME/counterfactuals,
so the program goes on where it was. Which rows are left out follows from the scores at the full
run, which are the same each time.
"""

import argparse
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from byline.artifacts import Artifact, ArtifactStore
from byline.errors import StartFailed
from byline.fidelity.example_level import (
    AT_RANDOM,
    RowReadings,
    by_rows,
    mislabelled,
    removed_count,
    tested,
    write_row_readings,
)
from byline.fidelity.measures import Array
from byline.fidelity.study import Study, read_study
from byline.fidelity.text_similarity import bm25
from byline.home import Home
from serving.checkpoints import load_base_model, load_tokenizer
from serving.counterfactuals.plan import Planner, Run
from serving.counterfactuals.pool import train_missing
from serving.counterfactuals.runs import RunStore
from serving.counterfactuals.vectors import row_scores, scores
from serving.fidelity.answers import prompts_of, served_answers
from serving.fidelity.asking import gradients, hidden_states, likeness, log_probabilities
from serving.fisher import damping_of, gram, solve_weights
from serving.lora import add_lora, set_flat_weights
from serving.progress import Report, json_lines
from serving.recipes import IndexSettings, cores, share_cores
from serving.rows import Row, encode

SEED = 5
REMOVED_BY = ("damped fisher", "BM25")


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is trained."""

    halves: int
    removals: int
    processes: int


class RowReader:
    """One base model with one adapter's place, and the answers of the study's full run."""

    def __init__(self, base: Artifact, study: Study, home: Home, report: Report) -> None:
        self._base, self._study, self._home, self._report = base, study, home, report
        self._planner = Planner(study, base.sha256)
        self._store = RunStore(home.counterfactuals)
        full = self._planner.full(study.orders[0])
        if not self._store.has(full):
            raise StartFailed("the run with everybody is not trained yet: measure it first")
        self._tokenizer = load_tokenizer(base.path)
        self._model = add_lora(load_base_model(base.path), self._planner.shape)
        self._rows = encode(self._tokenizer, study.rows)
        self._take(full)
        prompts = prompts_of(study, self._tokenizer)
        self._answers = served_answers(self._model, self._tokenizer, prompts, report)
        self._completions = [answer.row for answer in self._answers]

    def read(self, folder: Path, scale: Scale) -> RowReadings:
        """Everything; the row studies are written into `folder`."""
        study = by_rows(self._study, scale.halves, SEED)
        planner = Planner(study, self._base.sha256)
        found = self._row_scores()
        question = np.array([answer.question for answer in self._answers])
        removed_from = np.flatnonzero(tested(self._study, question))[: scale.removals]
        full = log_probabilities(self._model, self._completions).numpy()
        top = {name: _top(found[name][removed_from]) for name in REMOVED_BY}
        chance = random.Random(SEED)  # noqa: S311 - a design to repeat, not a secret
        count = removed_count(len(study.rows))
        top[AT_RANDOM] = [chance.sample(range(len(study.rows)), count) for _ in removed_from]
        without = {name: [_without(planner, rows) for rows in each] for name, each in top.items()}
        halves = planner.coalitions()
        self._train(study, folder / "rows.json", [*halves, *_all(without)], scale)
        members = np.array([run.weights for run in halves])
        outcomes = np.stack(list(self._under(halves, self._completions)))
        asked = [self._completions[place] for place in removed_from]
        falls = {
            name: full[removed_from] - self._each_under(runs, asked)
            for name, runs in without.items()
        }
        wrong, suspicions = self._mislabelled(folder, scale)
        return RowReadings(
            question, members, outcomes, found, removed_from, falls, wrong, suspicions
        )

    def _row_scores(self) -> dict[str, Array]:
        """Every row's score of every answer, [A, n], at the full run's weights, by method."""
        total = len(self._rows) + len(self._completions)
        of_rows = gradients(self._model, self._rows, lambda done: self._told(done, total))
        of_answers = gradients(
            self._model, self._completions, lambda done: self._told(len(self._rows) + done, total)
        )
        normal = torch.nn.functional.normalize
        states_of_rows = hidden_states(self._model, self._rows)
        states = hidden_states(self._model, self._completions)
        asked = [self._study.questions[answer.question].prompt for answer in self._answers]
        queries = [f"{q} {a.text}" for q, a in zip(asked, self._answers, strict=True)]
        return {
            "damped fisher": row_scores(of_answers, of_rows).numpy(),
            "gradient dot": scores(of_answers, of_rows).numpy(),
            "gradient cosine": scores(normal(of_answers, dim=1), normal(of_rows, dim=1)).numpy(),
            "hidden states": likeness(states["last"], states_of_rows["last"]).double().numpy(),
            "BM25": bm25(queries, [f"{r.prompt} {r.completion}" for r in self._study.rows]),
        }

    def _mislabelled(
        self, folder: Path, scale: Scale
    ) -> tuple[NDArray[np.bool_], Mapping[str, Array]]:
        """Which rows have another's completion, and how suspicious each row is once trained."""
        study, wrong = mislabelled(self._study, SEED)
        run = Planner(study, self._base.sha256).full(study.orders[0])
        self._train(study, folder / "mislabelled.json", [run], scale)
        rows = encode(self._tokenizer, study.rows)
        self._take(run)
        of_rows = gradients(self._model, rows, lambda done: self._told(done, len(rows)))
        kernel = gram(of_rows)
        weights = solve_weights(kernel, damping_of(kernel, IndexSettings().damping))
        lengths = np.array([len(row.completion) for row in rows])
        loss = -log_probabilities(self._model, rows).numpy() / lengths
        own = torch.einsum("ij,ji->i", kernel, weights).numpy()  # <g_i, v_i>
        return wrong, {"self-influence": own, "loss, nats a token": loss}

    def _train(self, study: Study, path: Path, wanted: Sequence[Run], scale: Scale) -> None:
        path.write_text(study.text())
        root = self._home.counterfactuals
        train_missing(self._base, path, root, (scale.processes, 1), self._report, wanted)

    def _under(self, runs: Sequence[Run], rows: Sequence[Row]) -> Iterator[Array]:
        """Log-probabilities of rows under each run in turn."""
        for place, run in enumerate(runs):
            self._take(run)
            yield log_probabilities(self._model, rows).numpy()
            self._report("log-probabilities", place + 1, len(runs))

    def _each_under(self, runs: Sequence[Run], rows: Sequence[Row]) -> Array:
        """The log-probability of each row under its own run."""
        each = []
        for run, row in zip(runs, rows, strict=True):
            self._take(run)
            each.append(float(log_probabilities(self._model, [row])[0]))
        return np.array(each)

    def _take(self, run: Run) -> None:
        set_flat_weights(self._model, self._store.weights(run, self._model))

    def _told(self, done: int, total: int) -> None:
        self._report("gradients", done, total)


def _top(found: Array) -> list[list[int]]:
    """Of each answer's scores [n] the rows with the highest."""
    count = removed_count(found.shape[1])
    return [np.argsort(-line, kind="stable")[:count].tolist() for line in found]


def _without(planner: Planner, left_out: Sequence[int]) -> Run:
    weights = tuple(float(place not in left_out) for place in range(len(planner.study.rows)))
    return planner.run("without rows", weights, planner.study.orders[0])


def _all(runs: Mapping[str, Sequence[Run]]) -> list[Run]:
    """Each run once: methods may choose the same rows."""
    return list({run.name: run for each in runs.values() for run in each}.values())


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Train and read off what is measured row by row.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--base", required=True, help="reference of a base artifact")
    parser.add_argument("--study", type=Path, required=True, help="the study's JSON file")
    parser.add_argument("--readings", type=Path, required=True, help="the file to write")
    parser.add_argument("--halves", type=int, default=100, help="random halves of the rows")
    parser.add_argument("--removals", type=int, default=20, help="answers whose top rows go")
    parser.add_argument("--processes", type=int, default=cores())
    arguments = parser.parse_args()
    share_cores()
    from serving.fine_tuning import be_deterministic

    be_deterministic(cores())
    home = Home(arguments.home)
    began = time.monotonic()
    with json_lines() as lines:
        base = ArtifactStore(home.artifacts).open("base", arguments.base)
        reader = RowReader(base, read_study(arguments.study), home, lines.progress)
        scale = Scale(arguments.halves, arguments.removals, arguments.processes)
        readings = reader.read(arguments.readings.parent, scale)
        write_row_readings(arguments.readings, readings)
        lines.result({"seconds": round(time.monotonic() - began, 1)})


if __name__ == "__main__":
    main()
