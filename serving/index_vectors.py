"""The vectors of an attribution index, out of per-row gradients."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel

from serving.fisher import combine, damping_of, gram, solve_projected, solve_weights
from serving.gradients import row_gradients
from serving.lora import lora_size
from serving.progress import Report
from serving.projection import Projection
from serving.recipes import IndexSettings
from serving.rows import Row


@dataclass(frozen=True, slots=True)
class IndexVectors:
    """What an index stores, and the damping that made it."""

    contributors: NDArray[np.float32]  # [C, D], or [C, k]: sums of v_i over a contributor's rows
    examples: NDArray[np.float32]  # [n, k]: projected v_i
    damping: float


def gradients_of(
    model: PeftModel, rows: Sequence[Row], path: Path, report: Report,
    projection: Projection | None = None,
) -> NDArray[np.float32]:  # fmt: skip
    """Every row's gradient, [n, D], or [n, k] where they are projected, in a memory-mapped file.

    Rows of like length share a batch.
    """
    numbers = projection.shape.outputs if projection else lora_size(model)
    gradients = np.memmap(path, dtype=np.float32, mode="w+", shape=(len(rows), numbers))
    batch_rows = IndexSettings().batch_rows
    by_length = sorted(range(len(rows)), key=lambda index: (len(rows[index].ids), index))
    for start in range(0, len(rows), batch_rows):
        places = by_length[start : start + batch_rows]
        found = row_gradients(model, [rows[place] for place in places]).gradients.numpy()
        gradients[places] = [projection.apply(each) for each in found] if projection else found
        report("gradients", start + len(places), len(rows))
    return gradients


def index_vectors(
    gradients: NDArray[np.float32],
    contributor_of: Sequence[int],
    projection: Projection,
    damping_factor: float,
    report: Report,
) -> IndexVectors:
    """Contributor and example vectors; `contributor_of` gives each row's contributor by place."""
    rows = len(gradients)
    rows_by_weights = torch.from_numpy(gradients)
    kernel = gram(rows_by_weights)
    damping = damping_of(kernel, damping_factor)
    weights = solve_weights(kernel, damping)
    membership = torch.nn.functional.one_hot(torch.tensor(contributor_of)).double()
    projected = np.empty((rows, projection.shape.outputs), dtype=np.float32)
    for place in range(rows):  # projecting is linear: P v_i = sum_j W_ji P g_j
        projected[place] = projection.apply(gradients[place])
        report("index", place + 1, rows)
    return IndexVectors(
        contributors=combine(rows_by_weights, weights @ membership).numpy(),
        examples=(weights.T @ torch.from_numpy(projected).double()).float().numpy(),
        damping=damping,
    )


def projected_vectors(
    projected: NDArray[np.float32], contributor_of: Sequence[int], damping_factor: float
) -> IndexVectors:
    """The same of projected gradients [n, k], which become the example vectors: of very many rows.

    A contributor's score is then the sum of its rows' scores, both of them estimates.
    """
    damping = solve_projected(torch.from_numpy(projected), damping_factor)
    contributors = np.zeros((max(contributor_of) + 1, projected.shape[1]), dtype=np.float64)
    for place, vector in zip(contributor_of, projected, strict=True):
        contributors[place] += vector
    return IndexVectors(contributors.astype(np.float32), projected, damping)
