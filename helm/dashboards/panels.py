"""What the dashboard shows: every panel with its PromQL, from what a user notices to the books.

Counters of money are nano-USD; a screen shows dollars.
"""

from helm.dashboards.audit_panels import AUDITS
from helm.dashboards.books_panels import BOOKS, PROOFS
from helm.dashboards.gateway_panels import ENGINES, JOURNEYS, RELEASES
from helm.dashboards.queries import (
    NANO_PER_USD,
    Kind,
    Panel,
    Query,
    Row,
    quantile_by,
    quantiles,
    rate_by,
    usd_an_hour,
)

GLANCE = (
    Panel(
        "Accounts sum",
        "Every entry is balanced, so all accounts together are zero. Anything else is a defect "
        "of the books: stop posting and see the operating guide.",
        "none",
        (Query("max(abs(byline_books_conservation_error_nano))", "nano-USD"),),
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
        "Answers that were served and whose charge the ledger has not confirmed yet; each "
        "should be through in milliseconds.",
        "none",
        (Query("sum(byline_captures_waiting)", "captures"),),
        Kind.NUMBER,
        4,
        red_from=20,
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


REQUESTS = (
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
        "What the gateway and its ledger add: the whole less the engine's and slow clients' time.",
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


TOKENS = (
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


ATTRIBUTION = (
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
        "Lift over the base model",
        "Log-probability of the served answer under the adapter less that under the base "
        "model. At or below zero nobody is paid.",
        "none",
        quantiles("byline_attribution_lift_nats", (0.05, 0.5, 0.95)),
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
        "Payment paused",
        "1 while an adapter version is not paid, since its audits are bad: its pools wait open.",
        "none",
        (Query("max by (adapter_version) (byline_payment_paused)", "{{adapter_version}}"),),
        Kind.NUMBER,
        6,
        red_from=1,
    ),
    Panel(
        "Pools closed, USD an hour",
        "Where the contributors' part of the charges went.",
        "currencyUSD",
        (
            Query(
                usd_an_hour("byline_pool_nano_total", "adapter", "to"),
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


LEDGER = (
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
                usd_an_hour("byline_charged_nano_total", "model"),
                "{{model}}",
            ),
        ),
        Kind.STACKED,
    ),
    Panel(
        "Captures waiting",
        "Charges that the ledger has not confirmed yet, and those it refused: answers that were "
        "served and charged to nobody.",
        "none",
        (
            Query("sum(byline_captures_waiting)", "under way"),
            Query("sum(byline_spool_waiting)", "in the spool"),
            Query("sum(increase(byline_captures_lost_total[$__rate_interval]))", "refused"),
        ),
    ),
    Panel(
        "Holds expired",
        "Holds that returned by themselves: an answer was lost, or served and never charged.",
        "ops",
        (
            # Gateways and workers both expire: their posts count each once.
            Query(
                "sum(rate(byline_ledger_posts_total"
                '{operation="expire",outcome="posted"}[$__rate_interval]))',
                "holds",
            ),
        ),
    ),
)

ROWS = (
    Row("At a glance", GLANCE),
    Row("Requests", REQUESTS),
    Row("Inferences", JOURNEYS),
    Row("Engines and adapters", ENGINES),
    Row("Rollouts", RELEASES),
    Row("Tokens and routing", TOKENS),
    Row("Attribution", ATTRIBUTION),
    Row("Audits", AUDITS),
    Row("Ledger", LEDGER),
    Row("Books and archive", BOOKS),
    Row("Proofs", PROOFS),
)
