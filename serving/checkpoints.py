"""Checkpoints: reads and writes model weights and tokenizers. Knows nothing of attribution."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write a Llama GGUF file as bfloat16 safetensors with tokenizer and chat template.

    The weights move to a fresh model: the loaded one remembers that it was quantised, and would be
    saved as such.
    """
    # `local_files_only` is said, not left to the environment: the tokenizer's file repeats it, and
    # the same recipe must give the same bytes.
    tokenizer = AutoTokenizer.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, local_files_only=True
    )
    if not tokenizer.chat_template:
        raise ValueError(f"{gguf} has no chat template")
    loaded = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, local_files_only=True
    )
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.bfloat16
    fresh: Any = LlamaForCausalLM
    model = fresh(config).to(torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def load_base_model(folder: Path, *, dtype: torch.dtype = torch.bfloat16) -> PreTrainedModel:
    """The frozen base model of a `base` artifact."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=dtype, local_files_only=True
    )
    model.requires_grad_(False)
    model.config.use_cache = False
    model.train(mode=False)
    return model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a `base` artifact."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        str(folder), local_files_only=True
    )
    return tokenizer
