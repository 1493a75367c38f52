"""Prometheus metrics that one thread alone writes: an addition, or a bisection and two, no lock.

prometheus_client's own take several times as long, which counts where each piece of each stream is
measured. Everything in this program that writes or shows these runs on the event loop.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import INF, floatToGoString


class Count:
    """What was counted under one set of labels."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, amount: int = 1) -> None:
        """Count so many more."""
        self.value += amount


class LoopCounter(Collector):
    """A counter of whole things, with labels or without; use it on the event loop only."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Sequence[str] = (),
        *,
        registry: CollectorRegistry,
    ) -> None:
        self._labelnames = tuple(labelnames)
        self._name = name
        self._documentation = documentation
        self._counts: dict[tuple[str, ...], Count] = {}
        if not labelnames:
            self.labels()  # there at zero
        registry.register(self)

    def labels(self, *values: str) -> Count:
        """What is counted under these values."""
        count = self._counts.get(values)
        if count is None:
            assert len(values) == len(self._labelnames)
            count = self._counts[values] = Count()
        return count

    def inc(self, amount: int = 1) -> None:
        """Count so many more; for a counter without labels."""
        self.labels().inc(amount)

    def describe(self) -> list[CounterMetricFamily]:
        """The counter without its samples, for the registry's check of names."""
        return [self._family()]

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The counter as Prometheus shows it."""
        family = self._family()
        for values, count in self._counts.items():
            family.add_metric(values, count.value)
        yield family

    def _family(self) -> CounterMetricFamily:
        return CounterMetricFamily(self._name, self._documentation, labels=self._labelnames)


class Spread:
    """What was observed under one set of labels."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last: above all bounds
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Take one value in."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class LoopHistogram(Collector):
    """A histogram with labels; use it on the event loop only."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Sequence[str],
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self.labelnames = tuple(labelnames)
        self._name = name
        self._documentation = documentation
        self._bounds = tuple(buckets)
        self._shown: list[str] = [
            floatToGoString(bound)  # type: ignore[no-untyped-call]
            for bound in (*buckets, INF)
        ]
        self._spreads: dict[tuple[str, ...], Spread] = {}
        registry.register(self)

    def labels(self, *values: str) -> Spread:
        """What is observed under these values."""
        spread = self._spreads.get(values)
        if spread is None:
            assert len(values) == len(self.labelnames)
            spread = self._spreads[values] = Spread(self._bounds)
        return spread

    def describe(self) -> list[HistogramMetricFamily]:
        """The histogram without its samples, for the registry's check of names."""
        return [self._family()]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The histogram as Prometheus shows it: each bucket counts those before it too."""
        family = self._family()
        for values, spread in self._spreads.items():
            below, buckets = 0, []
            for bound, count in zip(self._shown, spread.counts, strict=True):
                below += count
                buckets.append((bound, float(below)))
            family.add_metric(values, buckets, sum_value=spread.total)
        yield family

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._documentation, labels=self.labelnames)
