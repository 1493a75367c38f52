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

import numpy as np
from numpy.typing import NDArray

COLUMNS_AT_ONCE = 65_536  # of G: what is in memory at a time


def column_blocks(dimensions: int) -> Iterator[slice]:
    """Slices that cover D columns in order."""
    for start in range(0, dimensions, COLUMNS_AT_ONCE):
        yield slice(start, min(start + COLUMNS_AT_ONCE, dimensions))


def gram(gradients: NDArray[np.float32]) -> NDArray[np.float64]:
    """K = G G^T: single precision within a block of columns, double over the blocks."""
    rows, dimensions = gradients.shape
    total = np.zeros((rows, rows), dtype=np.float64)
    for block in column_blocks(dimensions):
        part = np.ascontiguousarray(gradients[:, block])
        total += part @ part.T
    return total


def damping_of(kernel: NDArray[np.float64], factor: float) -> float:
    """lambda: `factor` times the mean of the n leading eigenvalues of F."""
    rows = len(kernel)
    return factor * float(np.trace(kernel)) / rows**2


def solve_weights(kernel: NDArray[np.float64], damping: float) -> NDArray[np.float64]:
    """W = (K + n lambda I)^-1."""
    rows = len(kernel)
    inverse = np.linalg.inv(kernel + rows * damping * np.eye(rows))
    return np.asarray(inverse, dtype=np.float64)


def combine(gradients: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """G^T times `weights` [n, m], as m vectors [m, D] in single precision."""
    _, dimensions = gradients.shape
    combined = np.empty((weights.shape[1], dimensions), dtype=np.float32)
    for block in column_blocks(dimensions):
        combined[:, block] = weights.T @ gradients[:, block]
    return combined
