"""Every metric of the gateway, by name. Labels come from closed sets, never from clients."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from byline.errors import BylineError
from byline.posting.postings import Posting
from gateway.deliveries import Deliveries

SHORT = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2, 5)
LONG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
UNKNOWN = "unknown"  # the model label where no known model was named


class Telemetry:
    """The metrics of one gateway, in a registry of its own."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        ProcessCollector(registry=registry)
        self._add_request_metrics(registry)
        self._add_answer_metrics(registry)
        self._add_ledger_metrics(registry)

    def _add_request_metrics(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "byline_requests", "Requests answered.", ["route", "model", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "byline_request_seconds",
            "From a request's first byte to its answer's last.",
            ["route"],
            buckets=LONG,
            registry=registry,
        )
        self.own_seconds = Histogram(
            "byline_own_seconds",
            "A request's whole time less the time spent waiting for the engine.",
            ["route"],
            buckets=SHORT,
            registry=registry,
        )
        self.upstream_seconds = Histogram(
            "byline_upstream_seconds",
            "The time a request spent waiting for the engine.",
            ["route"],
            buckets=LONG,
            registry=registry,
        )
        self.in_flight = Gauge(
            "byline_requests_in_flight", "Requests not answered yet.", registry=registry
        )

    def _add_answer_metrics(self, registry: CollectorRegistry) -> None:
        self.first_token_seconds = Histogram(
            "byline_first_token_seconds",
            "From a streamed request's first byte to its answer's first event.",
            ["model"],
            buckets=LONG,
            registry=registry,
        )
        self.tokens = Counter(
            "byline_tokens", "Tokens charged for.", ["model", "kind"], registry=registry
        )
        self.usage = Counter(
            "byline_usage", "Answers by where their usage came from.", ["source"], registry=registry
        )
        self.usage_mismatch = Counter(
            "byline_usage_mismatch",
            "Answers whose usage differs from the token ids that came with them.",
            registry=registry,
        )
        self.auto_routed = Counter(
            "byline_auto_routed", "Answers to `auto`, by what answered.", ["model"],
            registry=registry,
        )  # fmt: skip

    def _add_ledger_metrics(self, registry: CollectorRegistry) -> None:
        self.ledger_posts = Counter(
            "byline_ledger_posts", "Ledger posts by outcome.", ["operation", "outcome"],
            registry=registry,
        )  # fmt: skip
        self.ledger_post_seconds = Histogram(
            "byline_ledger_post_seconds",
            "How long the ledger took to answer a post.",
            ["operation"],
            buckets=SHORT,
            registry=registry,
        )
        self.captures_waiting = Gauge(
            "byline_captures_waiting",
            "Answers whose charge is being worked out or posted.",
            registry=registry,
        )
        self.captures_lost = Counter(
            "byline_captures_lost",
            "Captures the ledger refused for good: the answer was served and nobody was charged.",
            registry=registry,
        )
        self.spool_waiting = Gauge(
            "byline_spool_waiting", "Posts that wait for the ledger's answer.", registry=registry
        )
        self.spool_oldest_seconds = Gauge(
            "byline_spool_oldest_seconds",
            "Since when the oldest of them waits.",
            registry=registry,
        )
        self.charged_nano = Counter(
            "byline_charged_nano", "Charges captured, in nano-USD.", ["model"], registry=registry
        )

    def ledger_post(self, operation: str, outcome: str, seconds: float) -> None:
        """Count one post; this is what `Ledger.open(observe=...)` is given."""
        self.ledger_posts.labels(operation, outcome).inc()
        self.ledger_post_seconds.labels(operation).observe(seconds)

    def post_refused(self, posting: Posting, _problem: BylineError) -> None:
        """Count a refusal that came late; this is what `Delivery(refused=...)` is given."""
        if posting.operation == "capture":
            self.captures_lost.inc()

    def watch(self, deliveries: Deliveries, clock_ms: Callable[[], int]) -> None:
        """Have the spools' gauges read whenever they are shown."""

        def oldest_seconds() -> float:
            oldest_ms = deliveries.oldest_ms
            return 0.0 if oldest_ms is None else max(clock_ms() - oldest_ms, 0) / 1_000

        self.spool_waiting.set_function(lambda: deliveries.waiting)
        self.spool_oldest_seconds.set_function(oldest_seconds)

    def exposition(self) -> bytes:
        """Every metric in Prometheus' text format."""
        return generate_latest(self.registry)
