"""The panels of the audits: is what is paid what retraining says? Empty without audits."""

from helm.dashboards.queries import NANO_PER_USD, Kind, Panel, Query, quantiles, rate_by


def _figure(name: str) -> tuple[Query, ...]:
    """An audited figure by adapter, with the ends of its 95 % interval."""
    return tuple(
        Query(
            f'max by (adapter) (byline_audit_fidelity{{figure="{name}",bound="{bound}"}})',
            f"{{{{adapter}}}} {bound}",
        )
        for bound in ("mean", "low", "high")
    )


AUDITS = (
    Panel(
        "Audited: rank correlation",
        "Of paid with audited scores over the newest audits; noise has 0, and low pauses payment.",
        "none",
        _figure("rank_correlation"),
        width=6,
        may_be_negative=True,
    ),
    Panel(
        "Audited: payout error",
        "Which part of the pools went elsewhere than retraining says, over the newest audits.",
        "percentunit",
        _figure("payout_error"),
        width=6,
    ),
    Panel(
        "Audits an hour",
        "Choices that were drawn from the lottery: scored, and those that could not be.",
        "none",
        (
            Query(f"3600 * {rate_by('byline_audits_total', 'adapter')}", "{{adapter}}"),
            Query("3600 * sum(rate(byline_audits_failed_total[$__rate_interval]))", "failed"),
        ),
        width=6,
    ),
    Panel(
        "Audit time", "Scoring one choice under all its adapters.", "s",
        quantiles("byline_audit_seconds"), width=6,
    ),
    Panel(
        "Audits refused",
        "Refused in the newest look and tried again: a run's bytes changed, or readings differ.",
        "none",
        (Query("max(byline_audits_refused)", "refused"),),
        Kind.NUMBER,
        6,
        red_from=1,
    ),
    Panel(
        "Written off, USD",
        "What audits found and the ledger refused: the bias that is left.",
        "currencyUSD",
        (Query(f"sum(byline_audit_written_off_nano_total) / {NANO_PER_USD}", "written off"),),
        Kind.NUMBER,
        6,
    ),
)  # fmt: skip
