"""One deterministic LoRA run: the same rows, settings and machine give the same bytes.

The optimiser's settings are chosen for smooth dependence on the data (no dropout, epsilon far above
noise, warm-up, clipping), since attribution asks how the result would change with the data.

A batch is packed into one row without padding. The prompts' common beginning (the chat template and
its system prompt) is computed once: every example attends to it and to itself only, and keeps the
positions it would have alone, so the loss is that of separate rows (tests/serving prove it) for
about two thirds of the arithmetic.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel

from serving.progress import Report
from serving.recipes import RunSettings
from serving.rows import Row


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Several rows in one: ids and positions [1, T], an additive mask [1, 1, T, T], targets."""

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    predictors: torch.Tensor  # the places in T whose next token is a completion token
    targets: torch.Tensor


def pack(rows: Sequence[Row], dtype: torch.dtype) -> PackedBatch:
    """Pack rows behind their common beginning; the last prompt token always stays a row's own."""
    shared = common_beginning([row.prompt[:-1] for row in rows])
    ids, positions, owners = list(shared), list(range(len(shared))), [0] * len(shared)
    predictors: list[int] = []
    for owner, row in enumerate(rows, start=1):
        own = row.ids[len(shared) : -1]  # nothing follows the last token
        first = len(ids) + len(row.prompt) - len(shared) - 1
        predictors += range(first, first + len(row.completion))
        positions += range(len(shared), len(shared) + len(own))
        owners += [owner] * len(own)
        ids += own
    whose = torch.tensor(owners)
    seen = (whose[:, None] == whose[None, :]) | (whose[None, :] == 0)
    seen &= torch.ones_like(seen).tril()
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
    targets = [token for row in rows for token in row.completion]
    return PackedBatch(
        ids=torch.tensor([ids]),
        positions=torch.tensor([positions]),
        mask=mask[None, None],
        predictors=torch.tensor(predictors),
        targets=torch.tensor(targets),
    )


def common_beginning(sequences: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The longest beginning that all sequences share."""
    least, most = min(sequences), max(sequences)  # in order, whatever these share all share
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(least, most, strict=False))
    return tuple(token for token, _ in pairs)


def packed_loss(model: PeftModel, batch: PackedBatch) -> torch.Tensor:
    """Mean negative log-probability over the batch's completion tokens."""
    causal: Any = model.get_base_model()
    hidden = causal.model(
        input_ids=batch.ids,
        position_ids=batch.positions,
        attention_mask=batch.mask,
        use_cache=False,
    ).last_hidden_state[0]
    logits = causal.lm_head(hidden.index_select(0, batch.predictors)).float()
    return torch.nn.functional.cross_entropy(logits, batch.targets)


def learning_rate_factor(step: int, steps: int, warmup: int) -> float:
    """Linear from 1/warmup to 1, then linear towards 0 after the last step."""
    if step < warmup:
        return (step + 1) / warmup
    return (steps - step) / max(steps - warmup, 1)


def batches(rows: Sequence[Row], settings: RunSettings) -> Iterator[list[Row]]:
    """The rows of every step: a new fixed order each epoch."""
    order = torch.Generator().manual_seed(settings.order_seed)
    for _ in range(settings.epochs):
        shuffled = torch.randperm(len(rows), generator=order).tolist()
        for start in range(0, len(rows), settings.batch_rows):
            yield [rows[index] for index in shuffled[start : start + settings.batch_rows]]


def be_deterministic(threads: int) -> None:
    """Make torch give the same bytes each time: fixed algorithms, fixed number of threads."""
    torch.use_deterministic_algorithms(mode=True)
    # Filling fresh memory only guards code that reads what it never wrote; it costs a tenth.
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False
    torch.set_num_threads(threads)


def fine_tune(
    model: PeftModel, rows: Sequence[Row], settings: RunSettings, report: Report
) -> list[float]:
    """Train the active adapter in place; answers the loss of every step."""
    model.train()
    causal: Any = model.get_base_model()
    causal.set_attn_implementation("eager")  # the fastest at such lengths
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(
        weights,
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        weight_decay=0.0,
    )
    steps = settings.epochs * -(-len(rows) // settings.batch_rows)
    losses: list[float] = []
    for step, members in enumerate(batches(rows, settings)):
        factor = learning_rate_factor(step, steps, settings.warmup_steps)
        optimiser.param_groups[0]["lr"] = settings.learning_rate * factor
        loss = packed_loss(model, pack(members, causal.dtype))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(weights, settings.clip_norm)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(loss.item())
        report("training", step + 1, steps)
    return losses
