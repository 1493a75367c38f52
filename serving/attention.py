"""Plain attention for short rows, and how a model is made to use a form of our own.

torch's fused attention is made for long rows: on rows of a hundred tokens its backward pass takes
four times as long as the plain products.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from transformers import AttentionInterface

PLAIN_TOKENS_MAX = 256  # of a row: above, fused attention spares the memory of its squares


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Plain attention, [N, heads, W, size] over keys and values [N, fewer heads, K, size].

    Query heads that share a key are one taller matrix.
    """
    count, heads, width, size = query.shape
    shared = key.shape[1]
    tall = query.reshape(count, shared, heads // shared * width, size)
    scores = (tall @ key.transpose(2, 3)).view(count, heads, width, key.shape[2])
    weights = torch.softmax(torch.add(mask, scores, alpha=scaling), dim=-1, dtype=torch.float32)
    mixed: torch.Tensor = weights.to(query.dtype).view(count, shared, -1, key.shape[2]) @ value
    return mixed.view(count, heads, width, size)


def causal_mask(before: int, size: int, dtype: torch.dtype) -> torch.Tensor:
    """[1, 1, size, before + size]: each sees all that was before, itself and its own past."""
    seen = torch.ones(size, before + size, dtype=torch.bool).tril(diagonal=before)
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
    return mask[None, None]


def attend_in_line(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
    *,
    scaling: float,
    widths: list[int],
    behind: list[bool] | None = None,
    **_rest: object,
) -> tuple[torch.Tensor, None]:
    """Rows of these widths, one after the other in one line, each causal and alone.

    Those that `behind` names see the first one before themselves, too, as their beginning.
    For transformers' interface: [1, heads, T, size] to [1, T, heads, size]. Nothing is padded, and
    each row is computed by itself, so not even its last bit depends on its company.
    """
    queries, keys, values = (torch.split(states, widths, dim=2) for states in (query, key, value))
    mixed = [
        _attend_behind(keys[0], values[0], of_query, of_key, of_value, scaling)
        if sees_first
        else _attend_alone(of_query, of_key, of_value, scaling)
        for of_query, of_key, of_value, sees_first in zip(
            queries, keys, values, behind or [False] * len(widths), strict=True
        )
    ]
    return torch.cat(mixed, dim=2).transpose(1, 2), None


def _attend_behind(
    key_before: torch.Tensor,
    value_before: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    before, width = key_before.shape[2], query.shape[2]
    seen = torch.cat([key_before, key], dim=2), torch.cat([value_before, value], dim=2)
    mask = causal_mask(before, width, query.dtype)
    if before + width <= PLAIN_TOKENS_MAX:
        return attend(query, *seen, mask, scaling)
    return torch.nn.functional.scaled_dot_product_attention(
        query, *seen, attn_mask=mask, scale=scaling, enable_gqa=True
    )


def _attend_alone(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
) -> torch.Tensor:
    width = query.shape[2]
    if width <= PLAIN_TOKENS_MAX:
        return attend(query, key, value, causal_mask(0, width, query.dtype), scaling)
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, enable_gqa=True
    )


@contextmanager
def attending(
    model: PeftModel, name: str, form: Callable[..., tuple[torch.Tensor, None]]
) -> Iterator[None]:
    """Make the model attend in this form, known to transformers by this name, for a while."""
    AttentionInterface.register(name, form)
    causal: Any = model.get_base_model()
    before = causal.config._attn_implementation  # noqa: SLF001 - transformers has no other word
    causal.set_attn_implementation(name)
    try:
        yield
    finally:
        causal.set_attn_implementation(before)
