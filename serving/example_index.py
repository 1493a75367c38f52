"""The search for the rows to show: which FAISS index holds the example vectors, by how many.

    to FLAT_NUMBERS_MAX numbers   every vector as it is, all of them looked at: exact
    above                         a shortlist by the leading directions, then the whole vectors

Few rows have many dimensions, since projecting to fewer changes which rows come first; many rows
have as few as are worth having.

Gradients of rows are nearly orthogonal: most of a row's vector lies outside the span of all
others, so no short code orders them rightly. The leading directions hold what queries and rows
share; they choose SHORTLIST rows in an inverted file, and only those are compared in all k
dimensions, at 8 bits each. `loadtests.bench_search` measures what the numbers here are worth.
"""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

DIMENSIONS = (65_536, 16_384, 4_096)
FLAT_NUMBERS_MAX = 2**26  # 0.27 GB: some 15 ms
LEADING = 128  # directions
LEADING_ROWS = 1_500  # that they are found from
SHORTLIST = 9_000
TRAINING_ROWS = 40_000  # that lists and bounds are learned from, at most
PROBED = 4  # one of so many lists is looked through


def dimensions_for(rows: int) -> int:
    """How many dimensions the vectors of so many rows are projected to."""
    few_enough = [each for each in DIMENSIONS if rows * each <= FLAT_NUMBERS_MAX]
    return few_enough[0] if few_enough else DIMENSIONS[-1]


def new_example_index(sample: NDArray[np.float32], rows: int) -> Any:  # noqa: ANN401 - untyped
    """An empty FAISS index for `rows` vectors by inner product, learned from a sample [m, k]."""
    dimensions = sample.shape[1]
    if rows * dimensions <= FLAT_NUMBERS_MAX:
        return faiss.IndexFlatIP(dimensions)
    sample = np.ascontiguousarray(sample[:TRAINING_ROWS])
    bits = faiss.ScalarQuantizer.QT_8bit
    lists = int(np.sqrt(rows))
    quantizer = faiss.IndexFlatIP(LEADING)
    inverted = faiss.IndexIVFScalarQuantizer(
        quantizer, LEADING, lists, bits, faiss.METRIC_INNER_PRODUCT, False
    )
    inverted.nprobe = max(lists // PROBED, 1)
    shortlist = faiss.IndexPreTransform(_onto_leading(sample), inverted)
    whole = faiss.IndexScalarQuantizer(dimensions, bits, faiss.METRIC_INNER_PRODUCT)
    index = faiss.IndexRefine(shortlist, whole)
    index.train(sample)
    return index


def _onto_leading(sample: NDArray[np.float32]) -> Any:  # noqa: ANN401
    """x -> B x, B [LEADING, k] with the sample's leading directions about zero, orthonormal.

    About zero and not about the mean, which would change inner products. By the Gram matrix, since
    the sample has fewer rows than squared dimensions: X = U S V^T, X X^T = U S^2 U^T.
    """
    rows = sample[:LEADING_ROWS].astype(np.float32)
    _, vectors = np.linalg.eigh(rows @ rows.T)
    directions = vectors[:, ::-1][:, :LEADING].T @ rows
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    onto = faiss.LinearTransform(sample.shape[1], LEADING, False)
    faiss.copy_array_to_vector(np.ascontiguousarray(directions).ravel(), onto.A)
    onto.is_trained = True
    onto.set_is_orthonormal()
    return onto


def nearest(
    index: Any,  # noqa: ANN401
    query: NDArray[np.float32],
    count: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The `count` rows of the largest inner products with a query [k]: those, and their places.

    Fewer where there are fewer rows, or where no more are shortlisted.
    """
    count = min(count, index.ntotal)
    if isinstance(index, faiss.IndexRefine):
        shortlist = min(SHORTLIST, index.ntotal)
        count = min(count, shortlist)
        wanted = faiss.IndexRefineSearchParameters()
        wanted.k_factor = shortlist / count
        products, places = index.search(query[None], count, params=wanted)
    else:
        products, places = index.search(query[None], count)
    found = places[0] >= 0  # the lists that were looked through may hold fewer
    return products[0][found], places[0][found]
