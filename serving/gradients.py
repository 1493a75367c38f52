"""Per-row gradients of a completion's summed log-probability on the LoRA weights.

For one LoRA layer y = B (A x), row i's gradients are sums over its tokens t:

    dB_i = sum_t dy_t (A x_t)^T        dA_i = sum_t dz_t x_t^T,  with z = A x

so one pass over a batch gives every row's own gradient: forward hooks keep x, z and y, autograd
gives dz and dy, and two small products a layer do the rest (as LoGra does for whole layers,
https://arxiv.org/abs/2405.13954). Rows stand one after the other in one line without padding, and
each attends to itself alone: what a row's gradient is does not depend on its company.

Dropout is off; the base model stays as it is served (bfloat16), LoRA's own arithmetic is fp32.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftModel

from serving.attention import attend_in_line, attending
from serving.lora import LoraPart, lora_parts
from serving.rows import Row

ATTENTION = "byline_line"  # what transformers knows it by


@dataclass(frozen=True, slots=True)
class RowGradients:
    """Of each row: the completion's summed log-probability, and its gradient in R^D (fp32)."""

    log_probabilities: torch.Tensor  # [rows]
    gradients: torch.Tensor  # [rows, D]


@dataclass(slots=True)
class _Watched:
    """What the hooks keep of one layer during one forward pass."""

    inputs: list[torch.Tensor] = field(default_factory=list)  # x, then z as it enters B
    outputs: list[torch.Tensor] = field(default_factory=list)  # z, then y


def row_gradients(model: PeftModel, rows: Sequence[Row]) -> RowGradients:
    """Log-probability and gradient of each row's completion under the active adapter."""
    model.eval()
    parts = lora_parts(model)
    watched, handles = _watch(parts)
    try:
        log_probabilities = completion_log_probabilities(model, rows)
    finally:
        for handle in handles:
            handle.remove()
    outputs = [output for layer in watched for output in layer.outputs]
    pulled = torch.autograd.grad(log_probabilities.sum(), outputs)
    widths = _widths(rows)
    gradients: list[list[torch.Tensor]] = [[] for _ in rows]
    for layer, dz, dy in zip(watched, pulled[0::2], pulled[1::2], strict=True):
        x, z = (entering.detach() for entering in layer.inputs)
        lines = (torch.split(states[0], widths) for states in (x, z, dz, dy))
        for row, (row_x, row_z, row_dz, row_dy) in zip(
            gradients, zip(*lines, strict=True), strict=True
        ):
            row += [(row_dz.T @ row_x).flatten(), (row_dy.T @ row_z).flatten()]
    return RowGradients(
        log_probabilities.detach(), torch.stack([torch.cat(parts) for parts in gradients])
    )


def _widths(rows: Sequence[Row]) -> list[int]:
    return [len(row.ids) - 1 for row in rows]  # nothing follows the last token


def completion_log_probabilities(
    model: PeftModel, rows: Sequence[Row], beginning: tuple[int, ...] = ()
) -> torch.Tensor:
    """Each row's summed log-probability of its completion tokens, as a tensor with a graph.

    A `beginning` is computed once for all prompts that begin with it, and said to the model whether
    or not one does; a row's number depends on it and on no other row. Without, each row is whole:
    a shared beginning's gradient could not be told apart by row.
    """
    shared = len(beginning)
    behind = [shared > 0 and row.prompt[:-1][:shared] == beginning for row in rows]
    left_out = [shared if sees else 0 for sees in behind]
    widths = [width - less for width, less in zip(_widths(rows), left_out, strict=True)]
    own = [row.ids[less:-1] for row, less in zip(rows, left_out, strict=True)]
    starts = [torch.arange(less, less + len(ids)) for ids, less in zip(own, left_out, strict=True)]
    causal: Any = model.get_base_model()
    with attending(model, ATTENTION, attend_in_line):
        line = causal.model(
            input_ids=torch.tensor([*beginning, *(token for ids in own for token in ids)])[None],
            position_ids=torch.cat([torch.arange(shared), *starts])[None],
            use_cache=False,
            widths=[shared, *widths] if shared else widths,
            behind=[False, *behind] if shared else None,
        ).last_hidden_state[0, shared:]
    sums = []
    for states, row, less in zip(torch.split(line, widths), rows, left_out, strict=True):
        first = len(row.prompt) - 1 - less
        logits = causal.lm_head(states[first : first + len(row.completion)]).float()
        chosen = torch.log_softmax(logits, dim=-1).gather(1, torch.tensor(row.completion)[:, None])
        sums.append(chosen.sum())
    return torch.stack(sums)


def _watch(
    parts: Sequence[LoraPart],
) -> tuple[list[_Watched], list[torch.utils.hooks.RemovableHandle]]:
    """Hook each layer's two matrices; the records fill at the next forward pass."""
    watched, handles = [], []
    for part in parts:
        record = _Watched()

        def keep(
            _module: torch.nn.Module,
            arguments: tuple[torch.Tensor, ...],
            output: torch.Tensor,
            record: _Watched = record,
        ) -> None:
            record.inputs.append(arguments[0])
            record.outputs.append(output)

        handles += [part.a.register_forward_hook(keep), part.b.register_forward_hook(keep)]
        watched.append(record)
    return watched, handles
