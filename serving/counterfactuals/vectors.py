"""Contributor vectors: v_c in R^D such that <g, v_c> is contributor c's score of an answer.

g is the gradient of the answer's log-probability on the adapter's weights. All methods have one
form, Material -> [C, D], so that one adapter can be served by whichever is worth its cost:

    gradient      sum of the contributor's rows' gradients g_i                     no retraining
    cosine        the same of g_i / |g_i|
    fisher        (F + lambda I)^-1 of the sum, exact; see `serving.fisher`
    datainf       the same layer by layer, with the inverses' mean for the mean's inverse
                  (Kwon et al., https://arxiv.org/abs/2310.00902)
    regression    theta_S ~ theta_0 + sum of phi_c over S, over trained coalitions
    tangent       theta - theta without c: what the contributor did to the weights   C retrainings

A and B of one LoRA layer may be rescaled against each other, so weights of unlike runs can't be
averaged; these runs share their start and order, which fixes that gauge.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from peft import PeftModel

from byline.auditing.plan import Order
from serving.fisher import column_blocks, combine, damping_of, gram, solve_weights
from serving.lora import lora_parts
from serving.recipes import IndexSettings


@dataclass(frozen=True, slots=True)
class Block:
    """One matrix's columns in a vector of D numbers."""

    start: int
    end: int
    is_b: bool


@dataclass(frozen=True, slots=True)
class Material:
    """All that a contributor vector may be made of."""

    gradients: torch.Tensor  # [n, D] of the rows' log-probabilities at `full`
    contributor_of: tuple[int, ...]  # [n]
    blocks: tuple[Block, ...]
    full: torch.Tensor  # [D]
    without: torch.Tensor  # [C, D]
    coalitions: torch.Tensor  # [S, D], for fitting; none that is tested on
    membership: torch.Tensor  # [S, C]

    @property
    def one_hot(self) -> torch.Tensor:
        """[n, C]: whose row is whose."""
        return torch.nn.functional.one_hot(torch.tensor(self.contributor_of)).double()


VectorMethod: TypeAlias = Callable[[Material], torch.Tensor]


def blocks_of(model: PeftModel) -> tuple[Block, ...]:
    """The matrices of the active adapter, in their order: A and B of each layer."""
    sizes = [weight.numel() for part in lora_parts(model) for weight in part.weights]
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return tuple(
        Block(end - size, end, is_b=place % 2 == 1)
        for place, (size, end) in enumerate(zip(sizes, ends, strict=True))
    )


def gradient_sums(material: Material) -> torch.Tensor:
    """The sum of each contributor's rows' gradients, [C, D]."""
    return combine(material.gradients, material.one_hot)


def cosine_sums(material: Material) -> torch.Tensor:
    """The sum of each contributor's rows' gradients of length 1, [C, D]."""
    norms = material.gradients.norm(dim=1).double().clamp(min=1e-30)
    return combine(material.gradients, material.one_hot / norms[:, None])


def fisher_vectors(material: Material, damping_factor: float) -> torch.Tensor:
    """Exact damped inverse Fisher by the Gram matrix, [C, D]."""
    kernel = gram(material.gradients)
    weights = solve_weights(kernel, damping_of(kernel, damping_factor))
    return combine(material.gradients, weights @ material.one_hot)


def datainf_vectors(material: Material, damping_factor: float) -> torch.Tensor:
    """DataInf's closed form, matrix by matrix, [C, D]; lambda as in the paper.

    (1 / lambda) (G - mean over i of <g_i, G> g_i / (lambda + |g_i|^2)), where lambda is
    `damping_factor` times the mean square of a gradient's coordinate.
    """
    sums = gradient_sums(material)
    made = []
    for block in material.blocks:
        rows = material.gradients[:, block.start : block.end].double()
        target = sums[:, block.start : block.end].double()
        squares = (rows**2).sum(dim=1)
        damping = (damping_factor * squares.mean() / rows.shape[1]).clamp(min=1e-30)
        along = (target @ rows.T) / (damping + squares)
        made.append(((target - along @ rows / len(rows)) / damping).float())
    return torch.cat(made, dim=1)


def tangent_vectors(material: Material, *, only_b: bool = False) -> torch.Tensor:
    """Weights with everybody minus weights without each contributor, [C, D]."""
    moved = material.full - material.without
    if only_b:
        for block in material.blocks:
            if not block.is_b:
                moved[:, block.start : block.end] = 0
    return moved


def tangents_of(
    orders: Sequence[Order], contributors: Sequence[str], weights: Callable[[str], torch.Tensor]
) -> Iterator[torch.Tensor]:
    """Of each training order, every contributor's tangent, [C, D]; `weights` reads a run's [D].

    Differenced inside the order: two full runs of different orders differ by as much as an effect.
    """
    for order in orders:
        full = weights(order.everybody)
        yield torch.stack([full - weights(order.without[who]) for who in contributors])


def regression_vectors(material: Material, ridge: float) -> torch.Tensor:
    """Each contributor's part of the weights, fitted to trained coalitions, [C, D]."""
    members = material.membership.double()
    members = members - members.mean(dim=0)
    square = members.T @ members + ridge * torch.eye(members.shape[1], dtype=torch.float64)
    moved = material.coalitions - material.coalitions.mean(dim=0)
    return combine(moved, members @ torch.linalg.inv(square))


METHODS: Mapping[str, VectorMethod] = {
    "gradient dot/plain": gradient_sums,
    "gradient cosine/plain": cosine_sums,
    **{
        f"damped fisher/lambda {factor}": partial(fisher_vectors, damping_factor=factor)
        for factor in (0.001, 0.01, 0.1, 1.0, 10.0)
    },
    **{
        f"datainf/lambda {factor}": partial(datainf_vectors, damping_factor=factor)
        for factor in (0.1, 10.0, 1_000.0, 100_000.0)
    },
    **{
        f"coalition regression/ridge {ridge}": partial(regression_vectors, ridge=ridge)
        for ridge in (0.1, 1.0, 10.0)
    },
    "tangent/all": tangent_vectors,
    "tangent/B alone": partial(tangent_vectors, only_b=True),
}
"""Method and variant -> how its vectors are made. Variants are chosen on the tuning split."""


def scores(queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Every contributor's score of every answer, [A, C]: inner products, in double precision."""
    total = torch.zeros(len(queries), len(vectors), dtype=torch.float64)
    for left, right in zip(column_blocks(queries), column_blocks(vectors), strict=True):
        total += left.double() @ right.double().T
    return total


def row_scores(of_answers: torch.Tensor, of_rows: torch.Tensor) -> torch.Tensor:
    """Every row's score of every answer, [A, n], by the method that serves, in double precision.

    <g_q, v_i> with v_i of `serving.fisher` and the index's damping. The method is additive: their
    sums by contributor are what the index would answer.
    """
    kernel = gram(of_rows)
    weights = solve_weights(kernel, damping_of(kernel, IndexSettings().damping))
    return scores(of_answers, of_rows) @ weights


def smoothness(
    full: torch.Tensor, half: torch.Tensor, without: torch.Tensor
) -> tuple[float, float]:
    """How alike the two halves of one contributor's effect on the weights are.

    Answers their cosine, and their sign agreement weighted by the first half's size (Engstrom et
    al., https://arxiv.org/abs/2503.13751, 4.1), from -1 to 1; 1 where training is linear in the
    weight.
    """
    first, second = (full - half).double(), (half - without).double()
    cosine = torch.nn.functional.cosine_similarity(first, second, dim=0).item()
    weights = first.abs() / first.abs().sum().clamp(min=1e-30)
    return cosine, (weights * first.sign() * second.sign()).sum().item()
