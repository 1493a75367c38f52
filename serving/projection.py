"""A sparse random projection from R^D to R^k that keeps inner products in expectation.

The sparse Johnson-Lindenstrauss transform (Kane and Nelson, https://arxiv.org/abs/1012.1577): each
column has `nonzeros` entries of +-1/sqrt(nonzeros), one in each of as many equal blocks of rows. So
E[<Px, Py>] = <x, y>, with a variance of about (|x|^2 |y|^2 + <x, y>^2) / k. A projection is stored
as its four numbers, never as a matrix.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ProjectionShape:
    """The four numbers that make a projection."""

    inputs: int  # D
    outputs: int  # k, a multiple of `nonzeros`
    nonzeros: int
    seed: int


class Projection:
    """The projection with its random rows and signs in memory: 5 bytes a non-zero entry."""

    def __init__(self, shape: ProjectionShape) -> None:
        self.shape = shape
        self._block = shape.outputs // shape.nonzeros
        if self._block * shape.nonzeros != shape.outputs:
            raise ValueError("the projection's outputs must be a multiple of its nonzeros")
        random = np.random.Generator(np.random.PCG64(shape.seed))
        size = (shape.nonzeros, shape.inputs)
        self._rows = random.integers(0, self._block, size=size, dtype=np.int32)
        self._signs = random.integers(0, 2, size=size, dtype=np.int8) * np.int8(2) - np.int8(1)

    def apply(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """P times one vector of D numbers."""
        blocks = [
            np.bincount(rows, weights=vector * signs, minlength=self._block)
            for rows, signs in zip(self._rows, self._signs, strict=True)
        ]
        joined = np.concatenate(blocks) / np.sqrt(self.shape.nonzeros)
        return np.asarray(joined, dtype=np.float32)
