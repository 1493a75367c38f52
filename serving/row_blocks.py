"""Makes a model's products give each row the same bits, however many rows there are.

A matrix library chooses its kernel by the size of a product. On processors with AMX two of oneDNN's
kernels round differently, so a token's state, and with it a score, would depend on which answers
went through the model together: by up to 1.5 nats an answer in bfloat16. There every product is
made of blocks of one size, the last one filled up with zeros. Whether it has to be is measured, not
assumed: blocks cost little where they are needed and a tenth of the speed where they are not.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import nn
from torch.nn.functional import linear, pad

BLOCK_ROWS = 128
TRIED_ROWS = (40, 100, 200, 400)  # against this many:
TRIED_ROWS_MAX = 900


def keep_rows_apart(model: nn.Module) -> None:
    """Let every `nn.Linear` in `model` work in blocks if its rows need that; again is fine.

    Not the last one, `lm_head`, which is asked for one answer's tokens at a time.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "lm_head" not in name:
            weight = module.weight
            if rows_depend_on_company(weight.shape[0], weight.shape[1], weight.dtype):
                module.forward = _in_blocks(module)  # type: ignore[assignment,method-assign]


@cache
def rows_depend_on_company(outputs: int, inputs: int, dtype: torch.dtype) -> bool:
    """Whether a row of x @ w.T, or of its gradient y @ w, differs with the number of rows."""
    generator = torch.Generator().manual_seed(1)
    x, y, w = (
        torch.randn(shape, generator=generator).to(dtype)
        for shape in ((TRIED_ROWS_MAX, inputs), (TRIED_ROWS_MAX, outputs), (outputs, inputs))
    )
    many, back = linear(x, w), y @ w
    return not all(
        torch.equal(linear(x[:rows], w), many[:rows]) and torch.equal(y[:rows] @ w, back[:rows])
        for rows in TRIED_ROWS
    )


def _in_blocks(module: nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        rows = x.flatten(0, -2)
        filled = pad(rows, (0, 0, 0, -len(rows) % BLOCK_ROWS))
        blocks = [
            linear(block, module.weight, module.bias) for block in torch.split(filled, BLOCK_ROWS)
        ]
        return torch.cat(blocks)[: len(rows)].view(*x.shape[:-1], -1)

    return forward
