"""Theorems about the attribution index.

With G the rows' gradients, F = G^T G / n and lambda > 0: the contributors' scores are exactly
g^T (1/n) (F + lambda I)^-1 sum of their g_i; they are additive over rows, so that splitting a
contributor's rows over two names splits its score and changes nobody else's; and a projection keeps
inner products within a few times |x| |y| / sqrt(k).
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from byline.artifacts import Artifact, ArtifactStore
from byline.errors import ArtifactError
from serving.fisher import combine, damping_of, gram, solve_weights
from serving.index_vectors import IndexVectors, index_vectors, projected_vectors
from serving.influence import PROJECTED_FISHER, AdapterIndex, Manifest, scale_of, write_index
from serving.progress import no_report
from serving.projection import Projection, ProjectionShape

D = 60
ROWS = 9
OWNERS = [0, 0, 1, 2, 1, 0, 2, 2, 2]
PROJECTION = Projection(ProjectionShape(inputs=D, outputs=512, nonzeros=4, seed=3))


@pytest.fixture
def gradients() -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(ROWS, D)).astype(np.float32)


@pytest.fixture
def query() -> NDArray[np.float32]:
    return np.random.default_rng(2).normal(size=D).astype(np.float32)


def explicit_effects(
    gradients: NDArray[np.float32], query: NDArray[np.float32], damping: float
) -> NDArray[np.float64]:
    """Each row's effect with the D x D matrix inverted as it stands in the definition."""
    exact = gradients.astype(np.float64)
    fisher = exact.T @ exact / len(exact)
    inverse = np.linalg.inv(fisher + damping * np.eye(D))
    effects: NDArray[np.float64] = exact @ inverse @ query / len(exact)
    return effects


def vectors_of(gradients: NDArray[np.float32], owners: list[int]) -> IndexVectors:
    return index_vectors(gradients, owners, PROJECTION, 0.1, no_report)


def test_contributor_scores_are_the_explicit_damped_form(
    gradients: NDArray[np.float32], query: NDArray[np.float32]
) -> None:
    vectors = vectors_of(gradients, OWNERS)
    effects = explicit_effects(gradients, query, vectors.damping)
    for place in range(3):
        expected = sum(effects[row] for row in range(ROWS) if OWNERS[row] == place)
        assert vectors.contributors[place] @ query == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_damping_is_a_tenth_of_the_mean_leading_eigenvalue(
    gradients: NDArray[np.float32],
) -> None:
    exact = gradients.astype(np.float64)
    leading = np.linalg.eigvalsh(exact.T @ exact / ROWS)[-ROWS:]
    assert damping_of(gram(torch.from_numpy(gradients)), 0.1) == pytest.approx(0.1 * leading.mean())


def test_splitting_a_contributor_splits_its_score_and_no_other(
    gradients: NDArray[np.float32], query: NDArray[np.float32]
) -> None:
    whole = vectors_of(gradients, OWNERS).contributors @ query
    split = [3 if row == 0 else owner for row, owner in enumerate(OWNERS)]
    parts = vectors_of(gradients, split).contributors @ query
    assert parts[0] + parts[3] == pytest.approx(whole[0], rel=1e-4)
    np.testing.assert_allclose(parts[1:3], whole[1:3], rtol=1e-5)


def test_columns_are_put_together_from_blocks(gradients: NDArray[np.float32]) -> None:
    kernel = gram(torch.from_numpy(gradients))
    np.testing.assert_allclose(kernel, gradients @ gradients.T, rtol=1e-5)
    weights = solve_weights(kernel, 0.5)
    found = combine(torch.from_numpy(gradients), weights)
    np.testing.assert_allclose(found, weights.numpy() @ gradients, rtol=1e-4, atol=1e-6)


def test_a_projection_keeps_inner_products() -> None:
    random = np.random.default_rng(4)
    shape = ProjectionShape(inputs=5_000, outputs=4_096, nonzeros=4, seed=9)
    projection = Projection(shape)
    for _ in range(20):
        x, y = random.normal(size=(2, 5_000)).astype(np.float32)
        bound = 5 * np.linalg.norm(x) * np.linalg.norm(y) / np.sqrt(shape.outputs)
        assert abs(projection.apply(x) @ projection.apply(y) - x @ y) < bound
        assert np.linalg.norm(projection.apply(x)) == pytest.approx(np.linalg.norm(x), rel=0.1)


def test_a_projection_is_its_four_numbers(query: NDArray[np.float32]) -> None:
    again = Projection(PROJECTION.shape)
    np.testing.assert_array_equal(again.apply(query), PROJECTION.apply(query))
    other = Projection(ProjectionShape(inputs=D, outputs=512, nonzeros=4, seed=4))
    assert not np.array_equal(other.apply(query), PROJECTION.apply(query))
    np.testing.assert_allclose(PROJECTION.apply(2 * query), 2 * PROJECTION.apply(query), rtol=1e-6)


def test_a_projection_refuses_outputs_that_its_blocks_do_not_fill() -> None:
    with pytest.raises(ValueError, match="multiple"):
        Projection(ProjectionShape(inputs=4, outputs=10, nonzeros=4, seed=1))


def test_projected_fisher_is_the_explicit_form_in_the_projected_space() -> None:
    """More rows than numbers, as where it is used; the whole gradients are then not needed."""
    random = np.random.default_rng(6)
    projected = random.normal(size=(200, 16)).astype(np.float32)
    query = random.normal(size=16)
    owners = [place % 3 for place in range(200)]
    found = projected_vectors(projected.copy(), owners, 0.1)
    exact = projected.astype(np.float64)
    fisher = exact.T @ exact / 200
    assert found.damping == pytest.approx(0.1 * np.linalg.eigvalsh(fisher).mean(), rel=1e-5)
    effects = exact @ np.linalg.inv(fisher + found.damping * np.eye(16)) @ query / 200
    np.testing.assert_allclose(found.examples @ query, effects, rtol=1e-4, atol=1e-7)
    sums = [effects[np.array(owners) == place].sum() for place in range(3)]
    np.testing.assert_allclose(found.contributors @ query, sums, rtol=1e-4, atol=1e-6)


def test_with_room_for_all_directions_projected_fisher_is_damped_fisher(
    gradients: NDArray[np.float32], query: NDArray[np.float32]
) -> None:
    """Same rows, same lambda: the push-through identity."""
    rotation, _ = np.linalg.qr(np.random.default_rng(7).normal(size=(D, D)))
    turned = (gradients @ rotation).astype(np.float32)
    whole = vectors_of(gradients, OWNERS)
    factor = whole.damping / np.linalg.eigvalsh(turned.T @ turned / ROWS).mean()
    found = projected_vectors(turned, OWNERS, factor)
    np.testing.assert_allclose(
        found.contributors @ (query @ rotation), whole.contributors @ query, rtol=1e-3, atol=1e-5
    )


@pytest.fixture
def stored(gradients: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An index artifact of the made-up gradients."""
    store = ArtifactStore(tmp_path_factory.mktemp("store"))
    vectors = vectors_of(gradients, OWNERS)
    manifest = Manifest(
        adapter="weather@0123456789ab", dataset="weather@0123456789ab",
        base="tiny@0123456789ab", dimensions=D, damping=vectors.damping,
        projection=PROJECTION.shape, contributors=("ann", "bob", "cem"), rows=(3, 2, 4),
        examples=tuple(f"row-{row}" for row in range(ROWS)), contributor_of=tuple(OWNERS),
    )  # fmt: skip
    with store.build("indexes", "weather", {"made": "up"}) as folder:
        write_index(folder, manifest, vectors.contributors, vectors.examples)
    found = store.find("indexes", {"made": "up"})
    assert found is not None
    return found


def test_a_stored_index_scores_every_contributor_and_shows_the_strongest_rows(
    stored: Artifact, gradients: NDArray[np.float32], query: NDArray[np.float32]
) -> None:
    index = AdapterIndex.load(stored, [PROJECTION])
    assert index.projection is PROJECTION
    scores, rows = index.score(query)
    effects = explicit_effects(gradients, query, index.manifest.damping)
    expected = {"ann": effects[[0, 1, 5]].sum(), "bob": effects[[2, 4]].sum()}
    assert set(scores) == {"ann", "bob", "cem"}
    for who, effect in expected.items():
        assert scores[who] == pytest.approx(effect, rel=1e-3, abs=1e-6)  # kept in 16 bits
    assert len({row.id for row in rows}) == len(rows) == len(OWNERS)
    assert [row.score for row in rows] == sorted((row.score for row in rows), reverse=True)
    names = ("ann", "bob", "cem")
    assert all(row.contributor == names[OWNERS[int(row.id[4:])]] for row in rows)


def test_a_stored_index_of_projected_rows_scores_contributors_by_their_sums(
    gradients: NDArray[np.float32], query: NDArray[np.float32], tmp_path: Path
) -> None:
    projected = np.stack([PROJECTION.apply(each) for each in gradients])
    vectors = projected_vectors(projected, OWNERS, 0.1)
    manifest = Manifest(
        adapter="weather@0123456789ab", dataset="weather@0123456789ab",
        base="tiny@0123456789ab", dimensions=D, damping=vectors.damping,
        projection=PROJECTION.shape, contributors=("ann", "bob", "cem"), rows=(3, 2, 4),
        examples=tuple(f"row-{row}" for row in range(ROWS)), contributor_of=tuple(OWNERS),
        method=PROJECTED_FISHER,
    )  # fmt: skip
    store = ArtifactStore(tmp_path)
    with store.build("indexes", "weather", {"made": "up"}) as folder:
        write_index(folder, manifest, vectors.contributors, vectors.examples)
    artifact = store.find("indexes", {"made": "up"})
    assert artifact is not None
    scores, rows = AdapterIndex.load(artifact).score(query)
    for who in ("ann", "bob", "cem"):
        own = sum(row.score for row in rows if row.contributor == who)
        assert scores[who] == pytest.approx(own, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("size", [1e-9, 1.0, 3e7])
def test_sixteen_bits_hold_vectors_of_any_size(size: float) -> None:
    vectors = (size * np.random.default_rng(1).normal(size=(5, D))).astype(np.float32)
    largest = np.abs(vectors).max() * scale_of(vectors)
    assert 2**13 < largest <= 2**14
    assert np.log2(scale_of(vectors)) % 1 == 0


def test_vectors_of_nothing_have_no_scale() -> None:
    assert scale_of(np.zeros((2, 3), dtype=np.float32)) == 1.0


def test_an_index_refuses_a_gradient_of_another_size(stored: Artifact) -> None:
    with pytest.raises(ArtifactError, match="for an index of 60"):
        AdapterIndex.load(stored).score(np.zeros(D + 1, dtype=np.float32))


def test_an_index_that_its_manifest_belies_is_refused(stored: Artifact) -> None:
    manifest = stored.path / "index.json"
    manifest.write_text(manifest.read_text().replace('"dimensions": 60', '"dimensions": 61'))
    with pytest.raises(ArtifactError, match="its manifest says"):
        AdapterIndex.load(stored)
    manifest.write_text("{}")
    with pytest.raises(ArtifactError, match="is no attribution index"):
        AdapterIndex.load(stored)
