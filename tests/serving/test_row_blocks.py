"""A row's bits do not depend on how many rows are multiplied with it, on this processor either.

In blocks a product is what it was, up to rounding, and so is its gradient; blocks are used where
measuring shows that they are needed, and nowhere else.
"""

import random
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from serving import row_blocks
from serving.gradients import completion_log_probabilities, row_gradients
from serving.lora import add_lora, lora_parts
from serving.recipes import LoraShape
from serving.row_blocks import BLOCK_ROWS, keep_rows_apart, rows_depend_on_company
from serving.rows import Row


@pytest.fixture
def in_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that needs blocks, for every size."""
    monkeypatch.setattr(row_blocks, "rows_depend_on_company", lambda *_: True)


@pytest.mark.usefixtures("in_need")
@pytest.mark.parametrize("rows", [1, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, 300])
def test_blocks_change_neither_a_product_nor_its_gradient(rows: int) -> None:
    torch.manual_seed(1)
    plain, x = nn.Linear(12, 20), torch.randn(1, rows, 12, requires_grad=True)
    expected = plain(x)
    (pulled,) = torch.autograd.grad(expected.square().sum(), x)
    keep_rows_apart(nn.Sequential(plain))
    found = plain(x)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), x)[0], pulled)


def test_only_what_needs_it_works_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.ModuleDict(
        {"narrow": nn.Linear(4, 4), "wide": nn.Linear(8, 8), "lm_head": nn.Linear(8, 9)}
    )
    monkeypatch.setattr(row_blocks, "rows_depend_on_company", lambda outputs, *_: outputs > 4)
    keep_rows_apart(model)
    assert ["forward" in vars(each) for each in model.values()] == [False, True, False]


def test_a_library_that_rounds_by_size_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = torch.nn.functional.linear

    def by_size(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return plain(x, w) + (1e-6 if len(x) > 150 else 0)

    assert not rows_depend_on_company(3, 5, torch.float64)
    monkeypatch.setattr(row_blocks, "linear", by_size)
    rows_depend_on_company.cache_clear()
    assert rows_depend_on_company(3, 5, torch.float64)
    rows_depend_on_company.cache_clear()


def one_real_layer() -> PeftModel:
    """Of the base model's own widths, in bfloat16, as it is served."""
    config = LlamaConfig(
        vocab_size=64, hidden_size=576, intermediate_size=1536, num_hidden_layers=1,
        num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=256,
    )  # fmt: skip
    torch.manual_seed(2)
    llama: Any = LlamaForCausalLM
    model = add_lora(llama(config).to(torch.bfloat16), LoraShape(rank=8, alpha=16))
    for part in lora_parts(model):
        nn.init.normal_(part.weights[1], std=0.05)
    return model


def test_an_answers_score_has_the_same_bits_alone_and_among_others() -> None:
    model, chance = one_real_layer(), random.Random(3)
    keep_rows_apart(model)
    beginning = tuple(range(24))
    rows = [
        Row(
            (*beginning, *chance.choices(range(64), k=width)),
            tuple(chance.choices(range(64), k=40)),
        )
        for width in (5, 17, 30, 44, 60, 21)
    ]
    together = row_gradients(model, rows)
    with torch.no_grad():
        base = completion_log_probabilities(model, rows, beginning)
    for place, row in enumerate(rows):
        alone = row_gradients(model, [row])
        assert torch.equal(alone.gradients[0], together.gradients[place])
        assert torch.equal(alone.log_probabilities[0], together.log_probabilities[place])
        with torch.no_grad():
            assert completion_log_probabilities(model, [row], beginning)[0] == base[place]
