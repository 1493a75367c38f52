"""Who is left out together: contributors who teach alike, where a run for each would be too many.

Likes go together since what is lost without one of two likes says little: the other stands in for
it. Without both it shows, and inside a group row scores tell them apart. Contributors are compared
by the sums of their rows' gradients at the served adapter, projected, by spherical k-means.
"""

from collections import Counter
from collections.abc import Sequence

import faiss
import numpy as np
from numpy.typing import NDArray

from byline.artifacts import Artifact
from byline.auditing.groups import Groups
from byline.records import Example
from serving.checkpoints import load_base_model, load_tokenizer
from serving.gradients import row_gradients
from serving.lora import load_lora, lora_size
from serving.progress import Report
from serving.projection import Projection, ProjectionShape
from serving.recipes import IndexSettings
from serving.rows import encode

NUMBERS = 4_096  # of a projected gradient
ROUNDS = 25
BEGINNINGS = 10  # of which the best is taken
SEED = 17


def grouped(
    base: Artifact, adapter: Artifact, rows: Sequence[Example], wanted: int, report: Report
) -> Groups:
    """At most `wanted` groups of the rows' contributors, named in the order of their members."""
    settings = IndexSettings()
    model = load_lora(load_base_model(base.path), adapter.path)
    shape = ProjectionShape(
        lora_size(model), NUMBERS, settings.projection_nonzeros, settings.projection_seed
    )
    projection = Projection(shape)
    counts = Counter(row.contributor for row in rows)
    names = sorted(counts)
    sums = np.zeros((len(names), NUMBERS), dtype=np.float32)
    for place, (row, given) in enumerate(
        zip(encode(load_tokenizer(base.path), rows), rows, strict=True)
    ):
        gradient = row_gradients(model, [row]).gradients[0].numpy()
        sums[names.index(given.contributor)] += projection.apply(gradient)
        report("gradients", place + 1, len(rows))
    return named(names, clusters(sums, wanted), counts)


def clusters(vectors: NDArray[np.float32], wanted: int) -> list[int]:
    """Each vector's cluster, of at most `wanted`; the same for the same vectors."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = np.ascontiguousarray(vectors / np.maximum(lengths, 1e-30))
    means = faiss.Kmeans(
        directions.shape[1], min(wanted, len(directions)), niter=ROUNDS, seed=SEED, spherical=True,
        nredo=BEGINNINGS, min_points_per_centroid=1, verbose=False,
    )  # fmt: skip
    means.train(directions)
    _, places = means.index.search(directions, 1)
    found: list[int] = places[:, 0].tolist()
    return found


def named(names: Sequence[str], places: Sequence[int], counts: Counter[str]) -> Groups:
    """Groups by number, first by whose first member's name is first; none is empty."""
    order = {place: number for number, place in enumerate(dict.fromkeys(places))}
    width = len(str(len(order) - 1))
    groups: dict[str, dict[str, int]] = {}
    for name, place in zip(names, places, strict=True):
        groups.setdefault(f"group-{order[place]:0{width}}", {})[name] = counts[name]
    return groups
