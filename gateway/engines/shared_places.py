"""The places at each engine, shared by all gateways: leases in the ledger's server.

A lease is one gateway's right to send an engine requests for one adapter. The script sees to it
that all leases at an engine are for no more adapters than it mixes. Leases end by themselves when
their gateway has died.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from byline.quotas.line import Line

TAG = "{byline:places}"
LEASE_SECONDS = 10.0  # without a renewal
WAITING_SECONDS = 1.0  # how long others are told of a gateway whose requests wait
TIMEOUT_SECONDS = 1.0
SCRIPT = Path(__file__).with_name("share.lua")


@dataclass(frozen=True, slots=True)
class Granted:
    """What came of one round with one engine's leases."""

    adapters: Sequence[str]
    others_wait: bool  # another gateway has requests without a place there


class SharedPlaces:
    """One gateway's leases. The first call connects."""

    def __init__(self, line: Line, gateway: str) -> None:
        self._line = line
        self._gateway = gateway

    @classmethod
    def of(cls, url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> "SharedPlaces":
        """The leases at a ledger's address, for a gateway that has begun now."""
        scripts = {"share": SCRIPT.read_text()}
        return cls(Line(url, TAG, scripts, timeout_seconds=timeout_seconds), uuid.uuid4().hex)

    async def share(
        self, engine: str, places: int, *, keep: Sequence[str], want: Sequence[str], wait: bool
    ) -> Granted:
        """Keep these leases and no others at an engine, and get what there is room for.

        `wait`: requests wait for what is wanted, so the others are told. Raises LedgerUnavailable.
        """
        keys = [f"{TAG}:leases:{engine}", f"{TAG}:waiting:{engine}"]
        arguments: list[str | int] = [
            self._gateway, places, round(LEASE_SECONDS * 1_000), round(WAITING_SECONDS * 1_000),
            int(wait), len(keep), *keep, *want,
        ]  # fmt: skip
        others_wait, *granted = await self._line.run("share", keys, arguments)
        return Granted(granted, others_wait == "1")

    async def close(self) -> None:
        """Close the connection."""
        await self._line.close()
