"""As many example vectors as one likes, like an adapter's real ones, and real queries for them.

A vector is a real row's (drawn with replacement) plus noise as large as the rows of its contributor
differ from each other. Which part of that noise lies in the span of the contributor's real rows,
and which outside of it, is measured on the real rows: how much of a row's vector the span of all
others does not hold. The part inside has the contributor's own covariance; the part outside goes in
all directions alike. Queries are gradients of real completions that nobody was trained on.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from serving.influence import EXAMPLES, MANIFEST
from serving.projection import Projection, ProjectionShape

CHUNK_ROWS = 10_000
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RealRows:
    """An adapter's own example vectors [n, k], and each one's contributor by place."""

    vectors: Vectors
    contributor_of: NDArray[np.int64]

    @classmethod
    def read(cls, index: Path) -> "RealRows":
        """Those of an index artifact's folder."""
        stored = faiss.read_index(str(index / EXAMPLES))
        manifest = json.loads((index / MANIFEST).read_text())
        vectors = stored.reconstruct_n(0, stored.ntotal)
        return cls(vectors, np.array(manifest["contributor_of"]))

    @property
    def outside(self) -> float:
        """The part of a row's squared length outside the span of all others: the median."""
        gram = self.vectors.astype(np.float64) @ self.vectors.T.astype(np.float64)
        return float(np.median(1 / np.diag(np.linalg.inv(gram)) / np.diag(gram)))

    def fewer_dimensions(self, projection: Projection | None) -> "RealRows":
        """Projected once more."""
        return RealRows(projected(self.vectors, projection), self.contributor_of)


def projection_to(dimensions: int, outputs: int) -> Projection | None:
    """From so many dimensions to fewer; None where nothing is to be done."""
    if outputs == dimensions:
        return None
    return Projection(ProjectionShape(inputs=dimensions, outputs=outputs, nonzeros=4, seed=12))


def projected(vectors: Vectors, projection: Projection | None) -> Vectors:
    """Each of the vectors, projected."""
    return vectors if projection is None else np.stack([projection.apply(row) for row in vectors])


def made_up(real: RealRows, rows: int, seed: int = 5) -> Iterator[Vectors]:
    """So many vectors, CHUNK_ROWS at a time; more rows begin with the same ones."""
    chance = np.random.Generator(np.random.SFC64(seed))
    outside = real.outside
    for start in range(0, rows, CHUNK_ROWS):
        yield _chunk(real, outside, chance)[: rows - start]


def _chunk(real: RealRows, outside: float, chance: np.random.Generator) -> Vectors:
    known, dimensions = real.vectors.shape
    drawn = chance.integers(0, known, CHUNK_ROWS)
    own = real.contributor_of[drawn][:, None] == real.contributor_of[None]
    members = own.sum(axis=1, keepdims=True)
    inside = chance.standard_normal((CHUNK_ROWS, known), dtype=np.float32) * own
    inside -= own * (inside.sum(axis=1, keepdims=True) / members)  # about the contributor's mean
    mixture = inside * (np.sqrt(1 - outside) / np.sqrt(np.maximum(members - 1, 1)))
    mixture[np.arange(CHUNK_ROWS), drawn] += 1
    noise = chance.standard_normal((CHUNK_ROWS, dimensions), dtype=np.float32)
    lengths = np.linalg.norm(real.vectors, axis=1)[drawn] * np.sqrt(outside / dimensions)
    noise *= lengths[:, None].astype(np.float32)
    noise += mixture.astype(np.float32) @ real.vectors
    return noise
