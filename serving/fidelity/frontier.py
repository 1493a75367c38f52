"""What cheaper vectors keep of fidelity: parts of the weights, fewer bits or numbers.

A method's cost at pay time is the length of its vectors: what is kept for each contributor, and
what an inner product reads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from byline.fidelity.readings import FRONTIER
from serving.counterfactuals.vectors import Block, Material, fisher_vectors, scores
from serving.projection import Projection, ProjectionShape
from serving.recipes import IndexSettings

PROJECTIONS = (65_536, 16_384, 4_096)


def cheaper_scores(
    queries: torch.Tensor, vectors: torch.Tensor, blocks: Sequence[Block]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Name (with the bytes a contributor) and scores [A, C] of each cheaper form of `vectors`.

    `queries` [A, D] and `vectors` [C, D] in single precision.
    """
    for name, kept in _parts(blocks).items():
        columns = torch.cat([torch.arange(block.start, block.end) for block in kept])
        yield _named(name, 4 * len(columns)), scores(queries[:, columns], vectors[:, columns])
    halves = vectors.half().float()
    yield _named("all, in 16 bits", 2 * vectors.shape[1]), scores(queries, halves)
    for size in PROJECTIONS:
        short = projected(size, queries, vectors)
        yield _named(f"projected to {size:,} numbers", 4 * size), scores(short[0], short[1])


def projected_fisher_scores(
    queries: torch.Tensor, material: Material
) -> Iterator[tuple[str, torch.Tensor]]:
    """The same of damped Fisher made of projected gradients: what rows too many for a Gram matrix
    over whole gradients are scored by.
    """
    for size in PROJECTIONS:
        of_answers, of_rows = projected(size, queries, material.gradients)
        vectors = fisher_vectors(
            replace(material, gradients=of_rows), damping_factor=IndexSettings().damping
        )
        name = f"damped Fisher of gradients projected to {size:,} numbers"
        yield _named(name, 4 * size), scores(of_answers, vectors)


def projected(size: int, *lines: torch.Tensor) -> list[torch.Tensor]:
    """Each [_, D] as [_, size], by the projection that an index has."""
    settings = IndexSettings()
    projection = Projection(
        ProjectionShape(
            lines[0].shape[1], size, settings.projection_nonzeros, settings.projection_seed
        )
    )
    return [
        torch.stack([torch.from_numpy(projection.apply(line.numpy())) for line in each])
        for each in lines
    ]


def _parts(blocks: Sequence[Block]) -> dict[str, list[Block]]:
    third = len(blocks) // 6 * 2  # whole layers: A and B
    return {
        "all": list(blocks),
        "B alone": [block for block in blocks if block.is_b],
        "A alone": [block for block in blocks if not block.is_b],
        "first third of the layers": list(blocks[:third]),
        "middle third of the layers": list(blocks[third : 2 * third]),
        "last third of the layers": list(blocks[2 * third :]),
    }


def _named(name: str, size: int) -> str:
    return f"{FRONTIER}/{name}/{size}"
