"""Every metric of the archive's exporters, in a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.process_collector import ProcessCollector

from byline.archive.exporter import Lag
from byline.archive.writing import Written


class ArchiveMetrics:
    """What the exporters count. `ledger` is a name from the settings, so the series are few."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._problems: dict[str, str] = {}
        self.exported_seq = Gauge(
            "byline_archive_exported_seq", "The newest journal entry in the archive.", ["ledger"],
            registry=registry,
        )  # fmt: skip
        self.lag_entries = Gauge(
            "byline_archive_lag_entries", "Journal entries that are not in the archive yet.",
            ["ledger"], registry=registry,
        )  # fmt: skip
        self.lag_seconds = Gauge(
            "byline_archive_lag_seconds", "Age of the oldest of them; 0 when there is none.",
            ["ledger"], registry=registry,
        )  # fmt: skip
        self.looked = Gauge(
            "byline_archive_looked_timestamp_seconds",
            "When the lag was seen last: ledger and archive answered then.", ["ledger"],
            registry=registry,
        )  # fmt: skip
        self.stopped = Gauge(
            "byline_archive_stopped",
            "1 while the journal contradicts the archive and nothing is exported; an alarm.",
            ["ledger"], registry=registry,
        )  # fmt: skip
        self.rows = Counter(
            "byline_archive_rows", "Rows added to the archive.", ["ledger", "table"],
            registry=registry,
        )  # fmt: skip
        self.manifests_missing = Gauge(
            "byline_archive_manifests_missing",
            "Hashes of entries whose text the ledger no longer had; an alarm.", registry=registry,
        )  # fmt: skip

    def observe_written(self, ledger: str, written: Written) -> None:
        """One look at the journal, and the transaction that followed."""
        self._problems.pop(ledger, None)
        self.stopped.labels(ledger).set(0)
        self.exported_seq.labels(ledger).set(written.seq)
        for table in ("entries", "legs", "inferences", "manifests"):
            self.rows.labels(ledger, table).inc(getattr(written, table))

    def observe_lag(self, ledger: str, lag: Lag, *, missing: int, now_ms: int) -> None:
        """How far the archive is behind."""
        age_ms = 0 if lag.oldest_ms is None else max(now_ms - lag.oldest_ms, 0)
        self.lag_entries.labels(ledger).set(lag.entries)
        self.lag_seconds.labels(ledger).set(age_ms / 1_000)
        self.looked.labels(ledger).set(now_ms / 1_000)
        self.manifests_missing.set(missing)

    def observe_stopped(self, ledger: str, problem: str) -> None:
        """The export stopped, and will not go on by itself."""
        self.stopped.labels(ledger).set(1)
        self._problems[ledger] = problem

    def problem(self) -> str | None:
        """Why something is not exported that should be; None when all is well."""
        return next(iter(self._problems.values()), None)
