"""Which adapters this gateway was asked for in the last hour: what an engine should have at hand.

This is all the prediction there is: what was asked for will be asked for. Nothing is kept over a
restart of the gateway, and other gateways' requests are not counted.
"""

from collections import Counter, deque
from collections.abc import Callable

HOUR_SECONDS = 3_600.0
PARTS = 12  # an hour is forgotten in steps of five minutes


class Uses:
    """Counts requests by adapter."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._parts: deque[tuple[float, Counter[str]]] = deque()  # each with its end

    def used(self, adapter: str) -> None:
        """Count one request."""
        now = self._clock()
        if not self._parts or self._parts[-1][0] <= now:
            self._parts.append((now + HOUR_SECONDS / PARTS, Counter()))
            self._forget(now)
        self._parts[-1][1][adapter] += 1

    def most_used(self) -> list[str]:
        """The adapters of the last hour, the most used first."""
        self._forget(self._clock())
        total: Counter[str] = Counter()
        for _, counted in self._parts:
            total.update(counted)
        return [adapter for adapter, _ in total.most_common()]

    def _forget(self, now: float) -> None:
        while self._parts and self._parts[0][0] <= now - HOUR_SECONDS:
            self._parts.popleft()
