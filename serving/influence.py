"""An adapter's attribution index: every contributor's exact score of a query, and rows to show.

    contributors.faiss  one vector of D numbers a contributor, in the manifest's order, 16 bits each
    examples.faiss      one projected vector of k numbers a training row
    index.json          who and what those are, and how they were made

What contributors' vectors are says the manifest's `method`: `damped_fisher` (`serving.fisher`), or
`tangent`, the mean over training orders of the weights with everybody minus those without the
contributor (`serving.counterfactuals`). A contributor's score is an inner product of its own; it is
never added up from the examples, whose projected scores are estimates, always by `damped_fisher`.
Or, of more rows than a Gram matrix of whole gradients has room for, `projected_fisher`: then the
contributors' vectors have k numbers, too, and are their rows' sums.
Contributors' vectors are kept whole, in 16 bits, times a power of two that uses their range: half
the bytes and half the time of 32, at no loss of fidelity (docs/results.md).

The examples' scores choose what to show, and contributors claim pay by them (`byline.attribution`):
each row by itself, whoever owns it; with `tangent` they say how a contributor's rows differ. Where
rows are too many to look at all, those beyond the shortlist claim nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from byline.artifacts import Artifact
from byline.errors import ArtifactError
from byline.records import ExampleInfluence
from serving.example_index import nearest, new_example_index
from serving.projection import Projection, ProjectionShape

MANIFEST = "index.json"
CONTRIBUTORS = "contributors.faiss"
EXAMPLES = "examples.faiss"
DAMPED_FISHER = "damped_fisher"  # what an attribution's record calls the scores
PROJECTED_FISHER = "projected_fisher"  # the same made of projected gradients
TANGENT = "tangent"
DTYPE = "float16"
ROWS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index holds and how it was made. Orders are the orders of the vectors."""

    adapter: str  # artifact references
    dataset: str
    base: str
    dimensions: int  # D
    damping: float  # lambda, absolute
    projection: ProjectionShape
    contributors: tuple[str, ...]
    rows: tuple[int, ...]  # one a contributor
    examples: tuple[str, ...]
    contributor_of: tuple[int, ...]  # one an example: its place in `contributors`
    method: str = DAMPED_FISHER  # of the contributors' vectors
    reliability_ppb: int | None = None  # of their scores under other training orders, if measured
    # Each contributor's group, by place in `groups`; () where each has a vector of its own.
    group_of: tuple[int, ...] = ()
    groups: tuple[str, ...] = ()
    dtype: str = "float32"  # of the contributors' stored vectors
    scale: float = 1.0  # of those, too: a power of two

    @property
    def units(self) -> tuple[str, ...]:
        """Who has a vector, in their order: contributors, or groups of them."""
        return self.groups or self.contributors


def write_index(
    folder: Path,
    manifest: Manifest,
    contributor_vectors: NDArray[np.float32],
    example_vectors: NDArray[np.float32],
) -> None:
    """Write an index's three files."""
    scale = scale_of(contributor_vectors)
    manifest = replace(manifest, dtype=DTYPE, scale=scale)
    contributors = faiss.IndexScalarQuantizer(
        contributor_vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    for vector in contributor_vectors:
        contributors.add((vector * np.float32(scale))[None])
    faiss.write_index(contributors, str(folder / CONTRIBUTORS))
    examples = new_example_index(example_vectors, len(example_vectors))
    for first in range(0, len(example_vectors), ROWS_AT_ONCE):  # they may lie on disk
        examples.add(np.ascontiguousarray(example_vectors[first : first + ROWS_AT_ONCE]))
    faiss.write_index(examples, str(folder / EXAMPLES))
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n")


def scale_of(vectors: NDArray[np.float32]) -> float:
    """The power of two that brings the largest number of `vectors` near, and not above, 2^14.

    16 bits reach from 2^-24 to 2^16; what is smaller than 2^-38 of the largest becomes zero.
    """
    largest = float(np.abs(vectors).max(initial=0.0))
    if not largest or not np.isfinite(largest):
        return 1.0
    return 2.0 ** (14 - int(np.ceil(np.log2(largest))))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an index. Raises ArtifactError if it is none."""
    try:
        fields = json.loads((folder / MANIFEST).read_text())
        shape = ProjectionShape(**fields.pop("projection"))
        lists = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
        return Manifest(projection=shape, **{**fields, **lists})
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise ArtifactError(f"{folder.name} is no attribution index: {problem}") from problem


class AdapterIndex:
    """The index of one adapter version, in memory."""

    def __init__(
        self,
        manifest: Manifest,
        contributors: Any,  # noqa: ANN401 - FAISS has no types
        examples: Any,  # noqa: ANN401
        projection: Projection,
    ) -> None:
        self.manifest = manifest
        self._contributors = contributors
        self._examples = examples
        self._projection = projection
        self.group_of = {  # contributor -> its group; empty where there are none
            who: manifest.groups[place]
            for who, place in zip(manifest.contributors, manifest.group_of, strict=False)
        }

    @classmethod
    def load(cls, artifact: Artifact, projections: Sequence[Projection] = ()) -> "AdapterIndex":
        """The index in an artifact; shares a projection that another index has made already."""
        manifest = read_manifest(artifact.path)
        same = [given for given in projections if given.shape == manifest.projection]
        projection = same[0] if same else Projection(manifest.projection)
        contributors = faiss.read_index(str(artifact.path / CONTRIBUTORS))
        examples = faiss.read_index(str(artifact.path / EXAMPLES))
        sizes = (contributors.ntotal, contributors.d, examples.ntotal, examples.d)
        is_short = manifest.method == PROJECTED_FISHER
        stated = (
            len(manifest.units),
            manifest.projection.outputs if is_short else manifest.dimensions,
            len(manifest.examples), manifest.projection.outputs,
        )  # fmt: skip
        if sizes != stated:
            raise ArtifactError(
                f"{artifact.reference} holds {sizes} and its manifest says {stated}"
            )
        return cls(manifest, contributors, examples, projection)

    @property
    def projection(self) -> Projection:
        """The projection, to share with other indexes."""
        return self._projection

    def score(
        self, gradient: NDArray[np.float32]
    ) -> tuple[Mapping[str, float], list[ExampleInfluence]]:
        """Every contributor's score, or group's, and every row's that is looked at, best first.

        `gradient` is that of the answer's summed log-probability, in the adapter's fixed order.
        """
        if gradient.shape != (self.manifest.dimensions,):
            raise ArtifactError(
                f"a gradient of {gradient.shape} numbers for an index of {self.manifest.dimensions}"
            )
        query = self._projection.apply(gradient)
        is_short = self.manifest.method == PROJECTED_FISHER
        asked = (query if is_short else gradient)[None]
        units = self.manifest.units
        scores, places = self._contributors.search(asked, len(units))
        totals = {
            units[place]: float(score) / self.manifest.scale
            for score, place in zip(scores[0], places[0], strict=True)
        }
        products, rows = nearest(self._examples, query, len(self.manifest.examples))
        return totals, [
            self._example(place, product)
            for product, place in zip(products.tolist(), rows.tolist(), strict=True)
        ]

    def _example(self, place: int, score: float) -> ExampleInfluence:
        contributor = self.manifest.contributors[self.manifest.contributor_of[place]]
        return ExampleInfluence(self.manifest.examples[place], contributor, score)
