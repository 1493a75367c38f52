"""Scores served token ids under several adapters by the engine's `prompt_logprobs`.

Counterfactual adapters are loaded beside the production ones, under names that no client can ask
for: the gateway looks every name up in its release. Audits are to cost nobody a token: a batch
waits while the engine has other work, for a bounded time, and is small.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from byline.errors import ArtifactError, EngineRefused, EngineUnavailable
from byline.records import ServedTokens
from serving.counterfactuals.run_files import unchanged_weights

PREFIX = "audit-"  # of the engine's names for counterfactual adapters: no version begins with it
BUSY = re.compile(r"^vllm:num_requests_(?:running|waiting)\{[^}]*\} ([0-9.e+]+)", re.MULTILINE)
LOOK_SECONDS = 0.05
READINGS_NATS_MAX = 0.5  # two readings of one answer: above what bfloat16 makes of other company
READ_SECONDS = 120.0  # the first `prompt_logprobs` request may compile


class EngineScoring:
    """One engine, asked for log-probabilities. Raises EngineUnavailable, EngineRefused."""

    def __init__(
        self, client: httpx.AsyncClient, *, at_once: int = 4, idle_wait_seconds: float = 30.0
    ) -> None:
        self._client = client
        self._at_once = at_once
        self._idle_wait_seconds = idle_wait_seconds

    async def log_probabilities(
        self, served: ServedTokens, ordinal: int, models: Sequence[str]
    ) -> list[float]:
        """The summed log-probability, in nats, of one choice's tokens under each model.

        Each is read twice, in the other order and so in other company, and the mean is answered.
        EngineRefused where two readings differ: 2 times of 98, vLLM on a CPU scored the base
        model like the adapter that was in the same batch.
        """
        first = await self._read(served, ordinal, models)
        again = (await self._read(served, ordinal, models[::-1]))[::-1]
        for model, one, other in zip(models, first, again, strict=True):
            if abs(one - other) > READINGS_NATS_MAX:
                raise EngineRefused(
                    f"the engine scored {model} once {one} and once {other} nats", status=200
                )
        return [(one + other) / 2 for one, other in zip(first, again, strict=True)]

    async def _read(self, served: ServedTokens, ordinal: int, models: Sequence[str]) -> list[float]:
        found: list[float] = []
        for start in range(0, len(models), self._at_once):
            await self._idle()
            some = models[start : start + self._at_once]
            found += await asyncio.gather(*(self._scored(served, ordinal, each) for each in some))
        return found

    async def load(self, name: str, folder: Path) -> None:
        """Load an adapter; one that is there already is fine. Refused if its bytes have changed."""
        try:
            await asyncio.to_thread(unchanged_weights, folder)
        except (OSError, ArtifactError) as problem:
            # Like an engine that refuses: the audit comes again once the run is trained anew.
            raise EngineRefused(f"{name} is not to be loaded: {problem}", status=409) from problem
        body = {"lora_name": name, "lora_path": str(folder.absolute())}
        answer = await self._post("/v1/load_lora_adapter", body)
        if answer.status_code != 200 and "already been loaded" not in answer.text:
            raise EngineRefused(
                f"the engine did not load {name}: {answer.text[:200]}", status=answer.status_code
            )

    async def unload(self, name: str) -> None:
        """Unload an adapter; one that is not there is fine."""
        answer = await self._post("/v1/unload_lora_adapter", {"lora_name": name})
        if answer.status_code not in (200, 404):
            raise EngineRefused(
                f"the engine did not unload {name}: {answer.text[:200]}", status=answer.status_code
            )

    async def loaded(self) -> list[str]:
        """The counterfactual adapters that are loaded."""
        try:
            answer = await self._client.get("/v1/models")
            names = [str(model["id"]) for model in answer.raise_for_status().json()["data"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as problem:
            raise EngineUnavailable(f"the engine's models: {problem!r}") from problem
        return [name for name in names if name.startswith(PREFIX)]

    async def _idle(self) -> None:
        """Wait until the engine has nothing else to do, or has been busy for too long."""
        until = time.monotonic() + self._idle_wait_seconds
        while time.monotonic() < until:
            try:
                text = (await self._client.get("/metrics")).text
            except httpx.HTTPError as problem:
                raise EngineUnavailable(f"the engine's metrics: {problem!r}") from problem
            if not any(float(number) for number in BUSY.findall(text)):
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _scored(self, served: ServedTokens, ordinal: int, model: str) -> float:
        ids = [*served.prompt, *served.choices[ordinal]]
        body = {"model": model, "prompt": ids, "max_tokens": 1, "prompt_logprobs": 0,
                "temperature": 0}  # fmt: skip
        answer = await self._post("/v1/completions", body)
        if answer.status_code != 200:
            raise EngineRefused(
                f"the engine did not score under {model}: {answer.text[:200]}",
                status=answer.status_code,
            )
        try:
            return _sum(answer.json()["choices"][0]["prompt_logprobs"], ids, len(served.prompt))
        except (ValueError, KeyError, TypeError, IndexError) as problem:
            raise EngineRefused(
                f"the engine's scores are none: {problem!r}", status=200
            ) from problem

    async def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        try:
            return await self._client.post(path, json=body)
        except httpx.HTTPError as problem:
            raise EngineUnavailable(f"the engine: {path}: {problem!r}") from problem


def _sum(positions: list[Any], ids: Sequence[int], first: int) -> float:
    """The log-probability of ids[first:]; each position names its own token."""
    if len(positions) != len(ids):
        raise ValueError(f"{len(positions)} positions for {len(ids)} tokens")
    return sum(float(positions[at][str(ids[at])]["logprob"]) for at in range(first, len(ids)))
