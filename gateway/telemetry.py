"""Every metric of the gateway, by name. Labels come from closed sets, never from clients.

What each means stands in docs/operating.md; a test holds the two against each other.
"""

import time
from collections.abc import Callable, Iterable
from itertools import product

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.process_collector import ProcessCollector

from byline.errors import BylineError
from byline.metric_labels import Labels
from byline.posting.postings import Posting
from byline.quotas.scopes import LimitName, ScopeKind
from byline.records import Capture
from gateway.deliveries import Deliveries
from gateway.errors import CLIENT_GONE_STATUS
from gateway.loop_metrics import Count, LoopCounter, LoopHistogram, Spread
from gateway.observed import NO_MODEL, OTHER, Observed

SHORT = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2, 5)
LONG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
GAPS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5)


class Telemetry:
    """The metrics of one gateway, in a registry of its own."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        self.requests_in_flight = self.captures_waiting = 0
        self._models = frozenset({NO_MODEL, OTHER})
        self._labels = Labels()
        ProcessCollector(registry=registry)
        self._add_request_metrics(registry)
        self._add_answer_metrics(registry)
        self._add_ledger_metrics(registry)
        self._add_quota_metrics(registry)
        self._add_journey_metrics(registry)

    def _add_request_metrics(self, registry: CollectorRegistry) -> None:
        self.requests = LoopCounter(
            "byline_requests", "Requests answered.", ["route", "model", "status"], registry=registry
        )
        self.request_seconds = LoopHistogram(
            "byline_request_seconds",
            "From a request's first byte to its answer's last.",
            ["route"],
            buckets=LONG,
            registry=registry,
        )
        self.own_seconds = LoopHistogram(
            "byline_own_seconds",
            "A request's whole time less what was spent waiting for the engine and the client.",
            ["route"],
            buckets=SHORT,
            registry=registry,
        )
        self.upstream_seconds = LoopHistogram(
            "byline_upstream_seconds",
            "The time a request spent waiting for the engine.",
            ["route"],
            buckets=LONG,
            registry=registry,
        )
        in_flight = Gauge(
            "byline_requests_in_flight", "Requests not answered yet.", registry=registry
        )
        in_flight.set_function(lambda: self.requests_in_flight)

    def _add_answer_metrics(self, registry: CollectorRegistry) -> None:
        self.first_token_seconds = LoopHistogram(
            "byline_first_token_seconds",
            "From a streamed request's first byte to its answer's first event.",
            ["model"],
            buckets=LONG,
            registry=registry,
        )
        self.inter_token_seconds = LoopHistogram(
            "byline_inter_token_seconds",
            "Between two pieces of a streamed answer; the engine sends a token at a time.",
            ["model"],
            buckets=GAPS,
            registry=registry,
        )
        self.tokens = LoopCounter(
            "byline_tokens", "Tokens charged for.", ["model", "kind"], registry=registry
        )
        self.usage = LoopCounter(
            "byline_usage", "Answers by where their usage came from.", ["source"], registry=registry
        )
        self.usage_mismatch = LoopCounter(
            "byline_usage_mismatch",
            "Answers whose usage differs from the token ids that came with them.",
            registry=registry,
        )
        self.auto_routed = LoopCounter(
            "byline_auto_routed", "Answers to `auto`, by what answered.", ["model"],
            registry=registry,
        )  # fmt: skip

        self.release_refused = Gauge(
            "byline_release_refused",
            "1 while a new release is refused and the one before is still served.",
            registry=registry,
        )

    def _add_quota_metrics(self, registry: CollectorRegistry) -> None:
        self.limit_refusals = LoopCounter(
            "byline_limit_refusals", "Requests refused at the door, by whose limit and which.",
            ["scope", "limit"], registry=registry,
        )  # fmt: skip
        for scope, limit in product(ScopeKind, LimitName):  # so that each is there at zero
            self.limit_refusals.labels(scope, limit)
        self.reservations_overdue = LoopCounter(
            "byline_reservations_overdue",
            "What was taken from quotas and never corrected, settled by what the ledger says.",
            registry=registry,
        )

    def _add_ledger_metrics(self, registry: CollectorRegistry) -> None:
        self.ledger_posts = LoopCounter(
            "byline_ledger_posts", "Ledger posts by outcome.", ["operation", "outcome"],
            registry=registry,
        )  # fmt: skip
        self.ledger_post_seconds = LoopHistogram(
            "byline_ledger_post_seconds",
            "How long the ledger took to answer a post.",
            ["operation"],
            buckets=SHORT,
            registry=registry,
        )
        captures_waiting = Gauge(
            "byline_captures_waiting",
            "Answers whose charge is being worked out or posted.",
            registry=registry,
        )
        captures_waiting.set_function(lambda: self.captures_waiting)
        self.captures_lost = LoopCounter(
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
        self.charged_nano = LoopCounter(
            "byline_charged_nano", "Charges captured, in nano-USD.", ["model"], registry=registry
        )

    def _add_journey_metrics(self, registry: CollectorRegistry) -> None:
        """How many inferences came how far; holds = captures + voids, but for those under way."""

        def by_mode(name: str, text: str) -> tuple[Count, Count]:
            counter = LoopCounter(name, text, ["mode"], registry=registry)
            return counter.labels("plain"), counter.labels("stream")

        self._holds = by_mode("byline_holds", "Inferences admitted: their largest charge is held.")
        self._captures = by_mode("byline_captures", "Inferences charged for.")
        self._voids = by_mode("byline_voids", "Inferences whose hold was given back whole.")
        self._broken = LoopCounter(
            "byline_streams_broken", "Streams that ended with an error after they had begun.",
            ["model"], registry=registry,
        )  # fmt: skip
        self._aborts = by_mode("byline_aborts", "Inferences whose client left before their end.")

    def serve(self, models: Iterable[str]) -> None:
        """From now on these are the models' names; whatever else is named counts as `other`.

        So do those above LABELS_MAX, over all releases of this gateway's life.
        """
        self._models = self._labels.known(models) | {NO_MODEL, OTHER}
        for model in self._models:
            self._broken.labels(model)

    def known(self, model: str) -> str:
        """The label for a model."""
        return model if model in self._models else OTHER

    def request_ended(self, seen: Observed) -> None:
        """Count one request whose answer is out."""
        self.requests.labels(seen.route, self.known(seen.model), str(seen.status)).inc()
        self.request_seconds.labels(seen.route).observe(seen.ended - seen.started)
        if seen.asks_engine:
            self.upstream_seconds.labels(seen.route).observe(seen.upstream_seconds)
            self.own_seconds.labels(seen.route).observe(seen.own_seconds)
            if seen.status == CLIENT_GONE_STATUS:
                self._aborts[seen.streamed].inc()
            elif seen.broke_off:
                self._broken.labels(self.known(seen.model)).inc()

    def held(self, *, streamed: bool) -> None:
        """Count one hold."""
        self._holds[streamed].inc()

    def voided(self, *, streamed: bool) -> None:
        """Count one void."""
        self._voids[streamed].inc()

    def captured(self, model: str, capture: Capture, *, streamed: bool) -> None:
        """Count one charge and its tokens."""
        label = self.known(model)
        self._captures[streamed].inc()
        self.charged_nano.labels(label).inc(capture.charge_nano)
        self.tokens.labels(label, "prompt").inc(capture.usage.prompt_tokens)
        self.tokens.labels(label, "completion").inc(sum(capture.usage.completion_tokens))

    def routed(self, model: str) -> None:
        """Count one answer to `auto`."""
        self.auto_routed.labels(self.known(model)).inc()

    def pace(self, seen: Observed) -> "Pace":
        """Measures one stream's pieces as they go out."""
        label = self.known(seen.model)
        first = self.first_token_seconds.labels(label)
        return Pace(seen, first, self.inter_token_seconds.labels(label))

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


class Pace:
    """One stream: the time to its first piece, and the gaps between pieces."""

    __slots__ = ("_first", "_gaps", "_last", "_seen")

    def __init__(self, seen: Observed, first: Spread, gaps: Spread) -> None:
        self._seen = seen
        self._first = first
        self._gaps = gaps
        self._last = 0.0

    def piece(self) -> None:
        """A piece goes out now."""
        now = time.perf_counter()
        if self._last:
            self._gaps.observe(now - self._last)
        else:
            self._seen.first_token_seconds = now - self._seen.started
            self._first.observe(self._seen.first_token_seconds)
        self._last = now
