"""Attributes served answers: the model's side of a job. Knows neither the ledger nor the queue.

One forward and one backward pass over the served tokens, exactly as the engine saw and made them,
give the answer's log-probability and its gradient on the adapter's weights; one more forward pass
without the adapter gives the base model's log-probability, which is the zero point of pay.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from byline.artifacts import Artifact, ArtifactStore
from byline.attribution import (
    NO_TOKENS,
    Measurement,
    attribute,
    divided,
    divided_in_groups,
    skipped,
)
from byline.errors import AttributionFailed, StartFailed
from byline.home import Home
from byline.limits import ADAPTERS_UNRELEASED_MAX, EXAMPLES_SHOWN
from byline.records import Attribution, AttributionJob, Release, ServedTokens
from byline.registry import read_release
from byline.served import read_served
from serving.checkpoints import load_base_model, load_tokenizer
from serving.gradients import completion_log_probabilities, row_gradients
from serving.influence import TANGENT, AdapterIndex
from serving.lora import load_lora, use_adapter
from serving.recipes import library_versions
from serving.row_blocks import keep_rows_apart
from serving.rows import Row, chat_beginning
from serving.token_texts import TokenTexts
from serving.verbatim import TOKENS, VerbatimIndex

# Of answers that go through the model together; more gain no speed and need memory.
LINE_TOKENS_MAX = 1_024


@dataclass(frozen=True, slots=True)
class Taught:
    """What a job is attributed by: an adapter version and its index, artifact references both."""

    version: str
    index: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """One adapter in memory: its name inside PEFT, its index, and its rows' words."""

    name: str
    index: AdapterIndex
    verbatim: VerbatimIndex | None  # an index of an earlier version has none


class Attributor:
    """The base model once, and adapters with their indexes: the release's, and those of jobs.

    A job names the version that served it, by content hash, so an old version's job is attributed
    after a new release, and a new one's without a restart. Adapters that are not in the release
    stay in memory, too, up to a bound; then the one that was used longest ago goes.

    Not safe for two threads at a time: which adapter is active is the model's own state.
    """

    def __init__(self, home: Home, base: Artifact) -> None:
        self._home = home
        self._store = ArtifactStore(home.artifacts)
        self._model: PreTrainedModel | PeftModel = load_base_model(base.path)
        tokenizer = load_tokenizer(base.path)
        self._texts = TokenTexts(tokenizer)
        self._beginning = chat_beginning(tokenizer)
        self._libraries = library_versions()
        self._loaded: OrderedDict[Taught, Loaded] = OrderedDict()  # last used last
        self._made = 0
        self._released: frozenset[Taught] = frozenset()

    @classmethod
    def load(cls, home: Home, release: Release) -> "Attributor":
        """With the release's base model, adapters and indexes, each checked against its hash."""
        base_reference = Path(release.base_path).name
        base = ArtifactStore(home.artifacts).open("base", base_reference)
        attributor = cls(home, base)
        attributor._released = _taught_by(release)
        for adapter in release.adapters:
            attributor.load_adapter(Taught(adapter.version, adapter.index))
        return attributor

    @property
    def loaded(self) -> list[Taught]:
        """What is in memory, last used last."""
        return list(self._loaded)

    def load_adapter(self, taught: Taught) -> Loaded:
        """Take one adapter version and its index into memory.

        Raises ArtifactError, and AttributionFailed where the index is another adapter's.
        """
        adapter = self._store.open("adapters", taught.version)
        projections = [other.index.projection for other in self._loaded.values()]
        folder = self._store.open("indexes", taught.index)
        index = AdapterIndex.load(folder, projections)
        if index.manifest.adapter != taught.version:
            raise AttributionFailed(f"{taught.index} is no index of {taught.version}")
        name = f"adapter{self._made}"  # PEFT allows no dot in a name
        self._made += 1
        self._model = load_lora(self._model, adapter.path, name)
        keep_rows_apart(self._model)
        verbatim = self._verbatim(folder.path, index)
        loaded = self._loaded[taught] = Loaded(name, index, verbatim)
        return loaded

    def _verbatim(self, folder: Path, index: AdapterIndex) -> VerbatimIndex | None:
        if not (folder / TOKENS).is_file():
            return None
        manifest = index.manifest
        owners = [manifest.contributors[place] for place in manifest.contributor_of]
        return VerbatimIndex(folder, list(zip(manifest.examples, owners, strict=True)), self._texts)

    def attribute(self, job: AttributionJob) -> Attribution:
        """The attribution of one job. Raises ArtifactError or AttributionFailed."""
        return self.attribute_all([job])[0]

    def attribute_all(self, jobs: Sequence[AttributionJob]) -> list[Attribution]:
        """The attributions of several jobs, each the same to the last bit as it is alone.

        Answers of one adapter go through the model together. Raises ArtifactError or
        AttributionFailed where one job can't be attributed.
        """
        asked = {
            job: read_served(self._home.served, job.inference, job.tokens_sha256) for job in jobs
        }
        answered = [job for job in jobs if asked[job].choices[job.ordinal]]
        found: dict[AttributionJob, Measurement] = {}
        for taught in dict.fromkeys(Taught(job.adapter_version, job.index) for job in answered):
            own = [job for job in answered if Taught(job.adapter_version, job.index) == taught]
            measured = self._measure_all([(asked[job], job.ordinal) for job in own], taught)
            found.update(zip(own, measured, strict=True))
        return [
            attribute(job, found[job]) if job in found else skipped(job, NO_TOKENS) for job in jobs
        ]

    def measure(self, served: ServedTokens, ordinal: int, taught: Taught) -> Measurement:
        """What the model says of one choice. Raises ArtifactError or AttributionFailed."""
        return self._measure_all([(served, ordinal)], taught)[0]

    def _measure_all(
        self, choices: Sequence[tuple[ServedTokens, int]], taught: Taught
    ) -> list[Measurement]:
        """What the model says of choices of one adapter's answers."""
        for served, _ in choices:
            if not served.prompt:
                raise AttributionFailed(f"{served.inference} has no prompt tokens to condition on")
        loaded = self._find(taught)
        rows = [Row(served.prompt, served.choices[ordinal]) for served, ordinal in choices]
        measured = [one for some in _lines(rows) for one in self._measure(some, loaded)]
        return [
            replace(one, tokens_salt=served.salt or None)
            for one, (served, _) in zip(measured, choices, strict=True)
        ]

    def _find(self, taught: Taught) -> Loaded:
        """The adapter; one of another release is loaded when its first job comes."""
        loaded = self._loaded.get(taught)
        if loaded is None:
            loaded = self.load_adapter(taught)
            self._make_room()
        self._loaded.move_to_end(taught)
        return loaded

    def _make_room(self) -> None:
        """Forget the adapters used longest ago, of those that the release no longer has."""
        with suppress(StartFailed):  # it is being written, or broken: the one before still counts
            self._released = _taught_by(read_release(self._home.release))
        others = [each for each in self._loaded if each not in self._released]
        for each in others[: max(len(others) - ADAPTERS_UNRELEASED_MAX, 0)]:
            model = self._model
            assert isinstance(model, PeftModel)
            model.delete_adapter(self._loaded.pop(each).name)

    def _measure(self, rows: Sequence[Row], loaded: Loaded) -> Iterator[Measurement]:
        model = self._model
        assert isinstance(model, PeftModel)
        use_adapter(model, loaded.name)
        adapted = row_gradients(model, rows)
        with model.disable_adapter(), torch.no_grad():
            base = completion_log_probabilities(model, rows, self._beginning)
        lifts = (adapted.log_probabilities - base).tolist()
        for row, lift, gradient in zip(rows, lifts, adapted.gradients.numpy(), strict=True):
            scores, influences = loaded.index.score(gradient)
            parts = [(each.contributor, each.score) for each in influences]
            if loaded.index.group_of:
                scores, parts = divided_in_groups(scores, parts, loaded.index.group_of)
            elif loaded.index.manifest.method == TANGENT:
                parts = divided(scores, parts)
            yield Measurement(
                lift_nats=lift,
                scores=scores,
                examples=influences[:EXAMPLES_SHOWN],
                row_scores=parts,
                method=loaded.index.manifest.method,
                reliability_ppb=loaded.index.manifest.reliability_ppb,
                libraries=self._libraries,
                verbatim=loaded.verbatim.spans(row.completion) if loaded.verbatim else (),
            )


def _lines(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows in order, as many together as have LINE_TOKENS_MAX tokens; at least one."""
    line: list[Row] = []
    for row in rows:
        if line and sum(len(each.ids) for each in [*line, row]) > LINE_TOKENS_MAX:
            yield line
            line = []
        line.append(row)
    yield line


def _taught_by(release: Release) -> frozenset[Taught]:
    return frozenset(Taught(adapter.version, adapter.index) for adapter in release.adapters)
