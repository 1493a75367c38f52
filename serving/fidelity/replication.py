"""How much of an adapter's leave-one-out effects comes again under another training order."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from byline.artifacts import Artifact
from byline.errors import StartFailed
from byline.fidelity.measures import Array
from byline.fidelity.replication import of_the_mean, orders_distance, reliability
from byline.fidelity.study import Study
from serving.checkpoints import load_base_model, load_tokenizer
from serving.counterfactuals.plan import Run
from serving.counterfactuals.runs import RunStore, weights_in
from serving.fidelity.answers import prompts_of, served_answers
from serving.fidelity.asking import log_probabilities
from serving.lora import load_lora, set_flat_weights
from serving.progress import Report


@dataclass(frozen=True, slots=True)
class Replication:
    """What two or more orders say of each other, on the same answers."""

    reliability: float  # of the mean effect over the orders, 0 to 1
    distance: float  # of the mean shares by one half of the orders from those by another


def replication_of(
    base: Artifact,
    adapter: Artifact,
    study: Study,
    root: Path,
    runs: Sequence[Sequence[Run]],
    report: Report,
) -> Replication | None:
    """How much of an adapter's effects comes again; None where there is one order.

    `runs` has of each order the run with everybody, then those without each contributor. Effects
    are differences of log-probabilities of the adapter's own answers to the study's questions.
    Raises StartFailed where the first order's run with everybody is not the adapter itself.
    """
    store = RunStore(root)
    model = load_lora(load_base_model(base.path), adapter.path)
    if not weights_in(adapter.path, model).equal(store.weights(runs[0][0], model)):
        raise StartFailed(
            f"{adapter.reference} is not what its training gives here: it was trained elsewhere or "
            "by an earlier version. Train it anew: `byline up` or `byline train`"
        )
    if len(runs) == 1:
        return None
    tokenizer = load_tokenizer(base.path)
    prompts = prompts_of(study, tokenizer)
    answers = [each.row for each in served_answers(model, tokenizer, prompts, report)]
    effects: list[Array] = []
    for order, each in enumerate(runs):
        found = []
        for place, run in enumerate(each):
            set_flat_weights(model, store.weights(run, model))
            found.append(log_probabilities(model, answers).numpy())
            report("log-probabilities", order * len(each) + place + 1, len(runs) * len(each))
        full, *without = found
        effects.append(full[:, None] - np.stack(without, axis=1))
    by_order = np.stack(effects)
    return Replication(
        reliability=of_the_mean(reliability(by_order), len(runs)),
        distance=orders_distance(by_order),
    )
