"""Every metric of the notary, in a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from byline.notary.notary import Integrated

SECONDS = (0.1, 0.25, 0.5, 1, 2, 3, 4, 5, 7.5, 10, 30, 60, 300)


class NotaryMetrics:
    """What the notary counts. `ledger` is a name from the settings, so the series are few."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._problems: dict[str, str] = {}
        self.integrated_seq = Gauge(
            "byline_notary_integrated_seq", "The newest journal entry under a published tree head.",
            ["ledger"], registry=registry,
        )  # fmt: skip
        self.leaves = Gauge(
            "byline_notary_leaves", "The size of the published tree head.", ["ledger"],
            registry=registry,
        )  # fmt: skip
        self.entries = Counter(
            "byline_notary_entries", "Journal entries that got a leaf.", ["ledger"],
            registry=registry,
        )  # fmt: skip
        self.settles_without_shares = Counter(
            "byline_notary_settles_without_shares",
            "Settlements logged without their shares, since no attribution record was to be had.",
            ["ledger"], registry=registry,
        )  # fmt: skip
        self.post_to_proof = Histogram(
            "byline_notary_post_to_proof_seconds",
            "From the posting of a round's oldest entry to the tree head that covers it.",
            ["ledger"], buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.looked = Gauge(
            "byline_notary_looked_timestamp_seconds",
            "When the journal was looked at last and all of it was under the published tree head.",
            ["ledger"], registry=registry,
        )  # fmt: skip
        self.stopped = Gauge(
            "byline_notary_stopped",
            "1 while journal, state and published log contradict each other and nothing is signed; "
            "an alarm.",
            ["ledger"], registry=registry,
        )  # fmt: skip

    def observe(self, ledger: str, round_: Integrated, *, now_ms: int) -> None:
        """A round was done: what the journal had is under the published tree head."""
        self._problems.pop(ledger, None)
        self.stopped.labels(ledger).set(0)
        self.integrated_seq.labels(ledger).set(round_.seq)
        self.leaves.labels(ledger).set(round_.size)
        self.entries.labels(ledger).inc(round_.entries)
        self.settles_without_shares.labels(ledger).inc(round_.without_shares)
        self.looked.labels(ledger).set(now_ms / 1_000)
        if round_.oldest_ms is not None:
            seconds = max(now_ms - round_.oldest_ms, 0) / 1_000
            self.post_to_proof.labels(ledger).observe(seconds)

    def observe_stopped(self, ledger: str, problem: str) -> None:
        """Nothing is signed any more, and it will not go on by itself."""
        self.stopped.labels(ledger).set(1)
        self._problems[ledger] = problem

    def problem(self) -> str | None:
        """Why something is not logged that should be; None when all is well."""
        return "; ".join(f"{name}: {why}" for name, why in self._problems.items()) or None
