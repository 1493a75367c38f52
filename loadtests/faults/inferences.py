"""Each inference by itself: held, ended and settled once, and its legs are its charge. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

# Where an inference's own money lies or comes from; every other account of its entries is a payee.
OWN = ("app:", "hold:", "open:")


@dataclass(slots=True)
class Standing:
    """How far one inference is."""

    state: str = "new"  # held, captured, voided, expired
    held: int = 0
    charge: int = 0
    credited: int = 0  # to payees, by capture and settles
    pools: dict[str, int] = field(default_factory=dict)  # ordinal -> what is open
    refunded: int = 0


class Inferences:
    """Follows every inference through the entries that name it."""

    def __init__(self) -> None:
        self._standings: dict[str, Standing] = {}

    def add(self, inference: str, kind: str, ordinal: str, legs: Mapping[str, int]) -> str | None:
        """Follow one entry; answers what is wrong with it, if anything is."""
        standing = self._standings.setdefault(inference, Standing())
        match kind:
            case "hold":
                return _held(standing, legs[f"hold:{inference}"])
            case "capture" | "capture_late":
                return _captured(standing, inference, kind, legs)
            case "void" | "expire":
                return _given_back(standing, kind)
            case "settle":
                return _settled(standing, ordinal, legs)
            case "refund":
                return _refunded(standing, legs)
        return f"has an entry of kind {kind}"

    def unfinished(self) -> Iterator[tuple[str, str]]:
        """Every inference that has not come to its end, and what is missing."""
        for inference, standing in self._standings.items():
            if standing.state == "held":
                yield inference, "is held for ever"
            elif standing.pools:
                yield inference, f"has open pools: {sorted(standing.pools)}"
            elif standing.state == "captured" and standing.credited != standing.charge:
                yield inference, f"paid {standing.credited} of a charge of {standing.charge}"


def _held(standing: Standing, nano: int) -> str | None:
    if standing.state != "new":
        return f"is held again when {standing.state}"
    standing.state, standing.held = "held", nano
    return None


def _captured(standing: Standing, inference: str, kind: str, legs: Mapping[str, int]) -> str | None:
    if standing.state != ("held" if kind == "capture" else "expired"):
        return f"has a {kind} when {standing.state}"
    standing.state = "captured"
    prefix = f"open:{inference}"
    for account, nano in legs.items():
        if account.startswith("open:"):
            standing.pools[account.removeprefix(prefix).removeprefix("/") or "0"] = nano
    standing.credited = _to_payees(legs)
    standing.charge = standing.credited + sum(standing.pools.values())
    taken = -sum(nano for account, nano in legs.items() if account.startswith(("app:", "hold:")))
    return None if taken == standing.charge else f"charges {taken} for {standing.charge}"


def _given_back(standing: Standing, kind: str) -> str | None:
    if standing.state != "held":
        return f"has a {kind} when {standing.state}"
    standing.state = "voided" if kind == "void" else "expired"
    return None


def _settled(standing: Standing, ordinal: str, legs: Mapping[str, int]) -> str | None:
    pool = standing.pools.pop(ordinal, None)
    if pool is None:
        return f"settles choice {ordinal}, which is not open"
    paid = _to_payees(legs)
    standing.credited += paid
    return None if paid == pool else f"settles {paid} of a pool of {pool}"


def _refunded(standing: Standing, legs: Mapping[str, int]) -> str | None:
    if standing.state != "captured" or standing.pools:
        return "is refunded before its end"
    standing.refunded += sum(nano for account, nano in legs.items() if account.startswith("app:"))
    if standing.refunded > standing.charge:
        return f"has {standing.refunded} refunded of a charge of {standing.charge}"
    return None


def _to_payees(legs: Mapping[str, int]) -> int:
    return sum(nano for account, nano in legs.items() if not account.startswith(OWN))
