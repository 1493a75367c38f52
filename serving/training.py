"""Trains one LoRA adapter from one dataset: a deterministic run whose result is an artifact.

    python -m serving.training --home HOME --dataset REFERENCE --base REFERENCE

Model libraries are loaded only when there is something to train.
"""

import argparse
import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from byline.artifacts import Artifact, ArtifactStore
from byline.canonical import Json
from byline.datasets import read_dataset
from byline.home import Home
from serving.progress import Report, json_lines
from serving.recipes import (
    ORDER_SEED,
    TRAINING_THREADS,
    LoraShape,
    RunSettings,
    library_versions,
    share_cores,
)

TRAINING = 2  # raise when the code's result changes and nothing in the recipe says so


def recipe_of(dataset: Artifact, base: Artifact) -> Mapping[str, Json]:
    """Everything that decides the adapter's bytes on one kind of machine."""
    copies: list[Json] = [copy.id for copy in read_dataset(dataset).copies]
    left_out: dict[str, Json] = {"left_out": copies} if copies else {}
    return {
        **left_out,
        "dataset": dataset.sha256,
        "base": base.sha256,
        "training": TRAINING,
        "lora": asdict(LoraShape()),
        "run": asdict(RunSettings()),
        "order": ORDER_SEED,
        "threads": TRAINING_THREADS,
        "libraries": library_versions(),
    }


def train(store: ArtifactStore, dataset: Artifact, base: Artifact, report: Report) -> Artifact:
    """The adapter's artifact, trained unless its recipe was followed before."""
    return store.made(
        "adapters",
        dataset.name,
        recipe_of(dataset, base),
        lambda folder: _train_into(folder, dataset, base, report),
    )


def _train_into(folder: Path, dataset: Artifact, base: Artifact, report: Report) -> None:
    import torch

    from serving.checkpoints import load_base_model, load_tokenizer
    from serving.fine_tuning import be_deterministic, fine_tune, steps_of
    from serving.lora import add_lora, save_lora, set_flat_weights
    from serving.rows import encode

    be_deterministic(TRAINING_THREADS)
    rows = encode(load_tokenizer(base.path), read_dataset(dataset).canonical)
    model = add_lora(load_base_model(base.path), LoraShape())
    settings = RunSettings()
    steps = steps_of(len(rows), settings)
    done = itertools.count(1)

    def stepped() -> None:
        report("training", next(done), steps)

    everybody = torch.ones(1, len(rows))
    trained = fine_tune(model, rows, everybody, ORDER_SEED, settings, stepped)
    set_flat_weights(model, trained.theta[0])
    save_lora(model, folder, base.reference)
    (folder / "losses.json").write_text(json.dumps(trained.losses[:, 0].tolist()))


def summary(adapter: Artifact) -> dict[str, Json]:
    """The result to report: reference, and mean loss (nats a token) of the first and last epoch."""
    losses: list[float] = json.loads((adapter.path / "losses.json").read_text())
    return {
        "reference": adapter.reference,
        "steps": len(losses),
        "loss_first_step": round(losses[0], 4),
        "loss_last_steps": round(sum(losses[-8:]) / len(losses[-8:]), 4),
    }


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Train one LoRA adapter.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--dataset", required=True, help="reference of a dataset artifact")
    parser.add_argument("--base", required=True, help="reference of a base artifact")
    arguments = parser.parse_args()
    share_cores()
    store = ArtifactStore(Home(arguments.home).artifacts)
    with json_lines() as lines:
        dataset = store.open("datasets", arguments.dataset)
        base = store.open("base", arguments.base)
        adapter = train(store, dataset, base, lines.progress)
        lines.result(summary(adapter))


if __name__ == "__main__":
    main()
