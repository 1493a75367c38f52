"""A Prometheus histogram that one thread alone observes: a bisection and three additions, no lock.

prometheus_client's own takes ten times as long, which counts where each piece of each stream is
measured. Everything in this program that observes or shows it runs on the event loop.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import INF, floatToGoString


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
