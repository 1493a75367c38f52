"""Search among many example vectors: time, recall and memory, by rows, dimensions and index.

    python -m loadtests.bench_search [--rows 1000000] [--dimensions 4096] [--queries 64]

The vectors are like an adapter's real ones (`loadtests.example_vectors`), the queries are gradients
of real completions that nobody trained on. The index is the one that `serving.example_index`
chooses for so many rows; truth is every row compared in all dimensions, in single precision. One
thread searches. One JSON object is the last line; exit 1 if a bar is missed: 20 ms at p50 and a
recall@10 of 0.95 with a million rows.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil
from numpy.typing import NDArray

from byline.artifacts import ArtifactStore
from byline.datasets import SOURCES, read_dataset
from byline.datasets.packages import find_package
from byline.datasets.selection import usable
from byline.home import Home
from byline.registry import read_release
from loadtests.example_vectors import RealRows, Vectors, made_up, projected, projection_to
from serving.example_index import TRAINING_ROWS, nearest, new_example_index
from serving.influence import read_manifest
from serving.projection import Projection
from serving.recipes import cores, share_cores

NEAREST = 10
SMALLER = (10_000, 100_000)
FEWER_DIMENSIONS = (4_096, 8_192, 16_384, 32_768)
MS_MAX = 20.0
RECALL_MIN = 0.95


def real(home: Home, adapter: str, queries: int) -> tuple[RealRows, Vectors]:
    """An adapter's example vectors, and gradients of completions of rows that it never saw."""
    from serving.checkpoints import load_base_model, load_tokenizer
    from serving.gradients import row_gradients
    from serving.lora import load_lora
    from serving.rows import encode

    release = read_release(home.release)
    (chosen,) = [each for each in release.adapters if each.adapter == adapter]
    store = ArtifactStore(home.artifacts)
    index = store.open("indexes", chosen.index)
    projection = Projection(read_manifest(index.path).projection)
    trained = read_dataset(store.open("datasets", chosen.dataset)).canonical
    prompts = {example.prompt for example in trained}
    source = SOURCES[adapter]
    found = [each.example for each in usable(source.read(find_package(source.package)))]
    held = [example for example in found if example.prompt not in prompts]
    order = np.random.default_rng(3).permutation(len(held))[:queries]
    base = home.artifacts / release.base_path
    model = load_lora(load_base_model(base), store.open("adapters", chosen.version).path)
    rows = encode(load_tokenizer(base), [held[place] for place in order])
    gradients = (row_gradients(model, [row]).gradients[0].numpy() for row in rows)
    return RealRows.read(index.path), np.stack([projection.apply(each) for each in gradients])


class Truth:
    """The NEAREST rows of each query among all that were shown, exactly."""

    def __init__(self, queries: Vectors) -> None:
        self._queries = queries
        self._products = np.empty((len(queries), 0), dtype=np.float32)
        self._places = np.empty((len(queries), 0), dtype=np.int64)

    def show(self, vectors: Vectors, first: int) -> None:
        """More rows, whose places begin at `first`."""
        products = np.concatenate([self._products, self._queries @ vectors.T], axis=1)
        new = np.tile(np.arange(first, first + len(vectors)), (len(self._queries), 1))
        places = np.concatenate([self._places, new], axis=1)
        best = np.argsort(-products, axis=1)[:, :NEAREST]
        self._products = np.take_along_axis(products, best, axis=1)
        self._places = np.take_along_axis(places, best, axis=1)

    def recall(self, found: Sequence[NDArray[np.int64]]) -> float:
        """How many of the true ones were found, on average."""
        pairs = zip(self._places, found, strict=True)
        return float(np.mean([len({*true} & {*mine}) / NEAREST for true, mine in pairs]))


def measured(rows: RealRows, queries: Vectors, count: int) -> dict[str, Any]:
    """One size: the index is built, and every query is asked by one thread."""
    began = time.perf_counter()
    sample = np.concatenate(list(made_up(rows, min(count, TRAINING_ROWS))))
    index = new_example_index(sample, count)
    del sample
    truth, first = Truth(queries), 0
    for chunk in made_up(rows, count):
        index.add(chunk)
        truth.show(chunk, first)
        first += len(chunk)
    built = time.perf_counter()
    faiss.omp_set_num_threads(1)
    found, wall, cpu = [], [], []
    for query in [queries[0], *queries]:  # the first warms up
        start, spent = time.perf_counter(), time.process_time()
        found.append(nearest(index, query, NEAREST)[1])
        wall.append(1_000 * (time.perf_counter() - start))
        cpu.append(1_000 * (time.process_time() - spent))
    faiss.omp_set_num_threads(cores())
    return {
        "rows": count,
        "dimensions": queries.shape[1],
        "index": type(index).__name__,
        "recall_at_10": round(truth.recall(found[1:]), 4),
        "ms_p50": round(statistics.median(wall[1:]), 2),
        "ms_p90": round(statistics.quantiles(wall[1:], n=10)[-1], 2),
        "cpu_ms_p50": round(statistics.median(cpu[1:]), 2),
        "build_seconds": round(built - began, 1),
        "resident_gib": round(psutil.Process().memory_info().rss / 2**30, 2),
    }


def frontier(rows: RealRows, queries: Vectors) -> list[dict[str, Any]]:
    """The real rows alone: what fewer dimensions and fewer bits lose of the order by all."""
    found = []
    full = queries.shape[1]
    for dimensions in [*FEWER_DIMENSIONS, full]:
        projection = projection_to(full, dimensions)
        fewer, asked = rows.fewer_dimensions(projection).vectors, projected(queries, projection)
        for bits in (32, 8, 4):
            kept = fewer if bits == 32 else quantised(fewer, bits)
            truth = Truth(queries)
            truth.show(rows.vectors, 0)
            best = np.argsort(-(asked @ kept.T), axis=1)[:, :NEAREST]
            recall = round(truth.recall(list(best)), 3)
            found.append({"dimensions": dimensions, "bits": bits, "recall_at_10": recall})
    return found


def quantised(vectors: Vectors, bits: int) -> Vectors:
    """The vectors as FAISS would remember them in so many bits a number."""
    kinds = {8: faiss.ScalarQuantizer.QT_8bit, 4: faiss.ScalarQuantizer.QT_4bit}
    index = faiss.IndexScalarQuantizer(vectors.shape[1], kinds[bits], faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    remembered: Vectors = index.reconstruct_n(0, len(vectors))
    return remembered


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Measure the search for examples.")
    parser.add_argument("--home", type=Path, default=Path(".byline"), help="has a release")
    parser.add_argument("--adapter", default="healthcare")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=4_096)
    parser.add_argument("--queries", type=int, default=64)
    arguments = parser.parse_args()
    share_cores()
    rows, queries = real(Home(arguments.home), arguments.adapter, arguments.queries)
    projection = projection_to(queries.shape[1], arguments.dimensions)
    fewer, asked = rows.fewer_dimensions(projection), projected(queries, projection)
    sizes = []
    for count in [*(size for size in SMALLER if size < arguments.rows), arguments.rows]:
        sizes.append(measured(fewer, asked, count))
        print(json.dumps(sizes[-1]), flush=True)
    most = sizes[-1]
    missed = [
        name
        for name, kept in (
            ("ms_p50", most["ms_p50"] <= MS_MAX),
            ("recall_at_10", most["recall_at_10"] >= RECALL_MIN),
        )
        if not kept
    ]
    result = {
        "real_rows": len(rows.vectors),
        "outside_the_others_span": round(fewer.outside, 3),
        "queries": len(queries),
        "busy": round(os.getloadavg()[0], 1),
        "sizes": sizes,
        "fewer_dimensions": frontier(rows, queries),
        "missed": missed,
    }
    print(json.dumps(result))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
