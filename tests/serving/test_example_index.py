"""The search for the rows to show: exact for few rows, nearly so for many, in fewer dimensions.

With many rows the vectors here are like real ones: each has its own noise in all directions, and
much in common with some others. What is returned are true inner products, to 8 bits.
"""

from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from serving.example_index import (
    DIMENSIONS,
    FLAT_NUMBERS_MAX,
    dimensions_for,
    nearest,
    new_example_index,
)

K = 256
ROWS = 6_000
COUNT = 10


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    chance = np.random.default_rng(1)
    roots = chance.normal(size=(40, K))[chance.integers(0, 40, ROWS)]
    return np.asarray(roots + 0.7 * chance.normal(size=(ROWS, K)), dtype=np.float32)


def queries(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    chance = np.random.default_rng(2)
    mixed = chance.normal(size=(20, len(vectors))) @ vectors
    return np.asarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True), dtype=np.float32)


def test_few_rows_are_searched_exactly(vectors: NDArray[np.float32]) -> None:
    index = new_example_index(vectors, len(vectors))
    index.add(vectors)
    for query in queries(vectors):
        products, places = nearest(index, query, COUNT)
        exact = vectors @ query
        assert list(places) == list(np.argsort(-exact)[:COUNT])
        np.testing.assert_allclose(products, exact[places], rtol=1e-4)


def test_many_rows_are_found_again_after_reading_the_index_from_disk(
    vectors: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.example_index.FLAT_NUMBERS_MAX", ROWS * K - 1)
    monkeypatch.setattr("serving.example_index.SHORTLIST", 1_000)
    built = new_example_index(vectors, len(vectors))
    built.add(vectors)
    faiss.write_index(built, str(tmp_path / "examples.faiss"))
    index = faiss.read_index(str(tmp_path / "examples.faiss"))
    assert (index.ntotal, index.d) == (ROWS, K)
    found = []
    for query in queries(vectors):
        products, places = nearest(index, query, COUNT)
        exact = vectors @ query
        np.testing.assert_allclose(products, exact[places], atol=0.05 * exact.max())
        found.append(len({*places} & {*np.argsort(-exact)[:COUNT]}) / COUNT)
    assert np.mean(found) >= 0.9
    monkeypatch.setattr("serving.example_index.SHORTLIST", COUNT)  # without its second look
    short = [nearest(index, query, COUNT)[1] for query in queries(vectors)]
    worse = [
        len({*places} & {*np.argsort(-(vectors @ query))[:COUNT]}) / COUNT
        for places, query in zip(short, queries(vectors), strict=True)
    ]
    assert np.mean(worse) < np.mean(found)


def test_no_more_rows_are_found_than_there_are(vectors: NDArray[np.float32]) -> None:
    index = new_example_index(vectors[:3], 3)
    index.add(vectors[:3])
    assert sorted(nearest(index, vectors[0], COUNT)[1]) == [0, 1, 2]


def test_of_many_rows_those_of_the_shortlist_are_found_and_none_twice(
    vectors: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lists that are looked through hold fewer rows than a shortlist of all would take."""
    monkeypatch.setattr("serving.example_index.FLAT_NUMBERS_MAX", ROWS * K - 1)
    index = new_example_index(vectors, ROWS)
    index.add(vectors)
    monkeypatch.setattr("serving.example_index.SHORTLIST", 1_000)
    assert len(nearest(index, queries(vectors)[0], ROWS)[1]) == 1_000
    monkeypatch.setattr("serving.example_index.SHORTLIST", ROWS)
    products, places = nearest(index, queries(vectors)[0], ROWS)
    assert COUNT < len(places) == len({*places}) < ROWS
    assert min(places) >= 0
    assert list(products) == sorted(products, reverse=True)


def test_the_more_rows_the_fewer_dimensions() -> None:
    assert [dimensions_for(rows) for rows in (1, 1_024, 1_025, 4_097, 10**6)] == [
        DIMENSIONS[0], DIMENSIONS[0], DIMENSIONS[1], DIMENSIONS[2], DIMENSIONS[2],
    ]  # fmt: skip
    assert 1_024 * DIMENSIONS[0] == FLAT_NUMBERS_MAX
