"""Keeps this gateway's leases on places, beside the requests: they only wait for a first one.

A request whose adapter has a lease asks nobody. Else it waits among the waiters, and one loop gets
the leases for all of them. A lease outlives its requests by some seconds, unless another gateway's
requests wait: then it is given back when its last answer is out, and takes no new requests once it
is a second old, so that places go round. Without an answer from the ledger's server each gateway
keeps to the cap by itself, as if it were alone: places bound the engines' queues, not money.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from byline.errors import BylineError
from byline.limits import OVERTAKE_SECONDS
from gateway.engines.engine import Engine
from gateway.engines.places import Places
from gateway.engines.shared_places import Granted, SharedPlaces

log = logging.getLogger("gateway")

RENEW_SECONDS = 0.5
AGAIN_SECONDS = 0.05  # while a request waits for a lease, or another gateway's does
IDLE_SECONDS = 10.0  # how long a lease is kept that nothing uses and nobody waits for
BACK_SECONDS = 0.2  # how long one that was given up is left to others


@dataclass
class Held:
    """The leases of one engine."""

    leases: set[str]  # that new requests may use: the engine's own set
    since: dict[str, float] = field(default_factory=dict)  # every lease, and when it was got
    used_at: dict[str, float] = field(default_factory=dict)
    left_until: dict[str, float] = field(default_factory=dict)
    renew_at: float = 0.0
    others_wait: bool = False
    was_refused: bool = False  # what our own requests wait for

    def give_up(self, busy: Collection[str], now: float, *, is_full: bool) -> bool:
        """Leave the leases that need not be kept. True if any is left."""
        gave_up = False
        for adapter, since in list(self.since.items()):
            is_busy = adapter in busy
            if is_busy:
                self.used_at[adapter] = now
            if self.others_wait and now - since >= OVERTAKE_SECONDS:
                self.leases.discard(adapter)
                self.left_until[adapter] = now + BACK_SECONDS
            is_over = is_full or self.others_wait or adapter not in self.leases
            if not is_busy and (is_over or now - self.used_at[adapter] >= IDLE_SECONDS):
                self.leases.discard(adapter)
                del self.since[adapter], self.used_at[adapter]
                gave_up = True
        return gave_up

    def got(self, adapter: str, now: float) -> None:
        """A lease is ours."""
        self.leases.add(adapter)
        self.left_until.pop(adapter, None)
        self.since.setdefault(adapter, now)
        self.used_at[adapter] = now

    def may_want(self, adapter: str, now: float) -> bool:
        """False for what we have, and for what we have only just left to others."""
        return adapter not in self.since and self.left_until.get(adapter, now) <= now


class Leases:
    """The leases of one gateway at all its engines."""

    def __init__(
        self,
        engines: Sequence[Engine],
        places: Places,
        shared: SharedPlaces,
        clock: Callable[[], float],
    ) -> None:
        self._places = places
        self._shared = shared
        self._clock = clock
        self._nudge = asyncio.Event()
        self._is_alone = False  # the server did not answer last
        self._held: dict[Engine, Held] = {}
        for engine in engines:
            engine.leases = set()
            self._held[engine] = Held(engine.leases)
        places.wanted = self._nudge.set

    async def run(self) -> None:
        """Get, renew and give back, until cancelled."""
        while True:
            self._nudge.clear()
            await self.round()
            others_wait = any(held.others_wait for held in self._held.values())
            if others_wait or self._places.wanting():  # however many requests come: no more often
                await asyncio.sleep(AGAIN_SECONDS)
            elif not self._nudge.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(RENEW_SECONDS):
                        await self._nudge.wait()

    async def round(self) -> None:
        """Ask for what is wanted now, first where it is wanted most."""
        left = self._places.wanting()
        for engine in self._held:
            here = [adapter for adapter, engines in left.items() if engines[0] is engine]
            for adapter in await self._share(engine, here, wait=True):
                del left[adapter]
        for adapter, engines in left.items():
            for engine in engines[1:]:
                if await self._share(engine, [adapter], wait=True):
                    break
        for engine, adapters in self._places.wishes().items():
            await self._share(engine, adapters, wait=False)

    async def close(self) -> None:
        """Give every lease back."""
        with suppress(BylineError):  # they end by themselves
            for engine, held in self._held.items():
                if held.since:
                    await self._shared.share(
                        engine.name, engine.loras_max, keep=(), want=(), wait=False
                    )
        await self._shared.close()

    async def _share(self, engine: Engine, want: Sequence[str], *, wait: bool) -> Sequence[str]:
        """One round with one engine's leases; answers what was got."""
        held, now = self._held[engine], self._clock()
        want = [adapter for adapter in want if held.may_want(adapter, now)]
        is_full = held.was_refused or len(held.since) + len(want) > engine.loras_max
        gave_up = held.give_up(engine.adapters_in_flight, now, is_full=is_full)
        is_due = bool(held.since) and now >= held.renew_at
        if not (want or gave_up or is_due):
            if not held.since:
                held.others_wait = False
            return ()
        granted = await self._granted(engine, held, want, wait=wait)
        held.renew_at = now + RENEW_SECONDS
        held.others_wait = granted.others_wait
        if wait:
            held.was_refused = len(granted.adapters) < len(want)
        for adapter in granted.adapters:
            held.got(adapter, self._clock())
        if granted.adapters:
            self._places.look_again()
        return granted.adapters

    async def _granted(
        self, engine: Engine, held: Held, want: Sequence[str], *, wait: bool
    ) -> Granted:
        keep = list(held.since)
        try:
            granted = await self._shared.share(
                engine.name, engine.loras_max, keep=keep, want=want, wait=wait
            )
        except BylineError as problem:
            if not self._is_alone:
                log.warning("places are not shared with other gateways just now: %s", problem)
            self._is_alone = True
            room = max(engine.loras_max - len(keep), 0)
            return Granted(want[:room], others_wait=False)
        self._is_alone = False
        return granted
