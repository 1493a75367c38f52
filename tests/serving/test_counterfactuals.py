"""Theorems about counterfactual runs.

The same plan line gives the same bytes; and where an answer's log-probability is nearly linear in
the weights, the tangent is the leave-one-out effect.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from byline.fidelity.study import Question, Study
from byline.records import Example
from serving.counterfactuals.plan import Planner, without
from serving.counterfactuals.pool import together
from serving.counterfactuals.runs import RunStore
from serving.counterfactuals.vectors import smoothness
from serving.fidelity.asking import gradients, log_probabilities
from serving.fine_tuning import (
    fine_tune,
)
from serving.lora import flat_weights, load_lora, lora_size, set_flat_weights
from serving.recipes import RunSettings
from serving.rows import Row
from tests.serving.conftest import tiny_llama

SHORT = RunSettings(epochs=2, batch_rows=4)


def nothing() -> None:
    """No progress."""


def test_the_tangent_foretells_leaving_one_out(
    make_adapter: Callable[[], PeftModel], rows: list[Row]
) -> None:
    """At a small learning rate log-probabilities are nearly linear in the weights."""
    model = make_adapter()
    lines = torch.ones(4, len(rows))
    for place in range(3):
        lines[place + 1, place::3] = 0
    small = RunSettings(epochs=1, batch_rows=4, learning_rate=2e-4, warmup_steps=1)
    theta = fine_tune(model, rows, lines, 7, small, nothing).theta
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
        settings = RunSettings(epochs=1, batch_rows=4, epsilon_root=epsilon_root)
        theta = fine_tune(adapter, rows, lines, 7, settings, nothing).theta
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
    assert len({run.name for run in plan}) == len(plan) == 1 + 4 + 2 + 2 + 5 + 2
    assert plan[2].weights == without(4, 1) == (1, 0, 1, 1)


def test_coalitions_are_repeated_last_and_only_under_further_orders(study: Study) -> None:
    again = Planner(study, "base").plan()[-2:]
    assert [run.order for run in again] == [4, 4]
    assert [run.weights for run in again] == [(1, 1, 0, 0), (0, 1, 0, 1)]
    assert len(Planner(replace(study, orders=(3,)), "base").plan()) == 1 + 4 + 2 + 2


def test_a_runs_name_is_that_of_what_decides_its_bytes(study: Study) -> None:
    planner = Planner(study, "base")
    full = planner.full(3)
    assert planner.run("another purpose", full.weights, 3).name == full.name
    others = [
        planner.full(4),
        Planner(study, "other").full(3),
        Planner(study, "base", RunSettings(epochs=4)).full(3),
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
