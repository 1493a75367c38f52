"""The model's side of a job, on a tiny model: scores, the zero point, and what can't be attributed.

The lift is the answer's log-probability under the adapter above the base model's, and the scores
are the index's on the served tokens' gradient; both are checked against their definitions.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from byline.artifacts import DESCRIPTION, ArtifactStore
from byline.attribution import (
    NO_LIFT,
    NO_TOKENS,
    integer_scores,
    replayed,
    row_claims,
)
from byline.canonical import Json
from byline.errors import ArtifactError, AttributionFailed
from byline.home import Home
from byline.limits import ADAPTERS_UNRELEASED_MAX, EXAMPLES_SHOWN, PPB
from byline.records import AttributionJob, AttributionState, ServedTokens
from byline.registry import write_release
from byline.served import erase_served, write_served
from serving.attributor import Attributor
from serving.checkpoints import load_base_model
from serving.gradients import RowGradients, row_gradients
from serving.influence import DAMPED_FISHER, AdapterIndex
from serving.lora import load_lora
from serving.rows import Row
from tests.serving.tiny import TinyHome

INFERENCE = "0192f000-0000-7000-8000-000000000001"
PROMPT = (1, 14, 24, 3, 2)
COMPLETION = (4, 4, 3)


def kept(tiny: TinyHome, served: ServedTokens) -> str:
    """Keep these in the place of what was kept before; their hash."""
    erase_served(tiny.home.served, INFERENCE)
    return write_served(tiny.home.served, served)


def job_of(tiny: TinyHome, *choices: tuple[int, ...], prompt: tuple[int, ...] = PROMPT) -> (
    AttributionJob
):  # fmt: skip
    return AttributionJob(
        inference=INFERENCE, ordinal=0, application="app",
        adapter_version=tiny.adapter.reference, index=tiny.index.reference,
        tokens_sha256=kept(tiny, ServedTokens(INFERENCE, prompt, choices)),
        pool_nano=1_000, enqueued_ms=0,
    )  # fmt: skip


@pytest.fixture
def attributor(tiny_home: TinyHome) -> Attributor:
    return Attributor.load(tiny_home.home, tiny_home.release)


def test_scores_and_lift_are_those_of_the_served_tokens(
    tiny_home: TinyHome, attributor: Attributor
) -> None:
    found = attributor.attribute(job_of(tiny_home, COMPLETION))
    row = Row(PROMPT, COMPLETION)
    base = load_base_model(tiny_home.base.path)
    logits = base(input_ids=torch.tensor([row.ids])).logits[0].float()
    places = range(len(PROMPT) - 1, len(row.ids) - 1)
    of_base = sum(
        torch.log_softmax(logits[place], -1)[row.ids[place + 1]].item() for place in places
    )
    model = load_lora(base, tiny_home.adapter.path)
    measured = row_gradients(model, [row])
    scores, rows = AdapterIndex.load(tiny_home.index).score(measured.gradients[0].numpy())
    assert found.scores == integer_scores(scores)
    assert found.claims == row_claims((row.contributor, row.score) for row in rows)
    assert found.method == DAMPED_FISHER
    assert set(found.libraries) == {"torch", "transformers", "peft"}
    assert found.examples == tuple(rows[:EXAMPLES_SHOWN])
    lift = measured.log_probabilities.item() - of_base
    assert found.lift_nats == pytest.approx(lift, abs=5e-3)  # attention in bfloat16, two ways


def test_words_of_rows_are_shown_as_evidence_and_change_no_share(
    tiny_home: TinyHome, attributor: Attributor
) -> None:
    found = attributor.attribute(job_of(tiny_home, (5, 5, 5, 9)))
    (span,) = found.verbatim
    assert (span.tokens, span.characters) == ((0, 3), (0, 8))
    assert {row.contributor for row in span.rows} == {"contributor-1"}
    assert replayed(replace(found, verbatim=())).shares == found.shares


def test_an_index_of_an_earlier_version_has_no_evidence(
    tiny_home: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.attributor.TOKENS", "no-such-file")
    older = Attributor.load(tiny_home.home, tiny_home.release)
    assert older.attribute(job_of(tiny_home, (5, 5, 5, 9))).verbatim == ()


def test_what_training_taught_is_lifted_and_paid(
    tiny_home: TinyHome, attributor: Attributor
) -> None:
    found = attributor.attribute(job_of(tiny_home, COMPLETION))
    assert found.state is AttributionState.DONE
    assert found.lift_nats is not None
    assert found.lift_nats > 0
    assert sum(share.share_ppb for share in found.shares) + found.unattributed_ppb == PPB
    assert found.shares


def test_what_the_adapter_made_unlikelier_is_paid_to_nobody(
    tiny_home: TinyHome, attributor: Attributor
) -> None:
    unlikely = [(token,) * 3 for token in range(30, 64)]
    found = [attributor.attribute(job_of(tiny_home, choice)) for choice in unlikely]
    without_lift = [one for one in found if one.lift_nats is not None and one.lift_nats <= 0]
    assert without_lift
    assert all(one.reason == NO_LIFT and not one.shares for one in without_lift)


def test_the_chosen_choice_is_attributed(tiny_home: TinyHome, attributor: Attributor) -> None:
    both = job_of(tiny_home, COMPLETION, (40, 41))
    second = attributor.attribute(replace(both, ordinal=1))
    alone = attributor.attribute(job_of(tiny_home, (40, 41)))
    assert second.scores == alone.scores


def test_jobs_together_are_attributed_as_each_alone(
    tiny_home: TinyHome, attributor: Attributor
) -> None:
    job = job_of(tiny_home, COMPLETION, (), (5, 5, 5, 9), (40,) * 9)
    jobs = [replace(job, ordinal=ordinal) for ordinal in (2, 0, 3, 1)]
    alone = [attributor.attribute(job) for job in jobs]
    assert attributor.attribute_all(jobs) == alone
    assert len({str(one.scores) for one in alone}) == 4


def test_answers_beyond_one_line_go_through_the_model_in_several(
    tiny_home: TinyHome, attributor: Attributor, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tiny_home, COMPLETION, (5, 5, 5, 9), (40,) * 9)
    jobs = [replace(job, ordinal=ordinal) for ordinal in range(3)]
    together = attributor.attribute_all(jobs)
    monkeypatch.setattr("serving.attributor.LINE_TOKENS_MAX", 18)  # 8, 9 and 14 tokens
    asked: list[int] = []

    def watched(model: PeftModel, rows: Sequence[Row]) -> RowGradients:
        asked.append(len(rows))
        return row_gradients(model, rows)

    monkeypatch.setattr("serving.attributor.row_gradients", watched)
    assert attributor.attribute_all(jobs) == together
    assert asked == [2, 1]


def test_a_choice_without_tokens_is_skipped(tiny_home: TinyHome, attributor: Attributor) -> None:
    found = attributor.attribute(job_of(tiny_home, ()))
    assert (found.state, found.reason) == (AttributionState.SKIPPED, NO_TOKENS)
    assert found.unattributed_nano == 1_000


def test_a_completion_without_a_prompt_is_refused(
    tiny_home: TinyHome, attributor: Attributor
) -> None:
    with pytest.raises(AttributionFailed, match="no prompt tokens"):
        attributor.attribute(job_of(tiny_home, COMPLETION, prompt=()))


def test_tokens_that_changed_on_disk_are_refused(
    tiny_home: TinyHome, attributor: Attributor
) -> None:
    job = job_of(tiny_home, COMPLETION)
    kept(tiny_home, ServedTokens(INFERENCE, PROMPT, ((9, 9),)))
    with pytest.raises(ArtifactError, match="not what their hash says"):
        attributor.attribute(job)


def test_an_adapter_of_an_earlier_release_is_loaded_when_a_job_needs_it(
    tiny_home: TinyHome, attributor: Attributor
) -> None:
    empty = replace(tiny_home.release, adapters=())
    later = Attributor.load(tiny_home.home, empty)
    job = job_of(tiny_home, COMPLETION)
    assert later.attribute(job) == attributor.attribute(job)


def test_an_adapter_that_is_gone_or_has_another_index_is_refused(
    tiny_home: TinyHome, attributor: Attributor
) -> None:
    job = job_of(tiny_home, COMPLETION)
    with pytest.raises(ArtifactError):
        attributor.attribute(replace(job, adapter_version="weather@ffffffffffff"))
    with pytest.raises(ArtifactError):
        attributor.attribute(replace(job, index="weather@ffffffffffff"))
    storm, _ = another(tiny_home, "storm")
    with pytest.raises(AttributionFailed, match="is no index of"):
        attributor.attribute(replace(job, adapter_version=storm))


def another(tiny: TinyHome, name: str) -> tuple[str, str]:
    """The same adapter under another name, with an index of its own: their references."""
    store = ArtifactStore(tiny.home.artifacts)
    references: list[str] = []
    for kind, of in (("adapters", tiny.adapter), ("indexes", tiny.index)):
        recipe: dict[str, Json] = {"a copy": name}
        with store.build(kind, name, recipe) as folder:
            for file in of.path.iterdir():
                if file.name != DESCRIPTION:
                    shutil.copy(file, folder)
            (folder / "name").write_text(name)
            if kind == "indexes":
                manifest = json.loads((folder / "index.json").read_text())
                (folder / "index.json").write_text(
                    json.dumps({**manifest, "adapter": references[0]})
                )
        made = store.find(kind, recipe)
        assert made is not None
        references.append(made.reference)
    return references[0], references[1]


def test_a_job_is_attributed_by_its_own_version_before_and_after_a_release(
    tiny_home: TinyHome, attributor: Attributor
) -> None:
    version, index = another(tiny_home, "storm")
    old = job_of(tiny_home, COMPLETION)
    new = replace(old, adapter_version=version, index=index)
    first = attributor.attribute(old)
    second = attributor.attribute(new)
    assert (second.adapter_version, second.index) == (version, index)
    assert second.scores == first.scores, "they are copies"
    assert attributor.attribute(old) == first


def test_two_indexes_of_one_version_are_both_there(tiny_home: TinyHome) -> None:
    later = Attributor.load(tiny_home.home, replace(tiny_home.release, adapters=()))
    version, index = another(tiny_home, "storm")
    store = ArtifactStore(tiny_home.home.artifacts)
    recipe: dict[str, Json] = {"again": "storm"}
    with store.build("indexes", "storm", recipe) as folder:
        for file in store.open("indexes", index).path.iterdir():
            if file.name != DESCRIPTION:
                shutil.copy(file, folder)
        (folder / "again").write_text("x")
    again = store.find("indexes", recipe)
    assert again is not None
    job = replace(job_of(tiny_home, COMPLETION), adapter_version=version, index=index)
    assert later.attribute(job).index == index
    assert later.attribute(replace(job, index=again.reference)).index == again.reference


def test_what_the_release_has_stays_and_the_rest_goes_longest_unused_first(
    tiny_home: TinyHome,
) -> None:
    attributor = Attributor.load(tiny_home.home, tiny_home.release)
    (released,) = attributor.loaded
    job = job_of(tiny_home, COMPLETION)
    first = attributor.attribute(job)
    others = [another(tiny_home, f"other{place}") for place in range(ADAPTERS_UNRELEASED_MAX)]
    jobs = [replace(job, adapter_version=version, index=index) for version, index in others]
    for each in jobs:
        attributor.attribute(each)
    attributor.attribute(jobs[0])  # so the second was used longest ago
    version, index = another(tiny_home, "last")
    attributor.attribute(replace(job, adapter_version=version, index=index))
    kept = [each.version for each in attributor.loaded]
    assert kept == [released.version, *(v for v, _ in others[2:]), others[0][0], version]
    assert attributor.attribute(job) == first
    assert attributor.attribute(jobs[1]).scores == first.scores, "it is loaded again"


def test_a_new_release_decides_what_stays(tiny_home: TinyHome, tmp_path: Path) -> None:
    home = Home(tmp_path)
    (tmp_path / "artifacts").symlink_to(tiny_home.home.artifacts)
    attributor = Attributor.load(home, tiny_home.release)
    (old,) = tiny_home.release.adapters
    version, index = another(tiny_home, "newly")
    new = replace(old, version=version, path=f"adapters/{version}", index=index)
    write_release(home.release, replace(tiny_home.release, adapters=(new,)))
    job = job_of(tiny_home, COMPLETION)
    attributor.attribute(replace(job, adapter_version=version, index=index))
    for place in range(ADAPTERS_UNRELEASED_MAX):
        version, index = another(tiny_home, f"more{place}")
        attributor.attribute(replace(job, adapter_version=version, index=index))
    kept = [each.version for each in attributor.loaded]
    assert new.version in kept
    assert old.version not in kept
