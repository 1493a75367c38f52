"""What an answer costs and who is credited: prices, the one rounding, and exact splits.

All amounts are integer nano-USD. The ledger never sees a price or a share: it sees the legs made
here. Nothing in this module knows how an entry is stored.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from byline.limits import PPB
from byline.records import Leg, Usage

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-USD for one million tokens."""

    prompt_per_million: int
    completion_per_million: int


@dataclass(frozen=True, slots=True)
class Policy:
    """One immutable version of prices and split. The parts of a split sum to `PPB`."""

    version: str
    adapter_price: Price
    base_price: Price
    adapter_split: Mapping[str, int]  # role -> ppb of the charge
    base_split: Mapping[str, int]

    def __post_init__(self) -> None:
        for split in (self.adapter_split, self.base_split):
            if sum(split.values()) != PPB:
                raise ValueError(f"policy {self.version}: a split does not sum to {PPB} ppb")


POLICY = Policy(
    version="2026-11",
    adapter_price=Price(150 * MILLION, 600 * MILLION),
    base_price=Price(100 * MILLION, 400 * MILLION),
    adapter_split={
        "platform": 100_000_000,
        "host": 150_000_000,
        "base": 50_000_000,
        "owner": 200_000_000,
        "pool": 500_000_000,
    },
    base_split={"platform": 100_000_000, "host": 650_000_000, "base": 250_000_000},
)


def charge_nano(price: Price, prompt_tokens: int, completion_tokens: int) -> int:
    """The charge for so many tokens, rounded half up once: the only rounding there is."""
    exact = (
        prompt_tokens * price.prompt_per_million + completion_tokens * price.completion_per_million
    )
    return (2 * exact + MILLION) // (2 * MILLION)


def largest_remainder(amount: int, weights: Mapping[str, int], salt: str) -> dict[str, int]:
    """Split `amount` into integers proportional to `weights` (Hamilton's method).

    The parts sum to `amount`; each is within one unit of its exact quota; weight zero gets zero.
    Equal remainders are ordered by SHA-256(salt, name), so that no name is favoured for ever.
    """
    if amount < 0 or any(weight < 0 for weight in weights.values()):
        raise ValueError("amount and weights must not be negative")
    total = sum(weights.values())
    if total == 0:
        raise ValueError("at least one weight must be positive")
    parts = {name: amount * weight // total for name, weight in weights.items()}
    left = amount - sum(parts.values())
    if not left:  # as at today's prices for half of all answers: spare them the hashes
        return parts

    def order(name: str) -> tuple[int, bytes]:
        remainder = amount * weights[name] % total
        return -remainder, hashlib.sha256(f"{salt}\n{name}".encode()).digest()

    for name in sorted(weights, key=order)[:left]:
        parts[name] += 1
    return parts


def credits_of_capture(
    policy: Policy, charge: int, *, inference: str, base_model: str, owner_of: str | None
) -> tuple[list[Leg], int]:
    """The credit legs of one charge, and the contributors' pool.

    `owner_of` is the adapter that answered, or None for the base model, which has no pool. The legs
    and the pool sum to `charge`; parts of zero have no leg.
    """
    split = policy.adapter_split if owner_of else policy.base_split
    parts = largest_remainder(charge, split, salt=inference)
    accounts = {
        "platform": "platform",
        "host": "host",
        "base": f"base:{base_model}",
        "owner": f"owner:{owner_of}",
    }
    legs = [Leg(accounts[role], nano) for role, nano in parts.items() if role != "pool" and nano]
    return legs, parts.get("pool", 0)


def pools_of_choices(pool: int, completion_tokens: Sequence[int], inference: str) -> list[int]:
    """Divide the pool over the choices of one inference by their completion tokens."""
    weights = {str(index): tokens for index, tokens in enumerate(completion_tokens)}
    if not any(weights.values()):
        return [0] * len(completion_tokens)
    parts = largest_remainder(pool, weights, salt=inference)
    return [parts[str(index)] for index in range(len(completion_tokens))]


def largest_charge_nano(price: Price, *, prompt_tokens_max: int, usage_completion_max: int) -> int:
    """The most an inference can cost: what is held before its first token."""
    return charge_nano(price, prompt_tokens_max, usage_completion_max)


def charge_of(price: Price, usage: Usage) -> int:
    """The charge for what was used, all choices together."""
    return charge_nano(price, usage.prompt_tokens, sum(usage.completion_tokens))


def usd(nano: int) -> str:
    """`nano` for a screen: dollars with nine decimals, exact."""
    sign = "-" if nano < 0 else ""
    whole, part = divmod(abs(nano), 1_000_000_000)
    return f"{sign}{whole}.{part:09d}"
