"""The panels of the books, the archive and the transparency log."""

from helm.dashboards.queries import NANO_PER_USD, Kind, Panel, Query, quantiles, rate_by

BOOKS = (
    Panel(
        "Findings",
        "What the bookkeeper finds wrong: all zero; what stays, jobs excepted, freezes posting.",
        "none",
        (
            Query("sum(byline_books_drifting_accounts)", "accounts that drift"),
            Query("sum(byline_books_gaps)", "entries missing"),
            Query("sum(byline_books_unbalanced_entries)", "entries unbalanced"),
            Query("sum(byline_books_unbalanced_inferences)", "inferences unbalanced"),
            Query("sum(byline_books_missing_marks)", "marks missing"),
            Query("sum(byline_books_unlisted)", "holds and pools unlisted"),
            Query("sum(byline_books_archive_difference_accounts)", "accounts unlike in SQL"),
            Query("sum(byline_books_archive_difference_rows)", "rows unlike in SQL"),
            Query("sum(byline_books_unsafe_servers)", "servers that are unsafe"),
            Query("sum(increase(byline_books_restored_jobs_total[1h]))", "jobs lost, in an hour"),
            Query("sum(byline_books_jobless_pools)", "pools without a job"),
            Query("max(byline_archive_stopped)", "export stopped"),
            Query("sum(byline_archive_manifests_missing)", "manifests missing"),
            Query("max(byline_books_frozen)", "frozen"),
        ),
    ),
    Panel(
        "Balances, USD",
        "The system accounts, and sums of all others. Together they are zero.",
        "currencyUSD",
        (Query(f"sum by (account) (byline_books_balance_nano) / {NANO_PER_USD}", "{{account}}"),),
        may_be_negative=True,
    ),
    Panel(
        "Journal, entries a second",
        "What the ledger posts, what the bookkeeper folds, what the archive takes.",
        "ops",
        (
            Query("sum(deriv(byline_books_folded_seq[$__rate_interval]))", "folded"),
            Query("sum(deriv(byline_archive_exported_seq[$__rate_interval]))", "archived"),
            Query("sum(rate(byline_books_rounds_total[$__rate_interval]))", "rounds of checks"),
        ),
    ),
    Panel(
        "Lag, entries",
        "Entries of the journal that are not folded or not in the archive yet.",
        "none",
        (
            Query("max(byline_books_lag_entries)", "bookkeeper"),
            Query("max(byline_archive_lag_entries)", "archive"),
        ),
        width=6,
    ),
    Panel(
        "Age of what is open",
        "The oldest entry without its copy, the oldest open pool, the oldest spooled post.",
        "s",
        (
            Query("max(byline_archive_lag_seconds)", "archive"),
            Query("max(byline_books_oldest_pool_seconds)", "pool"),
            Query("max(byline_spool_oldest_seconds)", "spool"),
        ),
        width=6,
    ),
    Panel(
        "Open holds and pools",
        "Answers under way; answers that wait for their attribution.",
        "none",
        (
            Query("sum(byline_books_open_holds)", "holds"),
            Query("sum(byline_books_open_pools)", "pools"),
        ),
        width=6,
    ),
    Panel(
        "Memory used",
        "Of the server's `maxmemory`. From 80 % on no holds are taken, and nothing is served.",
        "percentunit",
        (Query("max(byline_books_memory_used_ratio)", "used"),),
        width=6,
    ),
)

PROOFS = (
    Panel(
        "From post to proof",
        "From an entry's posting to the tree head that covers it, the oldest of each round.",
        "s",
        quantiles("byline_notary_post_to_proof_seconds"),
        width=6,
    ),
    Panel(
        "Entries logged a second",
        "Journal entries that got their leaf in the transparency log.",
        "ops",
        (Query(rate_by("byline_notary_entries_total", "ledger"), "{{ledger}}"),),
        width=6,
    ),
    Panel(
        "Not proven yet, entries",
        "What the bookkeeper has folded and no published tree head covers.",
        "none",
        (
            Query(
                "clamp_min(max by (ledger) (byline_books_folded_seq) "
                "- on (ledger) max by (ledger) (byline_notary_integrated_seq), 0)",
                "{{ledger}}",
            ),
        ),
        width=6,
    ),
    Panel(
        "Age of the tree head",
        "Since the journal was looked at last with all of it under a published head.",
        "s",
        (Query("time() - max by (ledger) (byline_notary_looked_timestamp_seconds)", "{{ledger}}"),),
        width=3,
    ),
    Panel(
        "Contradictions",
        "1 while journal, state and log contradict each other: nothing is signed.",
        "none",
        (Query("max(byline_notary_stopped)", "stopped"),),
        width=3,
        kind=Kind.NUMBER,
        red_from=1,
    ),
    Panel(
        "Logged without shares",
        "Settlements of the last hour whose attribution's record was not to be had.",
        "none",
        (Query("sum(increase(byline_notary_settles_without_shares_total[1h]))", "settlements"),),
        width=3,
        kind=Kind.NUMBER,
        red_from=1,
    ),
)
