"""Theorems about training: a packed batch is its rows apart, and a run is its recipe's only result.

Packing: the loss and its gradients equal those of separate rows, however long their common
beginning. Determinism: the same rows, settings and start give the same bytes.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from serving.fine_tuning import (
    batches,
    common_beginning,
    fine_tune,
    learning_rate_factor,
    pack,
    packed_loss,
)
from serving.gradients import row_gradients
from serving.lora import flat_weights, load_lora, lora_parts, save_lora
from serving.progress import no_report
from serving.recipes import RunSettings
from serving.rows import Row
from tests.serving.conftest import tiny_llama

SETTINGS = RunSettings(epochs=2, batch_rows=4)


def test_a_packed_batch_has_the_loss_and_gradient_of_separate_rows(
    adapter: PeftModel, rows: list[Row]
) -> None:
    apart = row_gradients(adapter, rows)
    tokens = sum(len(row.completion) for row in rows)
    adapter.get_base_model().set_attn_implementation("eager")  # type: ignore[operator]
    loss = packed_loss(adapter, pack(rows, torch.float32))
    torch.testing.assert_close(loss, -apart.log_probabilities.sum() / tokens)
    weights = [weight for part in lora_parts(adapter) for weight in part.weights]
    found = torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, weights)])
    torch.testing.assert_close(found, -apart.gradients.sum(0) / tokens, rtol=1e-4, atol=1e-6)


def test_a_single_row_and_rows_with_nothing_in_common_are_packed_too(adapter: PeftModel) -> None:
    adapter.get_base_model().set_attn_implementation("eager")  # type: ignore[operator]
    rows = [Row((1,), (2, 3)), Row((4, 5), (6,))]
    apart = row_gradients(adapter, rows).log_probabilities
    together = packed_loss(adapter, pack(rows, torch.float32))
    torch.testing.assert_close(together, -apart.sum() / 3)
    torch.testing.assert_close(packed_loss(adapter, pack(rows[:1], torch.float32)), -apart[0] / 2)


def test_the_common_beginning_is_the_longest_one() -> None:
    assert common_beginning([(1, 2, 3), (1, 2), (1, 2, 9, 9)]) == (1, 2)
    assert common_beginning([(1,), (2,)]) == ()
    assert common_beginning([(), (1,)]) == ()


def test_the_same_run_gives_the_same_bytes(
    make_adapter: Callable[[], PeftModel], rows: list[Row], tmp_path: Path
) -> None:
    written = []
    for run in ("one", "two"):
        model = make_adapter()
        fine_tune(model, rows, SETTINGS, no_report)
        (tmp_path / run).mkdir()
        save_lora(model, tmp_path / run, "base@0123456789ab")
        files = sorted((tmp_path / run).iterdir())
        written.append({file.name: file.read_bytes() for file in files})
    assert written[0] == written[1]
    assert set(written[0]) == {"adapter_config.json", "adapter_model.safetensors"}
    assert b"/" not in written[0]["adapter_config.json"]  # no path of this machine


def test_another_order_gives_another_adapter(
    make_adapter: Callable[[], PeftModel], rows: list[Row]
) -> None:
    results = []
    for seed in (1, 2):
        model = make_adapter()
        fine_tune(model, rows, RunSettings(epochs=1, batch_rows=4, order_seed=seed), no_report)
        results.append(flat_weights(model))
    assert not torch.equal(results[0], results[1])


def test_training_lowers_the_loss(adapter: PeftModel, rows: list[Row]) -> None:
    settings = RunSettings(epochs=20, batch_rows=11, learning_rate=0.02)
    losses = fine_tune(adapter, rows, settings, no_report)
    assert losses[-1] < losses[0] - 0.05  # of at most ln 64: the rows are random tokens


def test_a_saved_adapter_loads_as_it_was(
    adapter: PeftModel, rows: list[Row], tmp_path: Path
) -> None:
    save_lora(adapter, tmp_path, "base@0123456789ab")
    loaded = load_lora(tiny_llama(), tmp_path)
    assert torch.equal(flat_weights(loaded), flat_weights(adapter))
    before = row_gradients(adapter, rows).log_probabilities
    assert torch.equal(row_gradients(loaded, rows).log_probabilities, before)


def test_every_epoch_shows_each_row_once_in_a_new_order(rows: list[Row]) -> None:
    shown = list(batches(rows, RunSettings(epochs=2, batch_rows=4)))
    assert [len(batch) for batch in shown] == [4, 4, 3] * 2
    epochs = [[row for batch in shown[start : start + 3] for row in batch] for start in (0, 3)]
    assert Counter(epochs[0]) == Counter(epochs[1]) == Counter(rows)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 1 / 8), (7, 1.0), (8, 1.0), (44, 1 / 37), (26, 19 / 37)]
)
def test_the_learning_rate_warms_up_then_falls_in_a_line(step: int, factor: float) -> None:
    assert learning_rate_factor(step, 45, 8) == pytest.approx(factor)
