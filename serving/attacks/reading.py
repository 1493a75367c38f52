"""Reads one trained run after another with one model: its answers, and by whose rows they are."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from byline.artifacts import Artifact
from byline.attacks.pay import Reading
from serving.checkpoints import load_base_model, load_tokenizer
from serving.counterfactuals.plan import Planner, Run
from serving.counterfactuals.runs import RunStore
from serving.counterfactuals.vectors import row_scores
from serving.fidelity.answers import prompts_of, served_answer
from serving.fidelity.asking import gradients, log_probabilities
from serving.lora import add_lora, set_flat_weights
from serving.progress import Report
from serving.rows import encode


class WorldReader:
    """One base model with one adapter's place, whose weights are those of one run after another."""

    def __init__(self, base: Artifact, planner: Planner, runs: Path) -> None:
        study = planner.study
        self._tokenizer = load_tokenizer(base.path)
        self._model = add_lora(load_base_model(base.path), planner.shape)
        self._store = RunStore(runs)
        encoded = encode(self._tokenizer, study.rows)
        self._rows = dict(zip((row.id for row in study.rows), encoded, strict=True))
        self._prompts = [row.prompt for row in prompts_of(study, self._tokenizer)]

    def read(self, run: Run, ids: Sequence[str], report: Report) -> Reading:
        """What a run says, trained on the rows `ids` alone; it answers greedily."""
        model = self._model
        set_flat_weights(model, self._store.weights(run, model))
        asked = len(self._prompts)
        total = 2 * asked + len(ids)
        answers = []
        for place, prompt in enumerate(self._prompts):
            answers.append(served_answer(model, self._tokenizer, place, prompt).row)
            report("reading", place + 1, total)
        rows = [self._rows[row] for row in ids]
        of_answers = gradients(model, answers, lambda done: report("reading", asked + done, total))
        of_rows = gradients(model, rows, lambda done: report("reading", 2 * asked + done, total))
        lift = log_probabilities(model, answers)
        with model.disable_adapter():
            lift = lift - log_probabilities(model, answers)
        return Reading(
            rows=tuple(ids),
            scores=row_scores(of_answers, of_rows).numpy(),
            lift=lift.numpy(),
            prompt_tokens=np.array([len(answer.prompt) for answer in answers]),
            completion_tokens=np.array([len(answer.completion) for answer in answers]),
        )
