"""Every metric of the engines, by name. Labels are engines of the settings and adapters of the
release, the first of them: closed sets."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from byline.metric_labels import LABELS_MAX, OTHER
from gateway.engines.engine import AdapterState, Engine


class EngineMetrics:
    """What Prometheus sees of the engines, in a gateway's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.up = Gauge(
            "byline_engine_up", "1 while the engine is reached and looked over.", ["engine"],
            registry=registry,
        )  # fmt: skip
        self.breaker_open = Gauge(
            "byline_engine_breaker_open", "1 while the engine is left alone after failures.",
            ["engine"], registry=registry,
        )  # fmt: skip
        self.in_flight = Gauge(
            "byline_engine_requests_in_flight", "Requests of this gateway at the engine.",
            ["engine"], registry=registry,
        )  # fmt: skip
        self.in_flight_tokens = Gauge(
            "byline_engine_tokens_in_flight", "Tokens that those requests may be, at most.",
            ["engine"], registry=registry,
        )  # fmt: skip
        self.repeats = Counter(
            "byline_engine_repeats",
            "Requests that another engine was asked for before a byte had come.",
            registry=registry,
        )
        self._shown: dict[str, set[str]] = {}  # labels by engine
        self._add_adapter_metrics(registry)

    def _add_adapter_metrics(self, registry: CollectorRegistry) -> None:
        self.adapter_ready = Gauge(
            "byline_adapter_ready",
            "1 where the engine has the adapter and it changes the answers.",
            ["engine", "adapter"], registry=registry,
        )  # fmt: skip
        self.loads = Counter(
            "byline_adapter_loads", "Adapters brought to an engine, by what came of it.",
            ["engine", "outcome"], registry=registry,
        )  # fmt: skip
        self.cold = Counter(
            "byline_adapter_cold",
            "Requests whose adapter was in none of the engine's places when they came.",
            ["engine"], registry=registry,
        )  # fmt: skip
        self.evictions = Counter(
            "byline_adapter_evictions",
            "Adapters that left a place of the engine because another needed it.",
            ["engine"], registry=registry,
        )  # fmt: skip
        self.waiting = Gauge(
            "byline_adapter_waiting", "Requests that wait for a place for their adapter.",
            registry=registry,
        )  # fmt: skip
        self.waiting_seconds = Gauge(
            "byline_adapter_waiting_seconds", "How long the oldest of them has waited.",
            registry=registry,
        )  # fmt: skip

    def watch(self, engine: Engine) -> None:
        """Have one engine's gauges read whenever they are shown."""
        engine.was_cold = self.cold.labels(engine.name).inc
        engine.evicted = self.evictions.labels(engine.name).inc
        self.up.labels(engine.name).set_function(lambda: engine.was_seen)
        self.breaker_open.labels(engine.name).set_function(lambda: engine.breaker.is_open)
        self.in_flight.labels(engine.name).set_function(lambda: engine.in_flight_requests)
        self.in_flight_tokens.labels(engine.name).set_function(lambda: engine.in_flight_tokens)

    def show(self, engine: Engine) -> None:
        """Show which adapters an engine has ready; `other`, if all above LABELS_MAX are."""
        ready: dict[str, bool] = {}
        for place, (version, state) in enumerate(engine.adapters.items()):
            label = version if place < LABELS_MAX else OTHER
            ready[label] = ready.get(label, True) and state is AdapterState.READY
        for label, is_ready in ready.items():
            self.adapter_ready.labels(engine.name, label).set(is_ready)
        for gone in self._shown.get(engine.name, set()) - ready.keys():
            self.adapter_ready.remove(engine.name, gone)
        self._shown[engine.name] = set(ready)
