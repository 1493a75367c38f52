"""Training examples seen through the inverse of the damped empirical Fisher matrix.

With G the n x D matrix of per-row gradients g_i of log-probability, the empirical Fisher matrix is
F = G^T G / n. The first-order effect of example i on a log-probability with gradient g is

    effect(i) = < g, v_i >,   v_i = (1/n) (F + lambda I)^-1 g_i

how much of it would be lost, in nats, if the row left the training objective's mean (influence
functions; Koh and Liang, https://arxiv.org/abs/1703.04730). D is far too large to invert in; but
(G^T G / n + lambda I)^-1 G^T = G^T (G G^T / n + lambda I)^-1, the push-through identity, so that

    V = G^T W,   W = (K + n lambda I)^-1,   K = G G^T  (n x n)

is exact, and a sum of v_i over rows is G^T times a sum of columns of W.

lambda is a tenth of the mean of F's n leading eigenvalues (they are K's, over n), that is
0.1 trace(K) / n^2: the factor of Grosse et al. (https://arxiv.org/abs/2308.03296), and what our
prototype was measured with.
"""

from collections.abc import Iterator

import torch

GRAM_ROWS_MAX = 5_000  # K has n^2 numbers, and the whole gradients lie on disk: 18 GB
ROWS_AT_ONCE = 4_096  # of projected gradients: what is in memory at a time
COLUMNS_AT_ONCE = 65_536  # of G: what is in memory at a time


def column_blocks(gradients: torch.Tensor) -> Iterator[torch.Tensor]:
    """G's columns in order, some at a time."""
    yield from torch.split(gradients, COLUMNS_AT_ONCE, dim=1)


def gram(gradients: torch.Tensor) -> torch.Tensor:
    """K = G G^T: single precision within a block of columns, double over the blocks."""
    rows = len(gradients)
    total = torch.zeros((rows, rows), dtype=torch.float64)
    for block in column_blocks(gradients):
        total += block @ block.T
    return total


def damping_of(kernel: torch.Tensor, factor: float) -> float:
    """lambda: `factor` times the mean of the n leading eigenvalues of F."""
    rows = len(kernel)
    return factor * kernel.trace().item() / rows**2


def solve_weights(kernel: torch.Tensor, damping: float) -> torch.Tensor:
    """W = (K + n lambda I)^-1."""
    rows = len(kernel)
    damped: torch.Tensor = kernel + rows * damping * torch.eye(rows, dtype=kernel.dtype)
    inverse: torch.Tensor = torch.linalg.inv(damped)
    return inverse


def combine(gradients: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """G^T times `weights` [n, m], as m vectors [m, D] in single precision."""
    parts = [weights.T @ block.double() for block in column_blocks(gradients)]
    return torch.cat([part.float() for part in parts], dim=1)


def solve_projected(projected: torch.Tensor, factor: float) -> float:
    """Turn projected gradients [n, k], n > k, into their v_i, in place; answers lambda.

    Beyond GRAM_ROWS_MAX the k x k matrix F of the projected gradients is the smaller one, so that
    v_i = (F + lambda I)^-1 P g_i / n, as TRAK has it (https://arxiv.org/abs/2303.14186). lambda is
    `factor` times the mean of F's k eigenvalues.
    """
    rows, numbers = projected.shape
    fisher = torch.zeros((numbers, numbers), dtype=torch.float64)
    for block in torch.split(projected, ROWS_AT_ONCE):
        fisher += (block.T @ block).double() / rows
    damping = factor * fisher.trace().item() / numbers
    fisher.diagonal().add_(damping)
    root = torch.linalg.cholesky(fisher)
    for block in torch.split(projected, ROWS_AT_ONCE):
        solved = torch.cholesky_solve(block.T.double(), root).T / rows
        block.copy_(solved)
    return damping
