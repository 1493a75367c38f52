"""All engines of a gateway: one of them is asked, another if that fails before its first byte."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry

from byline.errors import (
    AdapterUnavailable,
    EngineBroke,
    EngineError,
    EngineTimedOut,
    EngineUnavailable,
    GenerationFailed,
)
from byline.limits import ADAPTER_WAIT_SECONDS, ENGINE_ATTEMPTS_MAX
from byline.records import AdapterVersion, Release
from gateway.background import Background
from gateway.engine_client import TIMEOUTS, Ask, EngineClient, EngineStream, Timeouts
from gateway.engines.engine import AdapterState, Engine, Turn
from gateway.engines.keeping import DRAIN_SECONDS, LOOK_SECONDS, Keeper, Pace
from gateway.engines.leases import Leases
from gateway.engines.metrics import EngineMetrics
from gateway.engines.places import Places
from gateway.engines.shared_places import SharedPlaces
from gateway.engines.uses import Uses

START_SECONDS = 5.0  # a gateway that starts waits so long for its engines' adapters
LORAS_MAX = 4  # as the engine's launcher has it

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class EngineBounds:
    """The bounds that hold for each engine."""

    loras_max: int = LORAS_MAX  # adapters in flight at a time
    wait_seconds: float = ADAPTER_WAIT_SECONDS  # for a place
    look_seconds: float = LOOK_SECONDS  # between two looks at its adapters
    drain_seconds: float = DRAIN_SECONDS  # how long an adapter that left the release still answers
    timeouts: Timeouts = TIMEOUTS


BOUNDS = EngineBounds()


class Engines:
    """The engines of one gateway, and the adapters that each should have."""

    def __init__(
        self,
        engines: Sequence[Engine],
        release: Release,
        artifacts: Path,
        metrics: EngineMetrics,
        bounds: EngineBounds,
        shared: SharedPlaces | None = None,
    ) -> None:
        self._engines = engines
        self._metrics = metrics
        self._places = Places(engines, clock=time.monotonic, wait_seconds=bounds.wait_seconds)
        self._leases = Leases(engines, self._places, shared, time.monotonic) if shared else None
        self._uses = Uses(time.monotonic)
        self._artifacts = artifacts.absolute()
        wanted = self._folders(release.adapters)
        self._keepers = {
            engine: Keeper(
                engine, release.base_model, wanted, metrics,
                changed=self._places.look_again, most_used=self._uses.most_used,
                pace=Pace(bounds.look_seconds, bounds.drain_seconds),
            )
            for engine in engines
        }  # fmt: skip
        self._background = Background()
        metrics.waiting.set_function(lambda: self._places.waiting)
        metrics.waiting_seconds.set_function(self._places.oldest_seconds)
        for engine in engines:
            metrics.watch(engine)

    @classmethod
    def open(
        cls,
        urls: Sequence[str],
        release: Release,
        artifacts: Path,
        registry: CollectorRegistry,
        *,
        bounds: EngineBounds = BOUNDS,
        shared: SharedPlaces | None = None,
    ) -> Self:
        """Clients of these engines; call inside a running event loop.

        Where gateways share the engines' places, they never have more adapters in flight together.
        """
        engines = [
            Engine(
                urlsplit(url).netloc.rpartition("@")[2],
                EngineClient.open(url, timeouts=bounds.timeouts),
                loras_max=bounds.loras_max,
                clock=time.monotonic,
            )
            for url in urls
        ]
        return cls(engines, release, artifacts, EngineMetrics(registry), bounds, shared)

    async def start(self) -> None:
        """Look after the engines from now on; returns after the first look, or a few seconds."""
        for keeper in self._keepers.values():
            self._background.start(keeper.run())
        if self._leases is not None:
            self._background.start(self._leases.run())
        looked = asyncio.gather(*(keeper.looked.wait() for keeper in self._keepers.values()))
        await asyncio.wait({looked}, timeout=START_SECONDS)
        looked.cancel()

    async def close(self) -> None:
        """Look after them no more, and close every connection."""
        await self._background.drain(0)
        if self._leases is not None:
            await self._leases.close()
        for engine in self._engines:
            await engine.client.close()

    def serves(self, adapter: str | None) -> bool:
        """True if an engine has this adapter ready; the base model is with all of them."""
        return any(engine.serves(adapter) for engine in self._engines)

    def want(self, adapters: Iterable[AdapterVersion]) -> None:
        """From now on these adapters: others that were wanted are drained, then unloaded."""
        wanted = self._folders(adapters)
        for keeper in self._keepers.values():
            keeper.want(wanted)

    def states(self, adapter: str) -> frozenset[AdapterState]:
        """How far an adapter is on the engines that are up; empty where none is."""
        return frozenset(
            engine.adapters.get(adapter, AdapterState.MISSING)
            for engine in self._engines
            if engine.was_seen
        )

    def _folders(self, adapters: Iterable[AdapterVersion]) -> dict[str, Path]:
        return {each.version: self._artifacts / each.path for each in adapters}

    async def probe(self) -> None:
        """Raise EngineUnavailable unless an engine is well and its adapters have been settled."""
        probes = [engine.client.probe() for engine in self._engines]
        answers = await asyncio.gather(*probes, return_exceptions=True)
        for engine, answer in zip(self._engines, answers, strict=True):
            if answer is None and engine.was_seen:
                return
        problem = next((a for a in answers if isinstance(a, EngineUnavailable)), None)
        raise problem or EngineUnavailable("No engine has its adapters yet.")

    def described(self) -> Mapping[str, object]:
        """Each engine's state and its adapters', for the readiness probe."""
        return {
            engine.name: {
                "up": engine.was_seen,
                "breaker_open": engine.breaker.is_open,
                "adapters": {name: str(state) for name, state in engine.adapters.items()},
            }
            for engine in self._engines
        }

    async def ask(self, ask: Ask) -> bytes:
        """An engine's whole answer. Cancelling the call aborts the engine's work."""
        return await self._asking(ask, self._whole)

    async def stream(self, ask: Ask) -> EngineStream:
        """An engine's answer once it has begun; the caller closes it."""
        return await self._asking(ask, self._begun)

    async def _asking(self, ask: Ask, work: Callable[[Turn, Ask], Awaitable[Answer]]) -> Answer:
        """Ask an engine, and another if it is safe to repeat. Charged is one answer in any case:
        nothing of the first has been seen by anyone."""
        if ask.adapter is not None:
            self._uses.used(ask.adapter)
        tried: list[Engine] = []
        while True:
            turn = await self._places.take(ask, tried)
            try:
                return await work(turn, ask)
            except EngineError as problem:
                tried.append(turn.engine)
                if isinstance(problem, AdapterUnavailable):
                    self._has_lost(turn.engine, ask)
                if not self._may_repeat(problem, ask, tried):
                    raise
                self._metrics.repeats.inc()
            finally:
                self._places.look_again()

    def _may_repeat(self, problem: EngineError, ask: Ask, tried: Sequence[Engine]) -> bool:
        if len(tried) >= ENGINE_ATTEMPTS_MAX or not is_safe_to_repeat(problem):
            return False
        left = [engine for engine in self._engines if engine not in tried]
        return any(engine.serves(ask.adapter) and engine.breaker.allows for engine in left)

    def _has_lost(self, engine: Engine, ask: Ask) -> None:
        """The engine does not know the adapter: it has restarted since we looked."""
        if ask.adapter in engine.adapters:
            engine.adapters[ask.adapter] = AdapterState.MISSING
        self._keepers[engine].nudge()

    async def _whole(self, turn: Turn, ask: Ask) -> bytes:
        try:
            answer = await turn.engine.client.ask(ask)
        except EngineError as problem:
            turn.end(problem)
            raise
        except BaseException:  # the client has gone: it shows nothing of the engine
            turn.end(answered=False)
            raise
        turn.end()
        return answer

    async def _begun(self, turn: Turn, ask: Ask) -> EngineStream:
        def ended(problem: EngineError | None) -> None:
            turn.end(problem)
            self._places.look_again()

        try:
            return await turn.engine.client.stream(ask, ended=ended)
        except EngineError as problem:
            turn.end(problem)
            raise
        except BaseException:  # the client has gone: it shows nothing of the engine
            turn.end(answered=False)
            raise


def is_safe_to_repeat(problem: EngineError) -> bool:
    """True where the engine was not reached, had no place, or went away before its first byte.

    Not where it took too long, for then it is at work, nor where it could not make what this very
    request asks for: the next engine can't either.
    """
    if isinstance(problem, EngineBroke):
        return not isinstance(problem, EngineTimedOut | GenerationFailed)
    return isinstance(problem, EngineUnavailable)
