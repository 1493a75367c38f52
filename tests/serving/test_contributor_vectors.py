"""Theorems about contributor vectors.

Fisher by the Gram matrix is the direct inverse; DataInf is exact for one row; methods that are sums
over rows stay sums when a contributor is split; the tangent is the leave-one-out effect of a linear
model; and regression finds weights that really are sums of contributors' parts.
"""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from peft import PeftModel

from serving.counterfactuals.vectors import (
    METHODS,
    Block,
    Material,
    blocks_of,
    datainf_vectors,
    fisher_vectors,
    gradient_sums,
    regression_vectors,
    scores,
    tangent_vectors,
)
from serving.lora import lora_parts, lora_size

D, ROWS, PEOPLE = 30, 7, 3
BLOCKS = (Block(0, 12, is_b=False), Block(12, D, is_b=True))


@pytest.fixture
def material() -> Material:
    random = torch.Generator().manual_seed(4)
    full = torch.randn(D, generator=random)
    return Material(
        gradients=torch.randn(ROWS, D, generator=random),
        contributor_of=(0, 0, 1, 2, 1, 2, 2),
        blocks=BLOCKS,
        full=full,
        without=full - torch.randn(PEOPLE, D, generator=random),
        coalitions=torch.randn(6, D, generator=random),
        membership=torch.randint(0, 2, (6, PEOPLE), generator=random),
    )


@pytest.fixture
def queries() -> torch.Tensor:
    return torch.randn(5, D, generator=torch.Generator().manual_seed(5))


def test_fisher_by_the_gram_matrix_is_the_direct_inverse(
    material: Material, queries: torch.Tensor
) -> None:
    rows = material.gradients.double()
    fisher = rows.T @ rows / ROWS
    damping = 0.1 * (rows**2).sum() / ROWS**2
    sums = torch.stack([rows[[0, 1]].sum(0), rows[[2, 4]].sum(0), rows[[3, 5, 6]].sum(0)])
    direct = queries.double() @ torch.linalg.inv(fisher + damping * torch.eye(D)) @ sums.T / ROWS
    found = scores(queries, fisher_vectors(material, 0.1))
    torch.testing.assert_close(found, direct, rtol=1e-4, atol=1e-5)


def test_datainf_is_exact_for_one_row(material: Material) -> None:
    one = replace(material, gradients=material.gradients[:1], contributor_of=(0,))
    row = one.gradients[0].double()
    expected = []
    for block in BLOCKS:
        part = row[block.start : block.end]
        damping = 0.5 * (part**2).sum() / len(part)
        inverse = torch.linalg.inv(torch.outer(part, part) + damping * torch.eye(len(part)))
        expected.append(inverse @ part)
    found = datainf_vectors(one, 0.5)[0]
    torch.testing.assert_close(found.double(), torch.cat(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "name", [name for name in METHODS if not name.startswith(("tangent", "coalition"))]
)
def test_a_split_contributors_scores_add_up_and_nobody_elses_change(
    name: str, material: Material, queries: torch.Tensor
) -> None:
    whole = scores(queries, METHODS[name](material))
    split = replace(material, contributor_of=(0, 3, 1, 2, 1, 2, 2))
    parts = scores(queries, METHODS[name](split))
    scale = whole.abs().max().item()
    torch.testing.assert_close(parts[:, 0] + parts[:, 3], whole[:, 0], rtol=1e-4, atol=1e-5 * scale)
    torch.testing.assert_close(parts[:, 1:3], whole[:, 1:], rtol=1e-4, atol=1e-5 * scale)


def test_the_order_of_rows_changes_no_score(material: Material, queries: torch.Tensor) -> None:
    order = [3, 0, 6, 1, 5, 2, 4]
    shuffled = replace(
        material,
        gradients=material.gradients[order],
        contributor_of=tuple(material.contributor_of[place] for place in order),
    )
    for name, method in METHODS.items():
        found, again = scores(queries, method(material)), scores(queries, method(shuffled))
        torch.testing.assert_close(
            found, again, rtol=1e-4, atol=1e-5 * found.abs().max().item(), msg=name
        )


def test_the_tangent_is_leaving_one_out_of_a_linear_model(
    material: Material, queries: torch.Tensor
) -> None:
    """Where log-probability is <g, theta>, score and effect are the same number."""
    effects = queries @ material.full[:, None] - queries @ material.without.T
    found = scores(queries, tangent_vectors(material))
    torch.testing.assert_close(found, effects.double(), rtol=1e-4, atol=1e-4)


def test_of_b_alone_nothing_of_a_is_left(material: Material) -> None:
    found = tangent_vectors(material, only_b=True)
    whole = tangent_vectors(material)
    assert found[:, :12].abs().max() == 0
    assert torch.equal(found[:, 12:], whole[:, 12:])
    assert whole[:, :12].abs().min() > 0


def test_regression_finds_the_parts_that_weights_are_sums_of(material: Material) -> None:
    members = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    parts = gradient_sums(material)
    made = replace(material, membership=members, coalitions=5 + members.float() @ parts)
    torch.testing.assert_close(regression_vectors(made, 1e-9), parts, rtol=1e-3, atol=1e-4)


def test_blocks_cover_the_vector_a_before_b(adapter: PeftModel) -> None:
    blocks = blocks_of(adapter)
    assert [block.is_b for block in blocks[:4]] == [False, True, False, True]
    assert blocks[0].start == 0
    assert blocks[-1].end == lora_size(adapter)
    assert all(left.end == right.start for left, right in pairwise(blocks))
    assert blocks[1].end - blocks[1].start == lora_parts(adapter)[0].weights[1].numel()
