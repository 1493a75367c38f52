"""Trained runs on disk: each an ordinary PEFT adapter in a folder named by its plan line's hash.

A run is written aside and renamed into place, so a folder that is there is finished, and a program
that was killed goes on where it was. Beside the weights lies their hash: bytes that changed since
are refused whenever they are read here.
"""

import json
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load

from byline.canonical import sha256_hex
from byline.errors import ArtifactError
from serving.counterfactuals.plan import Run
from serving.counterfactuals.run_files import HASH, LINE, LOSSES, WEIGHTS, unchanged_weights
from serving.lora import save_lora, saved_vector, set_flat_weights


class RunStore:
    """A folder of runs. Safe for any number of writers: equal runs have equal bytes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, run: Run) -> Path:
        """The run's folder, there or not."""
        return self.root / run.name

    def has(self, run: Run) -> bool:
        """Is it trained?"""
        return (self.path(run) / LINE).is_file()

    def missing(self, plan: Sequence[Run]) -> list[Run]:
        """What of a plan is still to be trained, in its order."""
        return [run for run in plan if not self.has(run)]

    def write(
        self, run: Run, model: PeftModel, theta: torch.Tensor, losses: Sequence[float]
    ) -> None:
        """Store a trained run; `model` lends its configuration and ends with these weights."""
        partial = self.root / f".partial-{uuid.uuid4().hex}"
        partial.mkdir(parents=True)
        try:
            set_flat_weights(model, theta)
            save_lora(model, partial, str(run.line["base"]))
            (partial / HASH).write_text(sha256_hex((partial / WEIGHTS).read_bytes()))
            (partial / LOSSES).write_text(json.dumps(list(losses)))
            (partial / LINE).write_text(run.text())
            partial.rename(self.path(run))
        except OSError:
            if not self.has(run):  # else another writer was first, with the same bytes
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def weights(self, run: Run, model: PeftModel) -> torch.Tensor:
        """The run's weights as one vector [D], in the order of `model`. Raises ArtifactError."""
        return weights_in(self.path(run), model)

    def losses(self, run: Run) -> list[float]:
        """Every step's loss."""
        losses: list[float] = json.loads((self.path(run) / LOSSES).read_text())
        return losses


def weights_in(folder: Path, model: PeftModel) -> torch.Tensor:
    """An adapter's weights as one vector [D], in the order of `model`. Raises ArtifactError."""
    try:
        tensors = load(unchanged_weights(folder))
    except (OSError, ValueError, SafetensorError) as problem:
        raise ArtifactError(f"the adapter in {folder} can't be read: {problem}") from problem
    return saved_vector(model, tensors)
