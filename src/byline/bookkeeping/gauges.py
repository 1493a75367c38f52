"""Every metric of the bookkeeper, in a registry of its own. All of them say which ledger."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from byline.bookkeeping.findings import Figures, Findings, Kind

FOUND: Mapping[str, tuple[str, tuple[Kind, ...]]] = {
    "byline_books_drifting_accounts": (
        "Balances, or their number, that are not what the journal folds to.",
        (Kind.DRIFT, Kind.ROUNDING),
    ),
    "byline_books_gaps": ("Entries that the journal misses.", (Kind.GAP, Kind.TRIMMED)),
    "byline_books_unbalanced_entries": (
        "Entries that are broken, unbalanced, or not what they were.",
        (Kind.UNBALANCED_ENTRY, Kind.REWRITTEN),
    ),
    "byline_books_unbalanced_inferences": (
        "Inferences that are not held, captured and settled once, for their charge.",
        (Kind.UNBALANCED_INFERENCE,),
    ),
    "byline_books_missing_marks": ("Entries that could be posted again.", (Kind.MARK,)),
    "byline_books_unlisted": (
        "Holds and pools that nobody would finish, or the reverse.", (Kind.UNLISTED,)
    ),
    "byline_books_archive_difference_accounts": (
        "Accounts to which SQL and the journal since come otherwise.", (Kind.ARCHIVE,)
    ),
    "byline_books_archive_difference_rows": (
        "Rows in SQL that are not what their entries say.", (Kind.ARCHIVE_ROW,)
    ),
    "byline_books_unsafe_servers": (
        "1 while the ledger's server is set so that it could lose money.", (Kind.SERVER,)
    ),
}  # fmt: skip
SHOWN: Mapping[str, tuple[str, str]] = {
    "byline_books_conservation_error_nano": (
        "What all accounts sum to; anything but 0 is an alarm.", "conservation_error_nano"
    ),
    "byline_books_folded_seq": ("The newest entry in the fold.", "folded_seq"),
    "byline_books_lag_entries": ("Entries that are not folded yet.", "lag_entries"),
    "byline_books_open_holds": ("Holds that are neither captured nor back.", "open_holds"),
    "byline_books_oldest_hold_seconds": (
        "Age of the hold that expires first.", "oldest_hold_seconds"
    ),
    "byline_books_open_pools": ("Pools that are not settled.", "open_pools"),
    "byline_books_oldest_pool_seconds": ("Age of the oldest open pool.", "oldest_pool_seconds"),
    "byline_books_snapshot_seq": ("Where the newest snapshot stands.", "snapshot_seq"),
    "byline_books_exported_seq": ("How far the ledger is exported.", "exported_seq"),
    "byline_books_trimmed_seq": ("How far the journal is trimmed.", "trimmed_seq"),
    "byline_books_archive_read_seq": (
        "How far the archive's rows were read again, in this lap.", "archive_read_seq"
    ),
    "byline_books_jobless_pools": (
        "Old open pools whose attribution jobs are lost and can't be made again.", "jobless_pools"
    ),
    "byline_books_memory_used_ratio": (
        "How much of the server's maxmemory is used, or of the machine's memory where it has none.",
        "memory_used_ratio",
    ),
}  # fmt: skip


class BooksMetrics:
    """The gauges of all ledgers of one bookkeeper."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._found = {
            name: Gauge(name, text, ["ledger"], registry=registry)
            for name, (text, _) in FOUND.items()
        }
        self._shown = {
            name: Gauge(name, text, ["ledger"], registry=registry)
            for name, (text, _) in SHOWN.items()
        }
        self._frozen = Gauge(
            "byline_books_frozen", "1 while posting is stopped.", ["ledger"], registry=registry
        )
        self._balances = Gauge(
            "byline_books_balance_nano",
            "Balances of the system accounts, and sums of all others by what they are.",
            ["ledger", "account"],
            registry=registry,
        )
        self._restored = Counter(
            "byline_books_restored_jobs",
            "Lost attribution jobs of open pools that were enqueued again.",
            ["ledger"],
            registry=registry,
        )
        self._rounds = Counter(
            "byline_books_rounds", "Rounds that were ended.", ["ledger"], registry=registry
        )

    def observe(self, ledger: str, findings: Findings) -> None:
        """Show one round."""
        figures: Figures = findings.figures
        for name, (_, kinds) in FOUND.items():
            self._found[name].labels(ledger).set(findings.count(*kinds))
        for name, (_, figure) in SHOWN.items():
            self._shown[name].labels(ledger).set(getattr(figures, figure))
        self._frozen.labels(ledger).set(figures.frozen is not None)
        for account, nano in figures.balances.items():
            self._balances.labels(ledger, account).set(nano)
        self._restored.labels(ledger).inc(figures.restored_jobs)
        self._rounds.labels(ledger).inc()
