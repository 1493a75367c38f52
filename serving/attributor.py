"""Attributes one served answer: the model's side of a job. Knows neither the ledger nor the queue.

One forward and one backward pass over the served tokens, exactly as the engine saw and made them,
give the answer's log-probability and its gradient on the adapter's weights; one more forward pass
without the adapter gives the base model's log-probability, which is the zero point of pay.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from byline.artifacts import ArtifactStore
from byline.attribution import NO_TOKENS, Measurement, attribute, skipped
from byline.errors import AttributionFailed
from byline.home import Home
from byline.records import Attribution, AttributionJob, Release
from byline.served import read_served
from serving.checkpoints import load_base_model
from serving.gradients import completion_log_probabilities, row_gradients
from serving.influence import AdapterIndex
from serving.lora import load_lora, use_adapter
from serving.rows import Row


@dataclass(frozen=True, slots=True)
class Loaded:
    """One adapter in memory: its name inside PEFT, and its index with the index's reference."""

    name: str
    index_reference: str
    index: AdapterIndex


class Attributor:
    """The base model once, and every adapter that a job has named, with its index.

    Not safe for two threads at a time: which adapter is active is the model's own state.
    """

    def __init__(self, home: Home, base: PreTrainedModel) -> None:
        self._home = home
        self._store = ArtifactStore(home.artifacts)
        self._model: PreTrainedModel | PeftModel = base
        self._loaded: dict[str, Loaded] = {}

    @classmethod
    def load(cls, home: Home, release: Release) -> "Attributor":
        """With the release's base model, adapters and indexes, each checked against its hash."""
        base_reference = Path(release.base_path).name
        base = ArtifactStore(home.artifacts).open("base", base_reference)
        attributor = cls(home, load_base_model(base.path))
        for adapter in release.adapters:
            attributor.load_adapter(adapter.version, adapter.index)
        return attributor

    def load_adapter(self, version: str, index_reference: str) -> Loaded:
        """Take one adapter version and its index into memory. Raises ArtifactError."""
        adapter = self._store.open("adapters", version)
        projections = [other.index.projection for other in self._loaded.values()]
        index = AdapterIndex.load(self._store.open("indexes", index_reference), projections)
        if index.manifest.adapter != version:
            raise AttributionFailed(f"{index_reference} is no index of {version}")
        name = f"adapter{len(self._loaded)}"  # PEFT allows no dot in a name
        self._model = load_lora(self._model, adapter.path, name)
        loaded = Loaded(name, index_reference, index)
        self._loaded[version] = loaded
        return loaded

    def attribute(self, job: AttributionJob) -> Attribution:
        """The attribution of one job. Raises ArtifactError or AttributionFailed."""
        served = read_served(self._home.served, job.inference, job.tokens_sha256)
        row = Row(served.prompt, served.choices[job.ordinal])
        if not row.completion:
            return skipped(job, NO_TOKENS)
        if not row.prompt:
            raise AttributionFailed(f"{job.inference} has no prompt tokens to condition on")
        loaded = self._find(job)
        found = self._measure(row, loaded)
        return attribute(job, found)

    def _find(self, job: AttributionJob) -> Loaded:
        """The job's adapter; one of an earlier release is loaded when its first job comes."""
        loaded = self._loaded.get(job.adapter_version)
        if loaded is None:
            return self.load_adapter(job.adapter_version, job.index)
        if loaded.index_reference != job.index:
            raise AttributionFailed(f"{job.index} is not the index of {job.adapter_version}")
        return loaded

    def _measure(self, row: Row, loaded: Loaded) -> Measurement:
        model = self._model
        assert isinstance(model, PeftModel)
        use_adapter(model, loaded.name)
        adapted = row_gradients(model, [row])
        with model.disable_adapter(), torch.no_grad():
            base = completion_log_probabilities(model, [row])
        scores, examples = loaded.index.score(adapted.gradients[0].numpy())
        lift = adapted.log_probabilities[0].item() - base[0].item()
        return Measurement(lift_nats=lift, scores=scores, examples=examples)
