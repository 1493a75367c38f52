"""The model's side of a job, on a tiny model: scores, the zero point, and what can't be attributed.

The lift is the answer's log-probability under the adapter above the base model's, and the scores
are the index's on the served tokens' gradient; both are checked against their definitions.
"""

from dataclasses import replace

import pytest
import torch

from byline.attribution import NO_LIFT, NO_TOKENS
from byline.errors import ArtifactError, AttributionFailed
from byline.limits import PPB
from byline.records import AttributionJob, AttributionState, ServedTokens
from byline.served import write_served
from serving.attributor import Attributor
from serving.checkpoints import load_base_model
from serving.gradients import row_gradients
from serving.influence import AdapterIndex
from serving.lora import load_lora
from serving.rows import Row
from tests.serving.tiny import TinyHome

INFERENCE = "0192f000-0000-7000-8000-000000000001"
PROMPT = (1, 14, 24, 3, 2)
COMPLETION = (4, 4, 3)


def job_of(tiny: TinyHome, *choices: tuple[int, ...], prompt: tuple[int, ...] = PROMPT) -> (
    AttributionJob
):  # fmt: skip
    served = ServedTokens(INFERENCE, prompt, choices)
    return AttributionJob(
        inference=INFERENCE, ordinal=0, application="app",
        adapter_version=tiny.adapter.reference, index=tiny.index.reference,
        tokens_sha256=write_served(tiny.home.served, served), pool_nano=1_000, enqueued_ms=0,
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
    scores, examples = AdapterIndex.load(tiny_home.index).score(measured.gradients[0].numpy())
    assert found.scores == scores
    assert found.examples == tuple(examples)
    assert found.lift_nats == pytest.approx(measured.log_probabilities.item() - of_base, abs=1e-4)


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
    write_served(tiny_home.home.served, ServedTokens(INFERENCE, PROMPT, ((9, 9),)))
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
    with pytest.raises(AttributionFailed, match="is not the index of"):
        attributor.attribute(replace(job, index="weather@ffffffffffff"))
