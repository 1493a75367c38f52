"""Keeps one engine's adapters as the release wants them: load, check, forget.

A loop for each engine. What is wanted comes from the release; what is there, from the engine's own
list; so an engine that restarts, or starts without an adapter, gets it by itself. Adapters that
this gateway never wanted are another's, and are left alone.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from byline.errors import EngineError, EngineRefused, EngineUnavailable
from gateway.engines.canary import changes_answers, warm_up
from gateway.engines.engine import AdapterState, Engine, not_reached
from gateway.engines.metrics import EngineMetrics

log = logging.getLogger("gateway")

LOOK_SECONDS = 2.0
CANARY_SECONDS = 60.0
AGAIN_SECONDS = 30.0  # an adapter that failed to load is tried again so much later
# An adapter that is no longer wanted still answers so long: inferences that chose it may not have
# reached an engine yet, and other gateways may look at the release a little later.
DRAIN_SECONDS = 30.0
ALREADY_LOADED = "already been loaded"  # by another gateway, a moment ago


@dataclass(frozen=True, slots=True)
class Pace:
    """How often an engine is looked at, and how long it keeps what is no longer wanted."""

    look_seconds: float = LOOK_SECONDS
    drain_seconds: float = DRAIN_SECONDS


PACE = Pace()


class Keeper:
    """Looks after one engine."""

    def __init__(
        self,
        engine: Engine,
        base_model: str,
        wanted: Mapping[str, Path],
        metrics: EngineMetrics,
        *,
        changed: Callable[[], None] = lambda: None,
        pace: Pace = PACE,
        most_used: Callable[[], Sequence[str]] = lambda: (),
    ) -> None:
        self._engine = engine
        self._base_model = base_model
        self._wanted = dict(wanted)
        self._metrics = metrics
        self._changed = changed
        self._look_seconds = pace.look_seconds
        self._drain_seconds = pace.drain_seconds
        self._most_used = most_used
        self._drain_until: dict[str, float] = {}
        self._failed_at: dict[str, float] = {}
        self._nudge = asyncio.Event()
        self.looked = asyncio.Event()
        engine.adapters = dict.fromkeys(wanted, AdapterState.MISSING)

    def nudge(self) -> None:
        """Look now: the engine does not know an adapter that we thought it had."""
        self._nudge.set()

    def want(self, wanted: Mapping[str, Path]) -> None:
        """From now on these; what was wanted before is drained, then unloaded."""
        states = self._engine.adapters
        for version in wanted.keys() - self._wanted.keys():  # forget what came of it before
            self._failed_at.pop(version, None)
            if states.get(version) in (AdapterState.FAILED, AdapterState.NOT_APPLIED):
                states[version] = AdapterState.MISSING
        for version in self._wanted.keys() - wanted.keys():
            if states[version] is AdapterState.READY:
                states[version] = AdapterState.DRAINING
                self._drain_until[version] = time.monotonic() + self._drain_seconds
        self._wanted = dict(wanted)
        for version in wanted:
            states.setdefault(version, AdapterState.MISSING)
            if states[version] is AdapterState.DRAINING:  # it was ready, and is still there
                states[version] = AdapterState.READY
        self.nudge()

    async def run(self) -> None:
        """Look, wait, look again, until cancelled."""
        while True:
            await self.look()
            self.looked.set()
            try:
                async with asyncio.timeout(self._look_seconds):
                    await self._nudge.wait()
            except TimeoutError:
                pass
            self._nudge.clear()

    async def look(self) -> None:
        """Compare what is there with what is wanted, and mend it."""
        engine = self._engine
        try:
            present = set(await engine.client.models())
        except EngineError as problem:
            if engine.was_seen:
                log.warning("engine %s did not list its models: %s", engine.name, problem)
            if not_reached(problem):  # else it may be busy: what it had loaded it still has
                engine.lost()
                self._show()
            return
        if self._has_restarted(present):
            engine.restarted()
        for version in self._in_order():
            if version in self._wanted:  # since this look began
                await self._settle(version, self._wanted[version], present)
        await self._warm_up()
        await self._forget_unwanted(present)
        if not engine.was_seen:
            engine.was_seen = True
            engine.breaker.succeeded()
            log.info("engine %s answers", engine.name)
        self._show()
        self._changed()

    def _has_restarted(self, present: set[str]) -> bool:
        """True where an adapter that was ready is not there any more."""
        states = self._engine.adapters
        return any(states[v] is AdapterState.READY and v not in present for v in self._wanted)

    def _in_order(self) -> list[str]:
        """What is wanted, what was asked for most in the last hour first."""
        used = [version for version in self._most_used() if version in self._wanted]
        return [*used, *(version for version in self._wanted if version not in used)]

    async def _warm_up(self) -> None:
        """Bring what was asked for most in the last hour to the places that are free.

        Loading brought every adapter of the release there in turn: the last ones stayed.
        """
        engine = self._engine
        used = [version for version in self._most_used() if engine.serves(version)]
        for version in used[: engine.loras_max]:
            if engine.nearness(version) < 2 and engine.free_places():
                try:
                    async with asyncio.timeout(CANARY_SECONDS):
                        await warm_up(engine.client, version)
                except (EngineError, TimeoutError) as problem:
                    log.warning("engine %s did not warm %s up: %s", engine.name, version, problem)
                    return
                if engine.nearness(version) < 2 and engine.free_places():
                    engine.warmed(version)

    async def _settle(self, version: str, folder: Path, present: set[str]) -> None:
        """Bring one adapter as far as it goes; `present` is told of it once it is loaded."""
        state = self._engine.adapters[version]
        if version in present and state in (AdapterState.READY, AdapterState.NOT_APPLIED):
            return
        if time.monotonic() - self._failed_at.get(version, -AGAIN_SECONDS) < AGAIN_SECONDS:
            return
        try:
            if version not in present:
                self._set(version, AdapterState.MISSING)
                await self._load(version, folder)
                present.add(version)
            self._set(version, AdapterState.LOADED)
            async with asyncio.timeout(CANARY_SECONDS):
                applied = await changes_answers(self._engine.client, version, self._base_model)
        except (EngineUnavailable, TimeoutError) as problem:  # busy, or gone: the next look tells
            log.warning("engine %s did not take %s: %s", self._engine.name, version, problem)
            return
        except EngineError as problem:
            self._failed(version, problem)
            return
        self._failed_at.pop(version, None)
        self._report(version, applied)

    def _failed(self, version: str, problem: EngineError) -> None:
        self._failed_at[version] = time.monotonic()
        self._set(version, AdapterState.FAILED)
        self._metrics.loads.labels(self._engine.name, "failed").inc()
        log.error("engine %s can't serve %s: %s", self._engine.name, version, problem)

    async def _load(self, version: str, folder: Path) -> None:
        try:
            await self._engine.client.load(version, folder)
        except EngineRefused as problem:
            if ALREADY_LOADED not in str(problem):
                raise

    def _report(self, version: str, applied: bool) -> None:
        name = self._engine.name
        self._set(version, AdapterState.READY if applied else AdapterState.NOT_APPLIED)
        self._metrics.loads.labels(name, "ready" if applied else "not_applied").inc()
        if applied:
            log.info("engine %s serves %s", name, version)
        else:
            log.critical(
                "engine %s loaded %s and answers like the base model: it is not served",
                name, version,
            )  # fmt: skip
        self._changed()

    async def _forget_unwanted(self, present: set[str]) -> None:
        states = self._engine.adapters
        for version in [version for version in states if self._may_go(version)]:
            if not self._may_go(version):  # wanted again, while another was being unloaded
                continue
            states[version] = AdapterState.MISSING  # no request may begin while it goes
            try:
                if version in present:
                    await self._engine.client.unload(version)
                    log.info("engine %s no longer has %s", self._engine.name, version)
            except EngineError as problem:
                log.warning("engine %s did not unload %s: %s", self._engine.name, version, problem)
                continue
            if version not in self._wanted:
                del states[version]
                self._drain_until.pop(version, None)
                self._failed_at.pop(version, None)

    def _may_go(self, version: str) -> bool:
        """True for what nobody wants, once its last answers are out."""
        if version in self._wanted or version in self._engine.adapters_in_flight:
            return False
        is_draining = self._engine.adapters[version] is AdapterState.DRAINING
        return not is_draining or time.monotonic() >= self._drain_until[version]

    def _set(self, version: str, state: AdapterState) -> None:
        """What was found out of a version; one that is on its way out stays so."""
        if version in self._wanted:
            self._engine.adapters[version] = state

    def _show(self) -> None:
        self._metrics.show(self._engine)
