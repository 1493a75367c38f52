"""Trains several adapters that differ in their rows' loss weights alone, in one pass.

Every run has the same start, batches, order and schedule. In a batch of rows i with n_i completion
tokens of loss l_it, and row weights w_i,

    loss = sum_i w_i sum_t l_it / sum_i n_i

so a removed row (w_i = 0) takes its gradient with it and changes nobody else's: the normaliser is
that of the whole batch. How the result depends on the weights has to be smooth, for attribution
asks for its derivative: no dropout, warm-up, clipping, and Adam's epsilon inside the root,

    theta -= rate * m / sqrt(v + epsilon_root)

(m and v without their bias), which bounds a step's derivative where v is near zero, as LoRA's A
has it at the start (Engstrom et al., https://arxiv.org/abs/2503.13751, call this metasmoothness).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel

from serving.lora import flat_weights
from serving.lora_bank import LoraBank, banked
from serving.packing import attending_by_rows, pack_lines, target_losses
from serving.recipes import RunSettings
from serving.rows import Row, common_beginning


@dataclass(frozen=True, slots=True)
class Trained:
    """Weights [M, D] of the M runs, and every step's loss of each [steps, M] (nats a token)."""

    theta: torch.Tensor
    losses: torch.Tensor


class SmoothAdam:
    """Adam over a bank, with gradient clipping by member and epsilon inside the root."""

    def __init__(self, bank: LoraBank, settings: RunSettings) -> None:
        self._bank = bank
        self._settings = settings
        self._mean = torch.zeros_like(bank.theta)
        self._square = torch.zeros_like(bank.theta)
        self._steps = 0

    def step(self, factor: float) -> None:
        """One step at `factor` of the learning rate, with the bank's gradient."""
        settings, gradient = self._settings, self._bank.gradient
        self._steps += 1
        norms = gradient.norm(dim=1, keepdim=True)
        gradient *= (settings.clip_norm / (norms + 1e-6)).clamp(max=1.0)
        self._mean.lerp_(gradient, 1 - settings.beta1)
        self._square.mul_(settings.beta2).addcmul_(gradient, gradient, value=1 - settings.beta2)
        square = self._square / (1 - settings.beta2**self._steps)
        rate = settings.learning_rate * factor / (1 - settings.beta1**self._steps)
        self._bank.theta.addcdiv_(self._mean, (square + settings.epsilon_root).sqrt_(), value=-rate)


def batch_places(rows: int, settings: RunSettings, order_seed: int) -> Iterator[list[int]]:
    """The places of every step's rows: a new fixed order each epoch."""
    order = torch.Generator().manual_seed(order_seed)
    for _ in range(settings.epochs):
        shuffled = torch.randperm(rows, generator=order).tolist()
        for start in range(0, rows, settings.batch_rows):
            yield shuffled[start : start + settings.batch_rows]


def steps_of(rows: int, settings: RunSettings) -> int:
    """How many steps a run over so many rows has."""
    return settings.epochs * -(-rows // settings.batch_rows)


def fine_tune(
    model: PeftModel,
    rows: Sequence[Row],
    weights: torch.Tensor,
    order_seed: int,
    settings: RunSettings,
    stepped: Callable[[], None],
) -> Trained:
    """Train one adapter for each line of `weights` [M, rows]; each starts as the model's is now.

    The model keeps its own adapter. `stepped` is called after every step.
    """
    model.train()
    beginning = common_beginning([row.prompt[:-1] for row in rows])
    steps = steps_of(len(rows), settings)
    losses = torch.zeros(steps, len(weights))
    start = flat_weights(model)
    with attending_by_rows(model), banked(model, len(weights)) as bank:
        bank.theta.copy_(start)
        optimiser = SmoothAdam(bank, settings)
        for step, places in enumerate(batch_places(len(rows), settings, order_seed)):
            losses[step] = _backward(model, rows, weights, places, beginning)
            bank.collect()
            optimiser.step(learning_rate_factor(step, steps, settings.warmup_steps))
            stepped()
    return Trained(bank.theta, losses)


def _backward(
    model: PeftModel,
    rows: Sequence[Row],
    weights: torch.Tensor,
    places: Sequence[int],
    beginning: tuple[int, ...],
) -> torch.Tensor:
    """Give the leaves a batch's gradients; each member's loss over the whole batch's tokens."""
    kept = [[place for place in places if line[place] > 0] for line in weights]
    tokens = sum(len(rows[place].completion) for place in places)
    found = torch.zeros(len(weights))
    if not any(kept):
        return found
    causal: Any = model.get_base_model()
    batch = pack_lines([[rows[place] for place in line] for line in kept], beginning, causal.dtype)
    scale = torch.stack([weights[line, kept[line][place]] for line, place in batch.owners])
    weighted = target_losses(model, batch) * (scale / tokens)
    torch.autograd.backward(weighted.sum())
    return found.index_add(0, torch.tensor([line for line, _ in batch.owners]), weighted.detach())


def learning_rate_factor(step: int, steps: int, warmup: int) -> float:
    """Linear from 1/warmup to 1, then linear towards 0 after the last step."""
    if step < warmup:
        return (step + 1) / warmup
    return (steps - step) / max(steps - warmup, 1)


def be_deterministic(threads: int) -> None:
    """Make torch give the same bytes each time: fixed algorithms, fixed number of threads."""
    torch.use_deterministic_algorithms(mode=True)
    # Filling fresh memory only guards code that reads what it never wrote; it costs a tenth.
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False
    torch.set_num_threads(threads)
