"""Packs the rows of several adapters side by side: one line of the batch an adapter.

In each line the rows stand one after the other behind their common beginning, as in
`serving.fine_tuning`: each attends to the beginning and to itself alone. A row of weight 0 has no
gradient, so it is left out. Lines are padded on the right to the same width.

Attention gathers each row into a frame of its own and so never computes what a mask would throw
away, which is four fifths of it at eight rows a line; all else runs on the packed tokens.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel

from serving.attention import attend, attending, causal_mask
from serving.rows import Row

ATTENTION = "byline_rows"


@dataclass(frozen=True, slots=True)
class Frames:
    """Where each row's own tokens lie: N rows of all lines, framed to W tokens.

    gather [N * W] are places in the flattened [M * T] (any place where a frame is longer than its
    row), scatter [M * (T - P)] are places in the flattened frames, line [N] is each row's line, and
    mask [1, 1, W, P + W] is added to the scores.
    """

    beginning: int  # P
    gather: torch.Tensor
    scatter: torch.Tensor
    line: torch.Tensor
    mask: torch.Tensor
    mask_of_beginning: torch.Tensor  # [1, 1, P, P]


@dataclass(frozen=True, slots=True)
class PackedLines:
    """M packed lines: ids and positions [M, T], their frames, and the targets.

    The targets of all lines lie one after the other: `predictors` are places in the flattened
    [M * T] whose next token each is, `owners` the line and the place in it of each target's row.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    frames: Frames
    predictors: torch.Tensor
    targets: torch.Tensor
    owners: tuple[tuple[int, int], ...]


def pack_lines(
    lines: Sequence[Sequence[Row]], beginning: tuple[int, ...], dtype: torch.dtype
) -> PackedLines:
    """Pack each line's rows behind `beginning`, which every row's prompt must begin with.

    The last token of each row is left out, since nothing follows it. There must be a row.
    """
    shared = len(beginning)
    sizes = [[len(row.ids) - 1 - shared for row in rows] for rows in lines]
    width = shared + max(sum(line) for line in sizes)
    ids = torch.zeros(len(lines), width, dtype=torch.long)
    positions = torch.zeros(len(lines), width, dtype=torch.long)
    ids[:, :shared] = torch.tensor(beginning)
    positions[:, :shared] = torch.arange(shared)
    predictors: list[int] = []
    for number, rows in enumerate(lines):
        start = shared
        for row, size in zip(rows, sizes[number], strict=True):
            ids[number, start : start + size] = torch.tensor(row.ids[shared:-1])
            positions[number, start : start + size] = torch.arange(shared, shared + size)
            first = number * width + start + len(row.prompt) - shared - 1
            predictors += range(first, first + len(row.completion))
            start += size
    return PackedLines(
        ids=ids,
        positions=positions,
        frames=_frames(sizes, shared, width, dtype),
        predictors=torch.tensor(predictors),
        targets=torch.tensor([token for rows in lines for row in rows for token in row.completion]),
        owners=tuple(
            (number, place)
            for number, rows in enumerate(lines)
            for place, row in enumerate(rows)
            for _ in row.completion
        ),
    )


def _frames(sizes: Sequence[Sequence[int]], shared: int, width: int, dtype: torch.dtype) -> Frames:
    rows = [(number, size) for number, line in enumerate(sizes) for size in line]
    frame = max(size for _, size in rows)
    gather = torch.zeros(len(rows), frame, dtype=torch.long)
    scatter = torch.zeros(len(sizes), width - shared, dtype=torch.long)
    filled = [0] * len(sizes)
    for index, (number, size) in enumerate(rows):
        start = filled[number]
        filled[number] += size
        gather[index, :size] = torch.arange(size) + number * width + shared + start
        scatter[number, start : start + size] = torch.arange(size) + index * frame
    return Frames(
        beginning=shared,
        gather=gather.flatten(),
        scatter=scatter.flatten(),
        line=torch.tensor([number for number, _ in rows]),
        mask=causal_mask(shared, frame, dtype),
        mask_of_beginning=causal_mask(0, shared, dtype),
    )


def rows_attention(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
    *,
    scaling: float,
    frames: Frames,
    **_rest: object,
) -> tuple[torch.Tensor, None]:
    """Attention for transformers' interface: [M, heads, T, size] to [M, T, heads, size].

    A frame is causal from its first token, and what fills a frame up comes last: no row sees it.
    """
    shared = frames.beginning
    first = [part[:, :, :shared] for part in (query, key, value)]
    framed = [_framed(part, frames) for part in (query, key, value)]
    seen = [
        torch.cat([start.index_select(0, frames.line), own], dim=2)
        for start, own in zip(first[1:], framed[1:], strict=True)
    ]
    rows = attend(framed[0], seen[0], seen[1], frames.mask, scaling)
    flat = rows.transpose(1, 2).flatten(0, 1).index_select(0, frames.scatter)
    own = flat.view(len(query), -1, *flat.shape[1:])
    if not shared:
        return own, None
    start = attend(first[0], first[1], first[2], frames.mask_of_beginning, scaling)
    return torch.cat([start.transpose(1, 2), own], dim=1), None


def _framed(states: torch.Tensor, frames: Frames) -> torch.Tensor:
    """[M, heads, T, size] to [N, heads, W, size]."""
    flat = states.transpose(1, 2).flatten(0, 1).index_select(0, frames.gather)
    framed: torch.Tensor = flat.view(len(frames.line), -1, *flat.shape[1:])
    return framed.transpose(1, 2)


@contextmanager
def attending_by_rows(model: PeftModel) -> Iterator[None]:
    """Make the model attend by frames, which `target_losses` gives to it."""
    with attending(model, ATTENTION, rows_attention):
        yield


def target_losses(model: PeftModel, batch: PackedLines) -> torch.Tensor:
    """The negative log-probability of every target, in their order, with a graph.

    For a model that is `attending_by_rows`.
    """
    causal: Any = model.get_base_model()
    hidden = causal.model(
        input_ids=batch.ids, position_ids=batch.positions, use_cache=False, frames=batch.frames
    ).last_hidden_state
    states = hidden.flatten(0, 1).index_select(0, batch.predictors)
    logits = causal.lm_head(states).float()
    return torch.nn.functional.cross_entropy(logits, batch.targets, reduction="none")
