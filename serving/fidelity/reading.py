"""Reads a study's trained runs with one model: answers, log-probabilities, scores, likeness."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch

from byline.artifacts import Artifact
from byline.fidelity.measures import Array
from byline.fidelity.readings import Readings, tuning
from serving.checkpoints import load_base_model, load_tokenizer
from serving.counterfactuals.plan import Planner, Run
from serving.counterfactuals.runs import RunStore
from serving.counterfactuals.vectors import (
    METHODS,
    Material,
    blocks_of,
    row_scores,
    scores,
    smoothness,
    tangent_vectors,
)
from serving.fidelity.answers import Answer, prompts_of, reference_answers, served_answers
from serving.fidelity.asking import gradients, hidden_states, likeness, log_probabilities
from serving.fidelity.frontier import cheaper_scores, projected_fisher_scores
from serving.fidelity.sentences import embeddings, packaged_model
from serving.fidelity.trackstar import is_installed, trackstar_scores
from serving.lora import add_lora, set_flat_weights
from serving.progress import Report
from serving.rows import Row, encode


class Reader:
    """One base model with one adapter's place, whose weights are those of one run after another."""

    def __init__(self, base: Artifact, planner: Planner, store: RunStore, report: Report) -> None:
        self._planner = planner
        self._store = store
        self._report = report
        self._base_model = base.path
        study = planner.study
        tokenizer = load_tokenizer(base.path)
        self._model = add_lora(load_base_model(base.path), planner.shape)
        self._rows = encode(tokenizer, study.rows)
        self._first = study.orders[0]
        self._take(planner.full(self._first))
        prompts = prompts_of(study, tokenizer)
        served = served_answers(self._model, tokenizer, prompts, report)
        self.answers: list[Answer] = [*served, *reference_answers(study, prompts)]

    def read(self) -> Readings:
        """Everything."""
        planner, store = self._planner, self._store
        orders = [
            order
            for order in planner.study.orders
            if not store.missing([planner.full(order), *planner.leave_one_out(order)])
        ]
        coalitions = [run for run in planner.coalitions() if store.has(run)]
        places = [planner.coalitions().index(run) for run in coalitions]
        halved = {place: run for place, run in planner.halved().items() if store.has(run)}
        count = len(planner.study.contributors)
        runs = [run for order in orders for run in self._pair(order)] + coalitions
        found = self._log_probabilities([*runs, *halved.values()])
        paired = found[: len(orders) * (count + 1)].reshape(len(orders), count + 1, -1)
        rest = found[len(orders) * (count + 1) :]
        by_method, by_row = self._scores(coalitions, places)
        return Readings(
            question=np.array([answer.question for answer in self.answers]),
            is_served=np.array([answer.is_served for answer in self.answers]),
            tokens=np.array([len(answer.row.completion) for answer in self.answers]),
            row_tokens=np.array([len(row.completion) for row in self._rows]),
            base=self._base(),
            full=paired[:, 0],
            without=paired[:, 1:].transpose(0, 2, 1),
            coalitions=rest[: len(coalitions)],
            coalition_places=np.array(places),
            halved=rest[len(coalitions) :].reshape(len(halved), len(self.answers)),
            halved_places=np.array(list(halved), dtype=np.int64),
            smoothness=self._smoothness(halved),
            scores=by_method,
            likeness=self._likeness(),
            by_row=by_row,
            repeated=self._repeated(places),
        )

    def _repeated(self, places: Sequence[int]) -> Array | None:
        """The coalitions' outcomes under every further order that trained all of them."""
        found = []
        for order in self._planner.study.orders[1:]:
            planned = self._planner.coalitions(order)
            runs = [planned[place] for place in places]
            if not self._store.missing(runs):
                found.append(self._log_probabilities(runs))
        return np.stack(found) if found else None

    def _pair(self, order: int) -> list[Run]:
        return [self._planner.full(order), *self._planner.leave_one_out(order)]

    def _take(self, run: Run) -> None:
        set_flat_weights(self._model, self._store.weights(run, self._model))

    @property
    def _completions(self) -> list[Row]:
        return [answer.row for answer in self.answers]

    def _log_probabilities(self, runs: Sequence[Run]) -> Array:
        """Every answer's under every run, [runs, A]."""
        found = np.empty((len(runs), len(self.answers)))
        for place, run in enumerate(runs):
            self._take(run)
            found[place] = log_probabilities(self._model, self._completions).numpy()
            self._report("log-probabilities", place + 1, len(runs))
        return found

    def _base(self) -> Array:
        with self._model.disable_adapter():
            result: Array = log_probabilities(self._model, self._completions).numpy()
        return result

    def _smoothness(self, halved: dict[int, Run]) -> Array:
        full = self._store.weights(self._planner.full(self._first), self._model)
        without = self._planner.leave_one_out(self._first)
        found = [
            smoothness(
                full,
                self._store.weights(run, self._model),
                self._store.weights(without[place], self._model),
            )
            for place, run in halved.items()
        ]
        return np.array(found).reshape(len(found), 2)

    def _scores(
        self, coalitions: Sequence[Run], places: Sequence[int]
    ) -> tuple[dict[str, Array], Array]:
        """Every gradient method's, at the full run's weights, and each row's by what serves."""
        study = self._planner.study
        self._take(self._planner.full(self._first))
        total = len(self._rows) + len(self.answers)

        def rows_done(done: int) -> None:
            self._report("gradients", done, total)

        def answers_done(done: int) -> None:
            self._report("gradients", len(self._rows) + done, total)

        of_rows = gradients(self._model, self._rows, rows_done)
        of_answers = gradients(self._model, self._completions, answers_done)
        for_fitting = tuning(len(coalitions))
        fitted = [run for run, is_one in zip(coalitions, for_fitting, strict=True) if is_one]
        members = np.zeros((len(study.coalitions), len(study.contributors)))
        for number, coalition in enumerate(study.coalitions):
            members[number, list(coalition)] = 1
        material = Material(
            gradients=of_rows,
            contributor_of=study.contributor_of,
            blocks=blocks_of(self._model),
            full=self._store.weights(self._planner.full(self._first), self._model),
            without=self._stacked(self._planner.leave_one_out(self._first)),
            coalitions=self._stacked(fitted),
            membership=torch.from_numpy(members[np.array(places)][for_fitting]),
        )
        found = {}
        for number, (name, method) in enumerate(METHODS.items(), start=1):
            found[name] = scores(of_answers, method(material)).numpy()
            self._report("scores", number, len(METHODS))
        tangents = tangent_vectors(material)
        for name, cheaper in chain(
            cheaper_scores(of_answers, tangents, material.blocks),
            projected_fisher_scores(of_answers, material),
        ):
            found[name] = cheaper.numpy()
        found |= self._trackstar(material)
        return found, row_scores(of_answers, of_rows).numpy()

    def _trackstar(self, material: Material) -> dict[str, Array]:
        """By Bergson, summed by contributor; nothing where it is not installed."""
        if not is_installed():
            return {}
        adapter = self._store.path(self._planner.full(self._first))
        by_row = trackstar_scores(self._base_model, adapter, self._rows, self._completions)
        self._report("scores by Bergson", 1, 1)
        return {"TrackStar (Bergson)/defaults": (by_row @ material.one_hot).numpy()}

    def _stacked(self, runs: Sequence[Run]) -> torch.Tensor:
        return torch.stack([self._store.weights(run, self._model) for run in runs])

    def _likeness(self) -> dict[str, Array]:
        of_rows = hidden_states(self._model, self._rows)
        of_answers = hidden_states(self._model, self._completions)
        return {
            f"hidden states, {layer} layer": likeness(of_answers[layer], states).double().numpy()
            for layer, states in of_rows.items()
        } | self._sentence_likeness()

    def _sentence_likeness(self) -> dict[str, Array]:
        """By a sentence model of the whole and of the answer alone; nothing without a model."""
        packaged = packaged_model()
        if packaged is None:
            return {}
        study = self._planner.study
        asked = [study.questions[answer.question].prompt for answer in self.answers]
        said = [answer.text for answer in self.answers]
        sides = {
            "question and answer": (
                [f"{prompt} {text}" for prompt, text in zip(asked, said, strict=True)],
                [f"{row.prompt} {row.completion}" for row in study.rows],
            ),
            "the answer alone": (said, [row.completion for row in study.rows]),
        }
        found = {}
        for name, (answers, rows) in sides.items():
            made = embeddings(packaged, [*answers, *rows])
            cosines = made[: len(answers)] @ made[len(answers) :].T
            found[f"sentence embeddings, {name}"] = cosines.clamp(min=0).double().numpy()
        return found
