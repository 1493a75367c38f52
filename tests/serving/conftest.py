"""A Llama small enough to check by brute force, and a home folder with everything made from it."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from serving.fine_tuning import be_deterministic
from serving.lora import add_lora, lora_parts
from serving.recipes import LoraShape
from serving.rows import Row
from tests.serving.tiny import VOCABULARY, TinyHome, make_home


def tiny_llama(seed: int = 5) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    torch.manual_seed(seed)
    llama: Any = LlamaForCausalLM
    model: PreTrainedModel = llama(config)
    model.requires_grad_(requires_grad=False)
    return model


@pytest.fixture(autouse=True)
def deterministic() -> None:
    be_deterministic(1)


@pytest.fixture
def make_adapter() -> Callable[[], PeftModel]:
    """An adapter whose B is not zero, so that every gradient has something to say."""

    def make() -> PeftModel:
        model = add_lora(tiny_llama(), LoraShape(rank=2, alpha=4))
        torch.manual_seed(6)
        for part in lora_parts(model):
            torch.nn.init.normal_(part.weights[1], std=0.2)
        return model

    return make


@pytest.fixture
def adapter(make_adapter: Callable[[], PeftModel]) -> PeftModel:
    return make_adapter()


@pytest.fixture
def rows() -> list[Row]:
    """Rows of different lengths that begin alike, as a chat template makes them."""
    chance = random.Random(7)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(chance.randrange(VOCABULARY) for _ in range(count))

    system = tokens(5)
    return [
        Row(system + tokens(chance.randrange(1, 9)), tokens(chance.randrange(1, 12)))
        for _ in range(11)
    ]


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> TinyHome:
    """Base model, dataset, adapter and index in a home folder, made by the programs' own code."""
    root: Path = tmp_path_factory.mktemp("home")
    return make_home(root, tiny_llama())
