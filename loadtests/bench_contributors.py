"""The index of contributor vectors: time and size by contributors, numbers a vector, and bits.

    python -m loadtests.bench_contributors [--contributors 10 100 1000] [--bytes-max 5000000000]

A question is one inner product with every contributor's vector, in FAISS, by one thread; how long
it takes does not depend on what the vectors say, so they are random. Sizes that would take more
memory than `--bytes-max` are named and left out. One JSON object is the last line.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import faiss
import numpy as np

# Of SmolLM2-135M with rank 8 on q, k, v, o: all numbers, B alone, and two projections.
DIMENSIONS = {"all": 921_600, "B alone": 368_640, "projected": 65_536, "projected short": 4_096}
BITS = (32, 16)
QUERIES = 9
VECTORS_AT_ONCE = 20


def empty(dimensions: int, bits: int) -> Any:  # noqa: ANN401 - FAISS has no types
    """An index by inner product that keeps every number, in so many bits."""
    if bits == 32:
        return faiss.IndexFlatIP(dimensions)
    return faiss.IndexScalarQuantizer(
        dimensions, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )


def measured(contributors: int, dimensions: int, bits: int) -> dict[str, Any]:
    """One index: built, written, asked."""
    random = np.random.default_rng(1)
    index = empty(dimensions, bits)
    for first in range(0, contributors, VECTORS_AT_ONCE):
        count = min(VECTORS_AT_ONCE, contributors - first)
        index.add(random.standard_normal((count, dimensions), dtype=np.float32))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "contributors.faiss"
        faiss.write_index(index, str(path))
        size = path.stat().st_size
    queries = random.standard_normal((QUERIES + 1, dimensions), dtype=np.float32)
    wall = []
    for query in queries:
        began = time.perf_counter()
        index.search(query[None], contributors)
        wall.append(1_000 * (time.perf_counter() - began))
    return {
        "contributors": contributors,
        "dimensions": dimensions,
        "bits": bits,
        "bytes": size,
        "bytes_a_contributor": size // contributors,
        "ms_p50": round(statistics.median(wall[1:]), 3),  # the first warms up
        "ms_max": round(max(wall[1:]), 3),
    }


def sizes(counts: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Every number of contributors, of dimensions, and of bits."""
    yield from product(counts, DIMENSIONS.values(), BITS)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Measure the index of contributor vectors.")
    parser.add_argument("--contributors", type=int, nargs="+", default=[10, 100, 1_000, 10_000])
    parser.add_argument("--bytes-max", type=int, default=5_000_000_000)
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    found, left_out = [], []
    for size in sizes(arguments.contributors):
        if math.prod(size) // 8 > arguments.bytes_max:
            left_out.append(size)
            continue
        found.append(measured(*size))
        print(json.dumps(found[-1]), flush=True)
    print(
        json.dumps({"busy": round(os.getloadavg()[0], 1), "measured": found, "left_out": left_out})
    )


if __name__ == "__main__":
    main()
