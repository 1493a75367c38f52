"""Places for adapters: no engine gets requests for more adapters at a time than it can mix.

An engine that is sent one adapter more lets its requests wait inside, where nobody sees them. So
they wait here: the oldest first, for a bounded time, and not overtaken for ever by requests for an
adapter that already has a place.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence

from byline.errors import AdapterUnavailable, EngineBusy, EngineUnavailable
from byline.limits import ADAPTER_WAIT_SECONDS, OVERTAKE_SECONDS
from gateway.engine_client import Ask
from gateway.engines.choosing import choose
from gateway.engines.engine import Engine, Turn


class Waiter:
    """One request that found no place."""

    def __init__(self, ask: Ask, excluded: Collection[Engine], since: float) -> None:
        self.ask = ask
        self.excluded = excluded
        self.since = since
        self.promised: Engine | None = None  # kept free of other adapters' new requests
        self.turn: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()


class Places:
    """Gives each request an engine that has a place for its adapter, at once or later."""

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        clock: Callable[[], float],
        wait_seconds: float = ADAPTER_WAIT_SECONDS,
    ) -> None:
        self._engines = engines
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._waiting: list[Waiter] = []  # the oldest first
        self._wishes: dict[Engine, dict[str, None]] = {}
        self.wanted: Callable[[], None] = lambda: None  # told of what needs a lease

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def oldest_seconds(self) -> float:
        """How long the oldest of them has waited."""
        return self._clock() - self._waiting[0].since if self._waiting else 0.0

    async def take(self, ask: Ask, excluded: Collection[Engine] = ()) -> Turn:
        """An engine's turn for this request.

        Raises AdapterUnavailable where no engine has the adapter, EngineUnavailable where those
        that have it are left alone just now, and EngineBusy where none had a place in time.
        """
        turn = self._place(ask, excluded, self._promised(ask))
        if turn is not None:
            return turn
        waiter = Waiter(ask, excluded, self._clock())
        self._waiting.append(waiter)
        self.wanted()
        try:
            async with asyncio.timeout(self._wait_seconds):
                return await waiter.turn
        except TimeoutError as problem:
            self._hand_back(waiter)
            raise EngineBusy(
                f"No engine had a place for {ask.adapter} within {self._wait_seconds:g} seconds."
            ) from problem
        except asyncio.CancelledError:
            self._hand_back(waiter)
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def look_again(self) -> None:
        """A place has become free, or an engine's state has changed: serve who can be served."""
        kept_free: set[Engine] = set()
        for waiter in list(self._waiting):
            if waiter.turn.done():
                continue
            try:
                turn = self._place(waiter.ask, waiter.excluded, kept_free)
            except EngineUnavailable as problem:
                self._waiting.remove(waiter)
                waiter.turn.set_exception(problem)
                continue
            if turn is not None:
                self._waiting.remove(waiter)
                waiter.turn.set_result(turn)
            elif (promised := self._promise(waiter)) is not None:
                kept_free.add(promised)

    def wanting(self) -> dict[str, list[Engine]]:
        """The adapters that wait for a lease, oldest first; for each its engines, best first."""
        found: dict[str, list[Engine]] = {}
        for waiter in self._waiting:
            ask = waiter.ask
            able = self._able(waiter)
            has_none = not any(engine.has_place(ask.adapter) for engine in able)
            if ask.adapter is not None and ask.adapter not in found and able and has_none:
                best = choose(able, ask.adapter, ask.prefix)
                rest = sorted(able, key=lambda e: (e is not best, e.in_flight_tokens))
                found[ask.adapter] = rest
        return found

    def wishes(self) -> dict[Engine, list[str]]:
        """Leases that requests would rather have had since this was asked last."""
        found = {engine: list(adapters) for engine, adapters in self._wishes.items()}
        self._wishes.clear()
        return found

    def _place(
        self, ask: Ask, excluded: Collection[Engine], kept_free: Collection[Engine]
    ) -> Turn | None:
        able = [engine for engine in self._engines if engine not in excluded]
        serving = [engine for engine in able if engine.serves(ask.adapter)]
        if not serving and ask.adapter is not None:
            raise AdapterUnavailable(f"No engine has {ask.adapter} ready: ask again in a moment.")
        allowed = [engine for engine in serving if engine.breaker.allows]
        if not allowed:
            raise EngineUnavailable("No engine answers just now.")
        free = [e for e in allowed if e.has_place(ask.adapter) and e not in kept_free]
        if not free:
            return None
        chosen = choose(free, ask.adapter, ask.prefix)
        if chosen.leases is not None and ask.adapter is not None and len(free) < len(allowed):
            self._wish(choose(allowed, ask.adapter, ask.prefix), ask.adapter)
        return chosen.take(ask)

    def _wish(self, engine: Engine, adapter: str) -> None:
        """A lease that the next requests should have: this one goes where it has one."""
        if not engine.has_place(adapter):
            self._wishes.setdefault(engine, {})[adapter] = None
            self.wanted()

    def _promised(self, ask: Ask) -> set[Engine]:
        """The engines that a new request for an adapter must leave to those who wait longer."""
        if ask.adapter is None:
            return set()
        promised = (self._promise(waiter) for waiter in self._waiting)
        return {engine for engine in promised if engine is not None}

    def _promise(self, waiter: Waiter) -> Engine | None:
        """The engine that is kept for a waiter who was overtaken long enough."""
        if self._clock() - waiter.since < OVERTAKE_SECONDS or waiter.turn.done():
            return None
        kept = waiter.promised
        if kept is None or not (kept.breaker.allows and kept.serves(waiter.ask.adapter)):
            able = self._able(waiter)
            waiter.promised = min(able, key=lambda e: e.in_flight_tokens, default=None)
        return waiter.promised

    def _able(self, waiter: Waiter) -> list[Engine]:
        return [
            engine
            for engine in self._engines
            if engine not in waiter.excluded
            and engine.serves(waiter.ask.adapter)
            and engine.breaker.allows
        ]

    def _hand_back(self, waiter: Waiter) -> None:
        """A turn that came in the moment its waiter gave up is ended unused."""
        if waiter.turn.done() and not waiter.turn.cancelled() and not waiter.turn.exception():
            waiter.turn.result().end(answered=False)
            self.look_again()
