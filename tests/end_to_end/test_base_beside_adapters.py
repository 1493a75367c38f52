"""The base model's answers are its own, also where every slot of a batch is an adapter's.

vLLM's CPU arithmetic takes "no adapter" for the last slot; see `serving.cpu_engine`. First the
arithmetic alone, then the engine as it serves: with a fourth adapter all four slots are taken.
"""

import asyncio
import json
from typing import Any

import httpx
import pytest
import torch

from tests.end_to_end.conftest import Running

FOURTH = "audit-fourth"  # no client can ask for such a name
PROMPTS = [f"What is the finding number {number}?" for number in range(8)]


def deltas(wrapper: Any) -> torch.Tensor:
    """What two adapters in two slots add to three tokens; the first is the base model's."""
    from vllm.lora.layers import LoRAMapping

    wrapper.update_metadata(LoRAMapping((0, 7, 8), (0, 7, 8), is_prefill=True), [7, 8], 2, 16)
    a = torch.stack([torch.full((1, 2, 4), 1.0), torch.full((1, 2, 4), 2.0)])
    b = torch.stack([torch.full((1, 4, 2), 1.0), torch.full((1, 4, 2), 3.0)])
    added = torch.zeros(3, 4)
    wrapper.add_lora_linear(added, torch.ones(3, 4), (a,), (b,), 1.0, (4,))
    return added[:, 0]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_token_without_an_adapter_gets_nothing_of_the_last_slots() -> None:
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    from serving.cpu_engine import LoraArithmetic

    ours = deltas(LoraArithmetic(8, 8, "cpu"))
    assert ours.tolist() == [0.0, 8.0, 48.0]
    theirs = deltas(PunicaWrapperCPU(8, 8, "cpu"))
    assert theirs.tolist() in ([48.0, 8.0, 48.0], [0.0, 8.0, 48.0])  # as it was; mended by vLLM


async def first_token(client: httpx.AsyncClient, model: str, prompt: str) -> tuple[str, float]:
    body = {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": 1}
    answer = await client.post("/v1/completions", json=body)
    found = answer.raise_for_status().json()["choices"][0]["logprobs"]
    return found["tokens"][0], found["token_logprobs"][0]


async def beside_adapters(
    client: httpx.AsyncClient, base: str, adapters: list[str]
) -> list[tuple[str, float]]:
    """The base model's answers while each adapter is making a long one."""

    async def long(model: str) -> None:
        body = {"model": model, "prompt": "Tell me more.", "max_tokens": 96, "ignore_eos": True}
        (await client.post("/v1/completions", json=body)).raise_for_status()

    others = [asyncio.create_task(long(model)) for model in adapters]
    await asyncio.sleep(0.5)  # they are being made
    found = await asyncio.gather(*(first_token(client, base, prompt) for prompt in PROMPTS))
    assert not all(other.done() for other in others)
    await asyncio.gather(*others)
    return found


@pytest.mark.engine
@pytest.mark.slow
async def test_the_base_model_answers_beside_adapters_as_it_does_alone(running: Running) -> None:
    fields = json.loads((running.home / "release.json").read_text())
    base, adapters = fields["base_model"], fields["adapters"]
    folder = (running.home / "artifacts" / adapters[0]["path"]).resolve()
    async with httpx.AsyncClient(base_url=running.engine_url, timeout=120) as client:
        alone = [await first_token(client, base, prompt) for prompt in PROMPTS]
        load = {"lora_name": FOURTH, "lora_path": str(folder)}
        (await client.post("/v1/load_lora_adapter", json=load)).raise_for_status()
        try:
            models = [*(adapter["version"] for adapter in adapters), FOURTH]
            beside = await beside_adapters(client, base, models)
        finally:
            await client.post("/v1/unload_lora_adapter", json={"lora_name": FOURTH})
    for (token, of_it), (other, of_other) in zip(alone, beside, strict=True):
        assert of_it == pytest.approx(of_other, abs=0.2), (token, other)  # or a tie in bfloat16
