"""Several adapters on one frozen base model at once: every batch row has an adapter of its own.

The base model's matrix products run over all rows together; only the small LoRA products are
batched by adapter. All weights lie in one tensor theta [M, D], in the order of `serving.lora`, and
their gradients in another, so that an optimiser is a few operations on whole tensors.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from serving.lora import lora_parts, lora_size


class BankedLayer(torch.nn.Module):
    """One adapted linear layer: y = W x + s B_m A_m x for the m-th row of the batch."""

    def __init__(
        self, linear: torch.nn.Module, a: torch.Tensor, b: torch.Tensor, scaling: float
    ) -> None:
        super().__init__()
        self.linear = linear
        self.a = a  # [M, rank, inputs]
        self.b = b  # [M, outputs, rank]
        self._scaling = scaling

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`inputs` [M, T, inputs]; like PEFT, LoRA's own arithmetic is in single precision."""
        output: torch.Tensor = self.linear(inputs)
        inside = torch.bmm(inputs.float(), self.a.transpose(1, 2))
        added = torch.bmm(inside, self.b.transpose(1, 2))
        total: torch.Tensor = torch.add(output, added, alpha=self._scaling)
        return total.to(output.dtype)


class LoraBank:
    """The weights of M adapters, [M, D], and their gradients, as two plain tensors."""

    def __init__(self, members: int, size: int) -> None:
        self.theta = torch.zeros(members, size)
        self.gradient = torch.zeros(members, size)
        self._leaves: list[tuple[int, torch.Tensor]] = []

    def leaf(self, start: int, shape: torch.Size) -> torch.Tensor:
        """A leaf [M, *shape] of autograd's that shares memory with theta from `start` on."""
        end = start + shape.numel()
        leaf = self.theta[:, start:end].view(len(self.theta), *shape).detach()
        leaf.requires_grad_()
        self._leaves.append((start, leaf))
        return leaf

    def collect(self) -> None:
        """Move the leaves' gradients into `gradient`."""
        for start, leaf in self._leaves:
            end = start + leaf[0].numel()
            if leaf.grad is None:
                self.gradient[:, start:end] = 0
            else:
                self.gradient[:, start:end] = leaf.grad.flatten(1)
            leaf.grad = None


@contextmanager
def banked(model: PeftModel, members: int) -> Iterator[LoraBank]:
    """The model with its LoRA layers replaced by a bank of `members`, all zero at first."""
    bank = LoraBank(members, lora_size(model))
    names = {module: name for name, module in model.named_modules()}
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    start = 0
    try:
        for layer, part in zip(layers, lora_parts(model), strict=True):
            leaves = []
            for weight in part.weights:
                leaves.append(bank.leaf(start, weight.shape))
                start += weight.numel()
            scaling = layer.scaling[model.active_adapter]
            model.set_submodule(
                names[layer], BankedLayer(layer.get_base_layer(), leaves[0], leaves[1], scaling)
            )
        yield bank
    finally:
        for layer in layers:
            model.set_submodule(names[layer], layer)
