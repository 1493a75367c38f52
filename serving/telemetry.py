"""Every metric of the attribution worker and of the auditor, each in a registry of its own."""

from collections import deque
from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from byline.auditing.audit import Audit
from byline.auditing.gauges import fidelity_of
from byline.metric_labels import Labels
from byline.records import Attribution

SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 60.0)
POST_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)
AUDITS_REMEMBERED = 200  # the newest of each adapter, for its fidelity
LIFT_NATS = (-20.0, -5.0, 0.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)


class WorkerMetrics:
    """What the worker counts. `adapter` is a served adapter's name or `other`: few series."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._adapters = Labels()
        self._versions = Labels()
        self._queues: dict[str, tuple[int, float]] = {}  # by ledger
        self._paused: set[str] = set()  # ever
        self.attributions = Counter(
            "byline_attributions", "Attributions settled.", ["adapter", "state"], registry=registry
        )
        self.attribution_seconds = Histogram(
            "byline_attribution_seconds",
            "Time of one attribution, without the settling.",
            buckets=SECONDS,
            registry=registry,
        )
        self.queue_length = Gauge(
            "byline_attribution_queue_length", "Jobs that are not settled.", registry=registry
        )
        self.queue_age_seconds = Gauge(
            "byline_attribution_queue_age_seconds", "Age of the oldest job.", registry=registry
        )
        self.payment_paused = Gauge(
            "byline_payment_paused",
            "1 while an adapter version is not paid and its pools wait open.",
            ["adapter_version"], registry=registry,
        )  # fmt: skip
        self.holds_expired = Counter(
            "byline_holds_expired", "Holds given back after their time.", registry=registry
        )
        self.pool_nano = Counter(
            "byline_pool_nano", "Settled pool money, in nano-USD.", ["adapter", "to"],
            registry=registry,
        )  # fmt: skip
        self.lift_nats = Histogram(
            "byline_attribution_lift_nats",
            "Log-probability of an answer under its adapter above the base model's.",
            buckets=LIFT_NATS,
            registry=registry,
        )
        self.posts = Counter(
            "byline_ledger_posts", "Posts to the ledger.", ["operation", "outcome"],
            registry=registry,
        )  # fmt: skip
        self.post_seconds = Histogram(
            "byline_ledger_post_seconds", "Time of one post to the ledger.", ["operation"],
            buckets=POST_SECONDS, registry=registry,
        )  # fmt: skip

    def observe_post(self, operation: str, outcome: str, seconds: float) -> None:
        """What the ledger reports of each post."""
        self.posts.labels(operation, outcome).inc()
        self.post_seconds.labels(operation).observe(seconds)

    def observe_queue(self, ledger: str, length: int, age_seconds: float) -> None:
        """How many jobs of one ledger wait, and how old the oldest is; all are shown as one."""
        self._queues[ledger] = (length, age_seconds)
        self.queue_length.set(sum(length for length, _ in self._queues.values()))
        self.queue_age_seconds.set(max(age for _, age in self._queues.values()))

    def observe_paused(self, versions: Collection[str]) -> None:
        """Which adapter versions are not paid for now."""
        self._paused |= set(versions)
        for version in self._paused:
            self.payment_paused.labels(self._versions.of(version)).set(version in versions)

    def observe_settled(self, attribution: Attribution) -> None:
        """One attribution whose money has moved."""
        version = attribution.adapter_version or ""
        if version:
            self.payment_paused.labels(self._versions.of(version))  # 0 until it is paused
        adapter = self._adapters.of(version.partition("@")[0])
        self.attributions.labels(adapter, attribution.state.value).inc()
        paid = attribution.pool_nano - attribution.unattributed_nano
        self.pool_nano.labels(adapter, "contributors").inc(paid)
        self.pool_nano.labels(adapter, "unattributed").inc(attribution.unattributed_nano)
        if attribution.lift_nats is not None:
            self.lift_nats.observe(attribution.lift_nats)


class AuditorMetrics:
    """What the auditor counts, and how far paid is from audited, by adapter."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._adapters = Labels()
        self._audits: dict[str, deque[Audit]] = {}
        self.audits = Counter("byline_audits", "Audited choices.", ["adapter"], registry=registry)
        self.audit_seconds = Histogram(
            "byline_audit_seconds", "Time of scoring one audited choice.", buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self.failed = Counter(
            "byline_audits_failed", "Drawn choices that could not be scored.", registry=registry
        )
        self.refused = Gauge(
            "byline_audits_refused",
            "Inferences whose audit was refused in the newest look; each is tried again.",
            registry=registry,
        )
        self.written_off_nano = Counter(
            "byline_audit_written_off_nano",
            "What audits found and the ledger refused, in nano-USD: the bias that is left.",
            registry=registry,
        )
        self.fidelity = Gauge(
            "byline_audit_fidelity",
            "Paid against audited over the newest audits: mean and ends of the 95 % interval.",
            ["adapter", "figure", "bound"], registry=registry,
        )  # fmt: skip

    def observe(self, audit: Audit, *, is_new: bool) -> None:
        """One audit that is posted; one that was posted before is not counted again."""
        if not is_new:
            return
        adapter = self._adapters.of((audit.paid.adapter_version or "").partition("@")[0])
        self.audits.labels(adapter).inc()
        known = self._audits.setdefault(adapter, deque(maxlen=AUDITS_REMEMBERED))
        known.append(audit)
        found = fidelity_of(known)
        if found is None:
            return
        figures = {
            "rank_correlation": found.rank_correlation,
            "payout_error": found.payout_error,
        }
        for name, figure in figures.items():
            self.fidelity.labels(adapter, name, "mean").set(figure.mean)
            self.fidelity.labels(adapter, name, "low").set(figure.mean - figure.half_width)
            self.fidelity.labels(adapter, name, "high").set(figure.mean + figure.half_width)
