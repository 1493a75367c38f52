"""What the dashboard shows: every panel with its PromQL, and nothing about how Grafana draws it.

The expressions are written for Prometheus 2.42. Counters are nano-USD; a screen shows dollars.
"""

from dataclasses import dataclass
from enum import Enum

NANO_PER_USD = "1e9"


class Kind(Enum):
    """How a panel is drawn."""

    LINES = "lines"
    STACKED = "stacked"
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class Query:
    """One expression and how its series are named."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: `unit` is Grafana's name of it, `red_from` the value that turns a number red."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = Kind.LINES
    width: int = 8
    red_from: float | None = None
    may_be_negative: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A titled row of panels."""

    title: str
    panels: tuple[Panel, ...]


def rate_by(metric: str, *labels: str, times: str = "") -> str:
    """Per-second rate of a counter, summed over everything but `labels`."""
    return f"sum by ({', '.join(labels)}) (rate({metric}[$__rate_interval])){times}"


def quantiles(histogram: str) -> tuple[Query, ...]:
    """The 50th, 95th and 99th percentile of a histogram over all its series."""
    return tuple(
        Query(
            f"histogram_quantile({level}, sum by (le) "
            f"(rate({histogram}_bucket[$__rate_interval])))",
            f"p{round(level * 100)}",
        )
        for level in (0.5, 0.95, 0.99)
    )


def quantile_by(level: float, histogram: str, label: str) -> Query:
    """One percentile of a histogram for each value of a label."""
    return Query(
        f"histogram_quantile({level}, sum by (le, {label}) "
        f"(rate({histogram}_bucket[$__rate_interval])))",
        f"{{{{{label}}}}}",
    )


def rows() -> tuple[Row, ...]:
    """The whole dashboard, from what a user notices first to the books."""
    return (
        Row("At a glance", _glance()),
        Row("Requests", _requests()),
        Row("Tokens and routing", _tokens()),
        Row("Attribution", _attribution()),
        Row("Ledger", _ledger()),
    )


def _glance() -> tuple[Panel, ...]:
    return (
        Panel(
            "Accounts sum",
            "Every entry is balanced, so all accounts together are zero. Anything else is a defect "
            "of the books: stop posting and see the operating guide.",
            "none",
            (Query("max(abs(byline_accounts_sum_nano))", "nano-USD"),),
            Kind.NUMBER,
            4,
            red_from=1,
        ),
        Panel(
            "Server errors",
            "Part of the requests that ended with a 5xx status.",
            "percentunit",
            (
                Query(
                    '(sum(rate(byline_requests_total{status=~"5.."}[$__rate_interval])) '
                    "or vector(0)) / sum(rate(byline_requests_total[$__rate_interval]))",
                    "5xx",
                ),
            ),
            Kind.NUMBER,
            4,
            red_from=0.05,
        ),
        Panel(
            "In flight",
            "Requests being answered now.",
            "none",
            (Query("sum(byline_requests_in_flight)", "requests"),),
            Kind.NUMBER,
            4,
        ),
        Panel(
            "Attributions waiting",
            "Captured inferences whose pool is still open.",
            "none",
            (Query("max(byline_attribution_queue_length)", "jobs"),),
            Kind.NUMBER,
            4,
            red_from=500,
        ),
        Panel(
            "Captures waiting",
            "Answers that were served and whose charge the ledger has not confirmed yet.",
            "none",
            (Query("sum(byline_captures_waiting)", "captures"),),
            Kind.NUMBER,
            4,
            red_from=1,
        ),
        Panel(
            "Charged in this range",
            "What applications were charged over the shown time.",
            "currencyUSD",
            (Query(f"sum(increase(byline_charged_nano_total[$__range])) / {NANO_PER_USD}", "USD"),),
            Kind.NUMBER,
            4,
        ),
    )


def _requests() -> tuple[Panel, ...]:
    return (
        Panel(
            "Requests by model and status",
            "Requests a second, by the name the client asked for.",
            "reqps",
            (Query(rate_by("byline_requests_total", "model", "status"), "{{model}} {{status}}"),),
            Kind.STACKED,
        ),
        Panel(
            "Request time",
            "From the first byte of the request to the last of the answer, all routes.",
            "s",
            quantiles("byline_request_seconds"),
        ),
        Panel(
            "First token, p95",
            "From the request to the first token of the answer.",
            "s",
            (quantile_by(0.95, "byline_first_token_seconds", "model"),),
        ),
        Panel(
            "Own time",
            "What the gateway itself adds: the request's time less the engine's.",
            "s",
            quantiles("byline_own_seconds"),
        ),
        Panel(
            "Engine time",
            "What the gateway waits for the engine.",
            "s",
            quantiles("byline_upstream_seconds"),
        ),
        Panel(
            "Request time by route, p95",
            "Which route is slow.",
            "s",
            (quantile_by(0.95, "byline_request_seconds", "route"),),
        ),
    )


def _tokens() -> tuple[Panel, ...]:
    return (
        Panel(
            "Tokens by model and kind",
            "Billed tokens a second.",
            "none",
            (Query(rate_by("byline_tokens_total", "model", "kind"), "{{model}} {{kind}}"),),
            Kind.STACKED,
        ),
        Panel(
            "Where token counts come from",
            "`engine` is the engine's own usage block; the rest are answers that ended early. A "
            "mismatch is an answer whose usage and token ids disagree.",
            "ops",
            (
                Query(rate_by("byline_usage_total", "source"), "{{source}}"),
                Query("sum(rate(byline_usage_mismatch_total[$__rate_interval]))", "mismatch"),
            ),
        ),
        Panel(
            "Where `auto` goes",
            "Requests a second that asked for `auto`, by the model that answered.",
            "reqps",
            (Query(rate_by("byline_auto_routed_total", "model"), "{{model}}"),),
            Kind.STACKED,
        ),
    )


def _attribution() -> tuple[Panel, ...]:
    return (
        Panel(
            "Attributions by state",
            "Settled attributions a second. `failed` pays the pool to unattributed: look why.",
            "ops",
            (
                Query(
                    rate_by("byline_attributions_total", "adapter", "state"),
                    "{{adapter}} {{state}}",
                ),
            ),
            Kind.STACKED,
        ),
        Panel(
            "Attribution time",
            "One job: the forward and backward passes, the inner products, the settlement.",
            "s",
            quantiles("byline_attribution_seconds"),
        ),
        Panel(
            "Lift over the base model, p50",
            "Log-probability of the served answer under the adapter less that under the base "
            "model. At or below zero nobody is paid.",
            "none",
            (quantile_by(0.5, "byline_attribution_lift_nats", "adapter"),),
            may_be_negative=True,
        ),
        Panel(
            "Jobs waiting",
            "Jobs on the stream that no worker has settled.",
            "none",
            (Query("max(byline_attribution_queue_length)", "jobs"),),
            width=6,
        ),
        Panel(
            "Age of the oldest job",
            "How long the oldest job has been waiting.",
            "s",
            (Query("max(byline_attribution_queue_age_seconds)", "oldest"),),
            width=6,
        ),
        Panel(
            "Pools closed, USD an hour",
            "Where the contributors' part of the charges went.",
            "currencyUSD",
            (
                Query(
                    rate_by(
                        "byline_pool_nano_total",
                        "adapter",
                        "to",
                        times=f" * 3600 / {NANO_PER_USD}",
                    ),
                    "{{adapter}} to {{to}}",
                ),
            ),
            Kind.STACKED,
            6,
        ),
        Panel(
            "Paid part of the pools",
            "What part of the pools went to contributors; the rest is unattributed.",
            "percentunit",
            (
                Query(
                    "sum by (adapter) (rate("
                    'byline_pool_nano_total{to="contributors"}[$__rate_interval])) / '
                    + rate_by("byline_pool_nano_total", "adapter"),
                    "{{adapter}}",
                ),
            ),
            width=6,
        ),
    )


def _ledger() -> tuple[Panel, ...]:
    return (
        Panel(
            "Posts by operation and outcome",
            "Ledger posts a second. `unknown` means no answer came: the caller sends the same key "
            "again, and the ledger posts it once.",
            "ops",
            (
                Query(
                    rate_by("byline_ledger_posts_total", "operation", "outcome"),
                    "{{operation}} {{outcome}}",
                ),
            ),
            Kind.STACKED,
        ),
        Panel(
            "Post time, p99",
            "One script on the server, with its write to disk.",
            "s",
            (quantile_by(0.99, "byline_ledger_post_seconds", "operation"),),
        ),
        Panel(
            "Charged, USD an hour",
            "What applications are charged, by model.",
            "currencyUSD",
            (
                Query(
                    rate_by(
                        "byline_charged_nano_total", "model", times=f" * 3600 / {NANO_PER_USD}"
                    ),
                    "{{model}}",
                ),
            ),
            Kind.STACKED,
        ),
        Panel(
            "Captures waiting",
            "Charges that gateways are still sending again, and those they gave up: answers that "
            "were served and charged to nobody.",
            "none",
            (
                Query("sum(byline_captures_waiting)", "waiting"),
                Query("sum(increase(byline_captures_lost_total[$__rate_interval]))", "given up"),
            ),
        ),
        Panel(
            "Holds expired",
            "Holds that returned by themselves: an answer was lost, or served and never charged.",
            "ops",
            (Query("sum(rate(byline_holds_expired_total[$__rate_interval]))", "holds"),),
        ),
        Panel(
            "Journal entries",
            "The length of the journal.",
            "none",
            (Query("max(byline_journal_entries)", "entries"),),
        ),
    )
