"""Theorems about training: a run is its recipe's only result, and smooth in its rows' weights.

A packed batch is its rows apart; several runs trained in one pass are the runs trained alone; a row
of weight 0 is a row whose gradient is nothing.
"""

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from serving.fidelity.asking import log_probabilities
from serving.fine_tuning import (
    SmoothAdam,
    batch_places,
    fine_tune,
    learning_rate_factor,
    steps_of,
)
from serving.gradients import completion_log_probabilities, row_gradients
from serving.lora import flat_weights, load_lora, save_lora, set_flat_weights
from serving.lora_bank import LoraBank, banked
from serving.packing import attending_by_rows, pack_lines, target_losses
from serving.recipes import RunSettings
from serving.rows import Row, common_beginning
from tests.serving.conftest import tiny_llama

SHORT = RunSettings(epochs=2, batch_rows=4)


def nothing() -> None:
    """No progress."""


def trained(
    model: PeftModel, rows: list[Row], weights: torch.Tensor, settings: RunSettings = SHORT
) -> torch.Tensor:
    return fine_tune(model, rows, weights, 7, settings, nothing).theta


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
    assert not torch.equal(first, fine_tune(adapter, rows, weights[:1], 8, SHORT, nothing).theta)


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
    found = fine_tune(adapter, rows, torch.zeros(1, len(rows)), 7, SHORT, nothing)
    assert torch.equal(found.theta[0], start)
    assert found.losses.shape == (steps_of(len(rows), SHORT), 1)
    assert found.losses.abs().max() == 0


def test_the_optimiser_is_adam_with_epsilon_inside_the_root() -> None:
    """Two steps worked out by hand for one weight; the second member's gradient is clipped."""
    bank = LoraBank(2, 1)
    settings = RunSettings(
        learning_rate=0.1, beta1=0.5, beta2=0.5, epsilon_root=0.07, clip_norm=1.0
    )
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


def test_the_same_run_saves_the_same_bytes(
    make_adapter: Callable[[], PeftModel], rows: list[Row], tmp_path: Path
) -> None:
    written = []
    for run in ("one", "two"):
        model = make_adapter()
        set_flat_weights(model, trained(model, rows, torch.ones(1, len(rows)))[0])
        (tmp_path / run).mkdir()
        save_lora(model, tmp_path / run, "base@0123456789ab")
        files = sorted((tmp_path / run).iterdir())
        written.append({file.name: file.read_bytes() for file in files})
    assert written[0] == written[1]
    assert set(written[0]) == {"adapter_config.json", "adapter_model.safetensors"}
    assert b"/" not in written[0]["adapter_config.json"]  # no path of this machine


def test_training_lowers_the_loss(adapter: PeftModel, rows: list[Row]) -> None:
    settings = RunSettings(epochs=20, batch_rows=11, learning_rate=0.02)
    found = fine_tune(adapter, rows, torch.ones(1, len(rows)), 7, settings, nothing)
    assert found.losses[-1, 0] < found.losses[0, 0] - 0.05  # of at most ln 64: random tokens


def test_a_saved_adapter_loads_as_it_was(
    adapter: PeftModel, rows: list[Row], tmp_path: Path
) -> None:
    save_lora(adapter, tmp_path, "base@0123456789ab")
    loaded = load_lora(tiny_llama(), tmp_path)
    assert torch.equal(flat_weights(loaded), flat_weights(adapter))
    before = row_gradients(adapter, rows).log_probabilities
    assert torch.equal(row_gradients(loaded, rows).log_probabilities, before)


def test_the_common_beginning_is_the_longest_one() -> None:
    assert common_beginning([(1, 2, 3), (1, 2), (1, 2, 9, 9)]) == (1, 2)
    assert common_beginning([(1,), (2,)]) == ()
    assert common_beginning([(), (1,)]) == ()


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 1 / 8), (7, 1.0), (8, 1.0), (44, 1 / 37), (26, 19 / 37)]
)
def test_the_learning_rate_warms_up_then_falls_in_a_line(step: int, factor: float) -> None:
    assert learning_rate_factor(step, 45, 8) == pytest.approx(factor)
