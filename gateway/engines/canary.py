"""The canary: does a loaded adapter change what the engine answers?

An adapter whose modules don't match the model's is loaded without complaint and changes nothing:
the base model would answer, and the adapter's contributors would be paid for it. So the next
token's log-probabilities after one probe prompt are compared with the base model's. The probe goes
to the engine directly: nobody is charged for it. It also warms the engine up for the adapter.
"""

import json
from collections.abc import Mapping

from byline.errors import EngineBroke
from gateway.engine_client import Ask, EngineClient

PROBE = "Question: What should be checked first, and why?\nAnswer:"
TOP_TOKENS = 5
# Below this, in nats, two answers are one: what is computed alone differs by nothing at all.
SAME_NATS = 1e-4
# Below this the difference may come from what else was in the batch: the base model is asked again.
DOUBTFUL_NATS = 0.25


async def changes_answers(client: EngineClient, version: str, base_model: str) -> bool:
    """True if the adapter's log-probabilities are not the base model's.

    Raises EngineError where the engine doesn't say.
    """
    base = await _next_token(client, base_model)
    adapter = await _next_token(client, version)
    difference = difference_nats(adapter, base)
    if not SAME_NATS < difference < DOUBTFUL_NATS:
        return difference > SAME_NATS
    noise = difference_nats(await _next_token(client, base_model), base)
    return difference > 2 * noise + SAME_NATS


async def warm_up(client: EngineClient, version: str) -> None:
    """Have the engine compute with an adapter once. Raises EngineError."""
    await _next_token(client, version)


def difference_nats(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """The largest difference over all tokens that either names.

    A token that only one of them names had at most the other's least log-probability there.
    """
    least_one, least_other = min(one.values()), min(other.values())
    return max(
        abs(one.get(token, least_one) - other.get(token, least_other))
        for token in {*one, *other}
    )  # fmt: skip


async def _next_token(client: EngineClient, model: str) -> dict[str, float]:
    fields = {
        "model": model, "prompt": PROBE, "max_tokens": 1, "temperature": 0, "logprobs": TOP_TOKENS,
    }  # fmt: skip
    body = await client.ask(Ask("/v1/completions", json.dumps(fields).encode(), "canary"))
    try:
        top = json.loads(body)["choices"][0]["logprobs"]["top_logprobs"][0]
        found = {str(token): float(value) for token, value in top.items()}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as problem:
        raise EngineBroke("The engine's answer to the probe can't be read.") from problem
    if not found:
        raise EngineBroke("The engine's answer to the probe has no log-probabilities.")
    return found
