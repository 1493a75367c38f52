"""Which of several engines gets a request. Pure.

1. Only engines whose work is near the least: at most SPILL_TOKENS above it.
2. Of these, the ones where the adapter already is; else, with room for it; else all.
3. Of these, two: the same two for every prompt that begins alike. The first, where the prompt's
   beginning was most likely computed before, unless it has much more to do than the second.
"""

import zlib
from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol, TypeVar

SPILL_TOKENS = 8_192
SLACK_TOKENS = 2_048
PREFIX_BYTES = 512  # where system prompts differ, if they do


class Candidate(Protocol):
    """An engine that could take the request."""

    name: str
    in_flight_tokens: int

    def nearness(self, adapter: str | None) -> int:
        """How near the adapter is to where the engine computes."""


Chosen = TypeVar("Chosen", bound=Candidate)


def choose(candidates: Sequence[Chosen], adapter: str | None, prefix: int) -> Chosen:
    """One of `candidates`, of which there is one at least."""
    if len(candidates) == 1:
        return candidates[0]
    least = min(engine.in_flight_tokens for engine in candidates)
    near = [e for e in candidates if e.in_flight_tokens <= least + SPILL_TOKENS]
    nearest = max(engine.nearness(adapter) for engine in near)
    pool = [engine for engine in near if engine.nearness(adapter) == nearest]
    if len(pool) == 1:
        return pool[0]
    first, second = sorted(pool, key=lambda engine: _weight(engine.name, prefix))[:2]
    return second if first.in_flight_tokens > second.in_flight_tokens + SLACK_TOKENS else first


def _weight(name: str, prefix: int) -> bytes:
    # The same in every gateway, so that they send alike prompts to the same engine.
    return blake2b(f"{prefix} {name}".encode(), digest_size=8).digest()


def prefix_of(body: bytes, *whose: str | None) -> int:
    """Equal for bodies whose messages, or prompt, begin with the same bytes.

    `whose` is what parts the engine's prefix cache: the model, and the application.
    """
    start = max(body.find(b'"messages":'), 0) or max(body.find(b'"prompt":'), 0)
    return zlib.crc32(body[start : start + PREFIX_BYTES], zlib.crc32(repr(whose).encode()))


def work_tokens(body: bytes, completion_tokens_max: int, context_tokens: int) -> int:
    """How much work a request may be: some four bytes a prompt token, and the longest answer."""
    return min(len(body) // 4, context_tokens) + completion_tokens_max
