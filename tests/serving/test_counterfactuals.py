"""Theorems about counterfactual training.

Several runs trained in one pass are the runs trained alone; a row of weight 0 is a row whose
gradient is nothing; the same plan line gives the same bytes; and where an answer's log-probability
is nearly linear in the weights, the tangent is the leave-one-out effect.
"""

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from byline.fidelity.study import Question, Study
from byline.records import Example
from serving.counterfactuals.coalition_training import (
    SmoothAdam,
    batch_places,
    steps_of,
    train_coalitions,
)
from serving.counterfactuals.lora_bank import LoraBank, banked
from serving.counterfactuals.packing import attending_by_rows, pack_lines, target_losses
from serving.counterfactuals.plan import Planner, without
from serving.counterfactuals.pool import together
from serving.counterfactuals.runs import RunStore
from serving.counterfactuals.vectors import smoothness
from serving.fidelity.asking import gradients, log_probabilities
from serving.fine_tuning import common_beginning
from serving.gradients import completion_log_probabilities, row_gradients
from serving.lora import flat_weights, load_lora, lora_size, set_flat_weights
from serving.recipes import SmoothRun
from serving.rows import Row
from tests.serving.conftest import tiny_llama

SHORT = SmoothRun(epochs=2, batch_rows=4)


def nothing() -> None:
    """No progress."""


def trained(
    model: PeftModel, rows: list[Row], weights: torch.Tensor, settings: SmoothRun = SHORT
) -> torch.Tensor:
    return train_coalitions(model, rows, weights, 7, settings, nothing).theta


@pytest.fixture
def weights(rows: list[Row]) -> torch.Tensor:
    """Three runs: everybody, without some rows, and with some rows at half their weight."""
    lines = torch.ones(3, len(rows))
    lines[1, ::3] = 0
    lines[2, 1::4] = 0.5
    return lines


def test_packed_rows_have_the_log_probabilities_of_rows_alone(
    adapter: PeftModel, rows: list[Row]
) -> None:
    expected = torch.cat([completion_log_probabilities(adapter, [row]) for row in rows])
    found = log_probabilities(adapter, rows)
    torch.testing.assert_close(found.float(), expected.detach(), rtol=1e-4, atol=1e-4)
    backwards = log_probabilities(adapter, rows[::-1])
    torch.testing.assert_close(found, backwards.flip(0), rtol=1e-5, atol=1e-5)


def test_rows_that_share_no_beginning_can_be_packed(adapter: PeftModel, rows: list[Row]) -> None:
    with attending_by_rows(adapter), torch.no_grad():
        losses = target_losses(adapter, pack_lines([rows[:2]], (), torch.float32))
    expected = -completion_log_probabilities(adapter, rows[:2]).sum().item()
    assert losses.sum().item() == pytest.approx(expected, rel=1e-4)


def test_a_banks_gradient_is_that_of_its_weighted_rows(adapter: PeftModel, rows: list[Row]) -> None:
    """The bank's gradient of a sum of losses is the weighted sum of the rows' own gradients."""
    lines = torch.tensor([[1.0, 0.5, 2.0], [0.0, 1.0, 1.0]])
    own = row_gradients(adapter, rows[:3]).gradients
    start = flat_weights(adapter)
    with attending_by_rows(adapter), banked(adapter, 2) as bank:
        bank.theta.copy_(start)
        beginning = common_beginning([row.prompt[:-1] for row in rows])
        batch = pack_lines([rows[:3], rows[:3]], beginning, torch.float32)
        scale = torch.stack([lines[line, place] for line, place in batch.owners])
        torch.autograd.backward((target_losses(adapter, batch) * scale).sum())
        bank.collect()
        found = bank.gradient
    torch.testing.assert_close(found, -lines @ own, rtol=1e-4, atol=1e-5)


def test_runs_trained_together_are_the_runs_trained_alone(
    adapter: PeftModel, rows: list[Row], weights: torch.Tensor
) -> None:
    together_ = trained(adapter, rows, weights)
    alone = torch.cat([trained(adapter, rows, line[None]) for line in weights])
    start = flat_weights(adapter)
    assert (together_ - start).norm(dim=1).min() > 0.01
    torch.testing.assert_close(together_, alone, rtol=1e-4, atol=2e-5)
    assert not torch.allclose(together_[0], together_[1], atol=1e-3)


def test_the_same_run_has_the_same_bytes(
    adapter: PeftModel, rows: list[Row], weights: torch.Tensor
) -> None:
    first = trained(adapter, rows, weights[:1])
    again = trained(adapter, rows, weights[:1])
    assert torch.equal(first, again)
    assert not torch.equal(
        first, train_coalitions(adapter, rows, weights[:1], 8, SHORT, nothing).theta
    )


def test_a_row_of_no_weight_takes_its_gradient_with_it_and_nothing_else(
    adapter: PeftModel, rows: list[Row]
) -> None:
    """Left out of the computation, or there with next to no weight: the normaliser stays."""
    lines = torch.ones(2, len(rows))
    lines[0, [2, 5]] = 0
    lines[1, [2, 5]] = 1e-7
    found = trained(adapter, rows, lines)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=2e-5)


def test_a_batch_without_any_row_left_is_a_step_all_the_same(
    adapter: PeftModel, rows: list[Row]
) -> None:
    start = flat_weights(adapter)
    found = train_coalitions(adapter, rows, torch.zeros(1, len(rows)), 7, SHORT, nothing)
    assert torch.equal(found.theta[0], start)
    assert found.losses.shape == (steps_of(len(rows), SHORT), 1)
    assert found.losses.abs().max() == 0


def test_the_optimiser_is_adam_with_epsilon_inside_the_root() -> None:
    """Two steps worked out by hand for one weight; the second member's gradient is clipped."""
    bank = LoraBank(2, 1)
    settings = SmoothRun(learning_rate=0.1, beta1=0.5, beta2=0.5, epsilon_root=0.07, clip_norm=1.0)
    optimiser = SmoothAdam(bank, settings)
    bank.gradient[:] = torch.tensor([[0.3], [-4.0]])
    optimiser.step(1.0)
    # m = g / 2, corrected to g; v = g^2 / 2, corrected to g^2; 0.3 / sqrt(0.09 + 0.07) = 0.75
    torch.testing.assert_close(
        bank.theta[:, 0], torch.tensor([-0.075, 0.1 / 1.07**0.5]), rtol=1e-4, atol=0
    )
    bank.gradient.zero_()
    optimiser.step(0.5)  # g = 0: m = 0.075 / 0.75 = 0.1; v = 0.0225 / 0.75 = 0.03
    assert bank.theta[0, 0].item() == pytest.approx(-0.075 - 0.05 * 0.1 / 0.1**0.5, rel=1e-4)


def test_every_row_comes_once_an_epoch() -> None:
    steps = list(batch_places(11, SHORT, 3))
    assert len(steps) == steps_of(11, SHORT) == 6
    epochs = [[*chain(*steps[:3])], [*chain(*steps[3:])]]
    assert [sorted(epoch) for epoch in epochs] == [list(range(11))] * 2
    assert epochs[0] != epochs[1]


def test_the_tangent_foretells_leaving_one_out(
    make_adapter: Callable[[], PeftModel], rows: list[Row]
) -> None:
    """At a small learning rate log-probabilities are nearly linear in the weights."""
    model = make_adapter()
    lines = torch.ones(4, len(rows))
    for place in range(3):
        lines[place + 1, place::3] = 0
    small = SmoothRun(epochs=1, batch_rows=4, learning_rate=2e-4, warmup_steps=1)
    theta = trained(model, rows, lines, small)
    set_flat_weights(model, theta[0])
    slopes = gradients(model, rows, lambda _: None)
    predicted = slopes @ (theta[0] - theta[1:]).T
    full = log_probabilities(model, rows)
    real = []
    for line in theta[1:]:
        set_flat_weights(model, line)
        real.append(full - log_probabilities(model, rows))
    torch.testing.assert_close(predicted.double(), torch.stack(real, 1), rtol=0.1, atol=2e-3)
    assert torch.stack(real).abs().max() > 0.02


def test_the_two_halves_of_an_effect_are_alike_where_training_is_smooth(
    adapter: PeftModel, rows: list[Row]
) -> None:
    lines = torch.ones(3, len(rows))
    lines[1, ::3], lines[2, ::3] = 0.5, 0

    def measured(epsilon_root: float) -> tuple[float, float]:
        settings = SmoothRun(epochs=1, batch_rows=4, epsilon_root=epsilon_root)
        theta = trained(adapter, rows, lines, settings)
        return smoothness(theta[0], theta[1], theta[2])

    smooth, rough = measured(1e-1), measured(1e-12)
    assert min(smooth) > 0.95
    assert max(rough) < min(smooth) - 0.1
    straight = torch.arange(4.0)
    assert smoothness(straight, straight / 2, torch.zeros(4)) == pytest.approx((1, 1))


def example(number: int, contributor: str) -> Example:
    return Example(f"r{number}", contributor, "", "", "", f"w{number} w1", f"w{number} w2")


@pytest.fixture
def study() -> Study:
    people = ("ann", "bob", "cem", "dee")
    return Study(
        name="tiny",
        rows=tuple(example(number, people[number % 4]) for number in range(8)),
        questions=(Question("w3 w1", "ann", None),),
        contributors=people,
        coalitions=((0, 1), (1, 3)),
        orders=(3, 4),
    )


def test_a_plan_has_the_full_run_first_and_none_twice(study: Study) -> None:
    plan = Planner(study, "base").plan()
    assert [run.purpose for run in plan[:5]] == ["full", *(f"without {c}" for c in range(4))]
    assert len({run.name for run in plan}) == len(plan) == 1 + 4 + 2 + 2 + 5
    assert plan[2].weights == without(4, 1) == (1, 0, 1, 1)


def test_a_runs_name_is_that_of_what_decides_its_bytes(study: Study) -> None:
    planner = Planner(study, "base")
    full = planner.full(3)
    assert planner.run("another purpose", full.weights, 3).name == full.name
    others = [
        planner.full(4),
        Planner(study, "other").full(3),
        Planner(study, "base", SmoothRun(epochs=4)).full(3),
        planner.run("full", without(4, 0, 0.5), 3),
    ]
    assert len({run.name for run in [full, *others]}) == 5


def test_runs_of_one_order_are_trained_together(study: Study) -> None:
    plan = Planner(study, "base").plan()
    groups = together(plan, 3)
    assert [run for group in groups for run in group] == plan
    assert all(len({run.order for run in group}) == 1 for group in groups)
    assert max(len(group) for group in groups) == 3


def test_a_stored_run_is_an_ordinary_adapter_and_is_not_trained_again(
    adapter: PeftModel, study: Study, tmp_path: Path
) -> None:
    planner, store = Planner(study, "tiny@000000000000"), RunStore(tmp_path)
    run = planner.full(3)
    torch.manual_seed(3)
    theta = torch.randn(lora_size(adapter))
    assert store.missing([run]) == [run]
    store.write(run, adapter, theta, [2.0, 1.0])
    store.write(run, adapter, theta, [2.0, 1.0])
    assert store.missing([run, planner.full(4)]) == [planner.full(4)]
    assert torch.equal(store.weights(run, adapter), theta)
    assert store.losses(run) == [2.0, 1.0]
    loaded = load_lora(tiny_llama(), store.path(run))
    assert torch.equal(flat_weights(loaded), theta)
    assert [path.name for path in tmp_path.iterdir()] == [run.name]


def test_a_run_that_is_interrupted_leaves_nothing(
    adapter: PeftModel, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run = RunStore(tmp_path), Planner(study, "tiny@000000000000").full(3)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("serving.counterfactuals.runs.save_lora", killed)
    with pytest.raises(KeyboardInterrupt):
        store.write(run, adapter, torch.zeros(lora_size(adapter)), [])
    assert not list(tmp_path.iterdir())
    assert not store.has(run)
