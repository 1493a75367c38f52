"""One engine as this gateway knows it: the work it has from us, and the adapters it has loaded.

What an engine says of its adapters in `vllm:lora_requests_info` can't be used: it names only those
with requests in flight, and running ones as waiting. So we keep our own account.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from enum import StrEnum

from byline.errors import EngineBroke, EngineBusy, EngineError, EngineUnavailable, RequestFailed
from gateway.engine_client import Ask, EngineClient
from gateway.engines.breaker import Breaker


class AdapterState(StrEnum):
    """How far an adapter is on one engine. A ready one is served, and a draining one to its end."""

    MISSING = "missing"  # not loaded (yet)
    LOADED = "loaded"  # and not seen to change anything yet
    READY = "ready"
    NOT_APPLIED = "not_applied"  # loaded, and the answers are the base model's
    FAILED = "failed"  # the engine refused to load it, or to answer with it
    DRAINING = "draining"  # no longer wanted, nor named to anyone: the last who chose it are served


SERVED = (AdapterState.READY, AdapterState.DRAINING)


class Engine:
    """One engine: its client, its breaker, what is in flight, what is loaded."""

    def __init__(
        self, name: str, client: EngineClient, *, loras_max: int, clock: Callable[[], float]
    ) -> None:
        self.name = name
        self.client = client
        self.loras_max = loras_max
        self.breaker = Breaker(clock)
        self.in_flight_tokens = 0
        self.in_flight_requests = 0
        self.was_seen = False  # its list of models was read, and every adapter settled, once
        self.adapters: dict[str, AdapterState] = {}
        # The adapters that a new request may be for, where gateways share the places; else None.
        self.leases: set[str] | None = None
        self.was_cold: Callable[[], None] = lambda: None
        self.evicted: Callable[[], None] = lambda: None
        self._in_flight: Counter[str] = Counter()
        self._recent: OrderedDict[str, None] = OrderedDict()  # what its places last held

    @property
    def adapters_in_flight(self) -> Mapping[str, int]:
        """Requests in flight by adapter."""
        return self._in_flight

    def serves(self, adapter: str | None) -> bool:
        """True if it can answer with this adapter, or with the base model."""
        return adapter is None or self.adapters.get(adapter) in SERVED

    def has_place(self, adapter: str | None) -> bool:
        """True if one more request for it keeps the adapters in flight within the cap."""
        if adapter is None:
            return True
        if self.leases is not None:
            return adapter in self.leases
        return adapter in self._in_flight or len(self._in_flight) < self.loras_max

    def nearness(self, adapter: str | None) -> int:
        """2: the adapter is where the engine computes; 1: there is room for it; 0: it must swap."""
        if adapter is None or adapter in self._recent:
            return 2
        return 1 if len(self._recent) < self.loras_max else 0

    def take(self, ask: Ask) -> "Turn":
        """One request goes to this engine. The turn has to be ended."""
        assert self.has_place(ask.adapter)
        turn = Turn(self, ask, deciding=self.breaker.begin())
        self.in_flight_tokens += ask.tokens
        self.in_flight_requests += 1
        if ask.adapter is not None:
            self._in_flight[ask.adapter] += 1
            self._used(ask.adapter)
        return turn

    def give_back(self, ask: Ask) -> None:
        """One request is over."""
        self.in_flight_tokens -= ask.tokens
        self.in_flight_requests -= 1
        if ask.adapter is not None:
            self._in_flight[ask.adapter] -= 1
            if not self._in_flight[ask.adapter]:
                del self._in_flight[ask.adapter]

    def lost(self) -> None:
        """It was not reached: whatever it had loaded may be gone."""
        self.was_seen = False
        self.restarted()
        for version in self.adapters:
            self.adapters[version] = AdapterState.MISSING

    def restarted(self) -> None:
        """Whatever its places held is gone."""
        self._recent.clear()

    def warmed(self, adapter: str) -> None:
        """A probe has brought an adapter to a free place."""
        assert len(self._recent) < self.loras_max
        self._recent[adapter] = None

    def free_places(self) -> int:
        """How many places have held nothing since the engine was first seen."""
        return self.loras_max - len(self._recent)

    def _used(self, adapter: str) -> None:
        if adapter not in self._recent:
            self.was_cold()
        self._recent[adapter] = None
        self._recent.move_to_end(adapter)
        if len(self._recent) > self.loras_max:
            idle = next((name for name in self._recent if name not in self._in_flight), None)
            assert idle is not None, "more adapters in flight than there are places"
            del self._recent[idle]
            self.evicted()


class Turn:
    """One request at one engine, from its choice to its end."""

    def __init__(self, engine: Engine, ask: Ask, *, deciding: bool) -> None:
        self.engine = engine
        self._ask = ask
        self._deciding = deciding
        self._is_over = False

    def end(self, problem: EngineError | None = None, *, answered: bool = True) -> None:
        """Give the place back, and tell the breaker what came of it."""
        assert not self._is_over
        self._is_over = True
        self.engine.give_back(self._ask)
        breaker = self.engine.breaker
        if problem is not None and is_the_engines_fault(problem):
            breaker.failed(deciding=self._deciding)
        elif answered and not isinstance(problem, EngineBusy):
            breaker.succeeded()
        else:
            breaker.undecided(deciding=self._deciding)


def is_the_engines_fault(problem: EngineError) -> bool:
    """Not where it is full, nor where it failed at one request: any client could cause that."""
    if isinstance(problem, EngineBroke):
        return not isinstance(problem, RequestFailed)
    return not_reached(problem)


def not_reached(problem: EngineError) -> bool:
    """True where no connection came about; its subclasses are answers."""
    return type(problem) is EngineUnavailable
