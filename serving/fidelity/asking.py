"""Asks a model what a measurement needs: log-probabilities, gradients, hidden states of rows."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import PeftModel

from serving.gradients import row_gradients
from serving.lora import lora_size
from serving.packing import attending_by_rows, pack_lines, target_losses
from serving.rows import Row, common_beginning

ROWS_AT_ONCE = 8


def log_probabilities(model: PeftModel, rows: Sequence[Row]) -> torch.Tensor:
    """The summed log-probability of each row's completion under the active adapter, [rows]."""
    model.eval()
    beginning = common_beginning([row.prompt[:-1] for row in rows])
    causal: Any = model.get_base_model()
    found = torch.zeros(len(rows), dtype=torch.float64)
    with attending_by_rows(model), torch.no_grad():
        for start in range(0, len(rows), ROWS_AT_ONCE):
            batch = pack_lines([rows[start : start + ROWS_AT_ONCE]], beginning, causal.dtype)
            places = torch.tensor([start + place for _, place in batch.owners])
            found.index_add_(0, places, -target_losses(model, batch).double())
    return found


def gradients(model: PeftModel, rows: Sequence[Row], done: Callable[[int], None]) -> torch.Tensor:
    """The gradient of each row's log-probability, [rows, D], in single precision."""
    _use_plain_attention(model)
    found = torch.empty(len(rows), lora_size(model))
    by_length = sorted(range(len(rows)), key=lambda place: (len(rows[place].ids), place))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        places = by_length[start : start + ROWS_AT_ONCE]
        found[places] = row_gradients(model, [rows[place] for place in places]).gradients
        done(start + len(places))
    return found


def hidden_states(model: PeftModel, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """The mean state of each completion, [rows, size], in the middle and the last layer."""
    model.eval()
    _use_plain_attention(model)
    causal: Any = model.get_base_model()
    found: dict[str, list[torch.Tensor]] = {"middle": [], "last": []}
    with torch.no_grad():
        for row in rows:
            states = causal.model(
                input_ids=torch.tensor([row.ids]), use_cache=False, output_hidden_states=True
            ).hidden_states
            for name, layer in (("middle", states[len(states) // 2]), ("last", states[-1])):
                found[name].append(layer[0, len(row.prompt) :].float().mean(dim=0))
    return {name: torch.stack(each) for name, each in found.items()}


def likeness(answers: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Cosines [A, n] of states from which the rows' mean is taken, negatives clipped."""
    middle = rows.mean(dim=0)
    normalise = torch.nn.functional.normalize
    cosines: torch.Tensor = normalise(answers - middle, dim=1) @ normalise(rows - middle, dim=1).T
    return cosines.clamp(min=0)


def _use_plain_attention(model: PeftModel) -> None:
    causal: Any = model.get_base_model()
    causal.set_attn_implementation("eager")
