"""LoRA adapters on the frozen base model: made, saved and loaded with PEFT, and seen as one vector.

An adapter's weights have one fixed order as a vector of D numbers: layer by layer as the model
defines them, in each layer A before B, each matrix row by row. Gradients use the same order.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from transformers import PreTrainedModel

from byline.canonical import Json
from serving.recipes import LoraShape

TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")
FIRST = "first"  # PEFT's name of the adapter that is being trained or measured alone


@dataclass(frozen=True, slots=True)
class LoraPart:
    """The two matrices of one adapted layer, as modules that hooks can watch."""

    a: torch.nn.Module
    b: torch.nn.Module

    @property
    def weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A [rank, inputs] and B [outputs, rank]."""
        a, b = self.a.weight, self.b.weight
        assert isinstance(a, torch.Tensor)
        assert isinstance(b, torch.Tensor)
        return a, b


def add_lora(base: PreTrainedModel, shape: LoraShape) -> PeftModel:
    """A fresh, trainable adapter in fp32 over the frozen base; the same for the same seed."""
    config = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=list(TARGET_MODULES),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(shape.seed)
        return get_peft_model(base, config, adapter_name=FIRST)


def save_lora(model: PeftModel, folder: Path, base_reference: str) -> None:
    """Write the adapter as PEFT does, but with the same bytes for the same weights.

    PEFT's own writer puts sets in no fixed order, and this machine's path as the base model's name.
    """
    weights = get_peft_model_state_dict(model, adapter_name=FIRST, save_embedding_layers=False)
    tensors = {name: weight.detach().contiguous() for name, weight in sorted(weights.items())}
    save_file(tensors, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
    config = model.peft_config[FIRST].to_dict()
    config["base_model_name_or_path"] = base_reference
    config["inference_mode"] = True
    plain: Mapping[str, Json] = {
        key: sorted(value) if isinstance(value, set) else value for key, value in config.items()
    }
    text = json.dumps(plain, indent=2, sort_keys=True) + "\n"
    (folder / "adapter_config.json").write_text(text)


def load_lora(model: PreTrainedModel | PeftModel, folder: Path, name: str = FIRST) -> PeftModel:
    """The saved adapter under `name`, on a base model or beside the adapters it has already."""
    if isinstance(model, PeftModel):
        model.load_adapter(str(folder), adapter_name=name, is_trainable=True)
        return model
    return PeftModel.from_pretrained(model, str(folder), adapter_name=name, is_trainable=True)


def use_adapter(model: PeftModel, name: str) -> None:
    """Make one adapter the active one, with gradients; the others keep still."""
    model.set_adapter(name)


def lora_parts(model: PeftModel) -> list[LoraPart]:
    """The active adapter's matrices in their fixed order."""
    name = model.active_adapter
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    return [LoraPart(layer.lora_A[name], layer.lora_B[name]) for layer in layers]


def lora_size(model: PeftModel) -> int:
    """D: how many weights the active adapter has."""
    return sum(weight.numel() for part in lora_parts(model) for weight in part.weights)


def flat_weights(model: PeftModel) -> torch.Tensor:
    """The active adapter as one vector of D numbers."""
    weights = [weight for part in lora_parts(model) for weight in part.weights]
    return torch.cat([weight.detach().flatten() for weight in weights])


def set_flat_weights(model: PeftModel, vector: torch.Tensor) -> None:
    """Give the active adapter the weights of a vector of D numbers."""
    start = 0
    with torch.no_grad():
        for part in lora_parts(model):
            for weight in part.weights:
                weight.copy_(vector[start : start + weight.numel()].view_as(weight))
                start += weight.numel()


def saved_vector(model: PeftModel, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """A saved adapter's tensors, by their names in the file, as one vector of D numbers."""
    by_weight = get_peft_model_state_dict(
        model, adapter_name=model.active_adapter, save_embedding_layers=False
    )
    places = {weight.data_ptr(): name for name, weight in by_weight.items()}
    weights = [weight for part in lora_parts(model) for weight in part.weights]
    return torch.cat([tensors[places[weight.data_ptr()]].flatten() for weight in weights])
