"""The gateway's panels beyond requests and money: paces, journeys, refusals, engines, adapters."""

from helm.dashboards.queries import Kind, Panel, Query, quantile_by, quantiles, rate_by

JOURNEYS = (
    Panel(
        "Between two tokens",
        "The gaps between the pieces of streamed answers, all models.",
        "s",
        quantiles("byline_inter_token_seconds"),
    ),
    Panel(
        "Between two tokens by model, p95",
        "Which adapter stalls.",
        "s",
        (quantile_by(0.95, "byline_inter_token_seconds", "model"),),
    ),
    Panel(
        "Refused at the door",
        "Requests that a limit refused, by whose it is and which.",
        "ops",
        (
            Query(rate_by("byline_limit_refusals_total", "scope", "limit"), "{{scope}} {{limit}}"),
            Query("sum(increase(byline_reservations_overdue_total[1h]))", "overdue, in an hour"),
        ),
    ),
    Panel(
        "Holds, captures, voids",
        "Inferences a second. Holds are captures and voids, but for answers under way; what stays "
        "between them is lost and returns after its time.",
        "ops",
        (
            Query("sum(rate(byline_holds_total[$__rate_interval]))", "held"),
            Query("sum(rate(byline_captures_total[$__rate_interval]))", "captured"),
            Query("sum(rate(byline_voids_total[$__rate_interval]))", "given back"),
        ),
    ),
    Panel(
        "Clients that left",
        "Inferences a second whose client went away before the end.",
        "ops",
        (Query(rate_by("byline_aborts_total", "mode"), "{{mode}}"),),
        Kind.STACKED,
    ),
    Panel(
        "Streams that broke off",
        "Streams a second that ended with an error after they had begun.",
        "ops",
        (Query(rate_by("byline_streams_broken_total", "model"), "{{model}}"),),
        Kind.STACKED,
    ),
)

RELEASES = (
    Panel(
        "New release refused",
        "1 where a gateway refuses a new release and serves the one before; /readyz says why.",
        "none",
        (Query("max by (instance) (byline_release_refused)", "{{instance}}"),),
        width=6,
    ),
    Panel(
        "Adapter versions at the engines",
        "On how many engines each is ready: how far a rollout is, and what drains.",
        "none",
        (
            Query(
                "sum by (adapter) (max by (adapter, engine) (byline_adapter_ready))", "{{adapter}}"
            ),
        ),
        Kind.STACKED,
        6,
    ),
    Panel(
        "Loads that failed",
        "Adapters that an engine refused, or that change nothing: the release is refused for them.",
        "none",
        (
            Query(
                "sum by (engine, outcome) "
                '(increase(byline_adapter_loads_total{outcome!="ready"}[1h]))',
                "{{engine}} {{outcome}}",
            ),
        ),
        width=6,
    ),
    Panel(
        "Answers by model",
        "Requests a second, a name of an adapter each: a canary's part shows here.",
        "ops",
        (Query(rate_by("byline_requests_total", "model"), "{{model}}"),),
        Kind.STACKED,
        6,
    ),
)

ENGINES = (
    Panel(
        "Engines",
        "1 while an engine is reached; and whether it is left alone after failures.",
        "none",
        (
            Query("min by (engine) (byline_engine_up)", "{{engine}} up"),
            Query("max by (engine) (byline_engine_breaker_open)", "{{engine}} left alone"),
        ),
        width=6,
    ),
    Panel(
        "Work at the engines",
        "Requests in flight.",
        "none",
        (Query("sum by (engine) (byline_engine_requests_in_flight)", "{{engine}}"),),
        Kind.STACKED,
        6,
    ),
    Panel(
        "Tokens at the engines",
        "What the requests in flight may be, at most: what the choice of an engine goes by.",
        "none",
        (Query("sum by (engine) (byline_engine_tokens_in_flight)", "{{engine}}"),),
        Kind.STACKED,
        6,
    ),
    Panel(
        "Engines that have an adapter",
        "On how many engines each adapter is loaded and changes the answers; at 0 it is refused.",
        "none",
        (
            Query(
                "sum by (adapter) (max by (adapter, engine) (byline_adapter_ready))", "{{adapter}}"
            ),
        ),
        width=6,
    ),
    Panel(
        "Adapters brought to engines",
        "Loads an hour, by what came of them. Many: engines restart.",
        "none",
        (Query("sum by (outcome) (increase(byline_adapter_loads_total[1h]))", "{{outcome}}"),),
        Kind.STACKED,
        6,
    ),
    Panel(
        "Cold requests and evictions",
        "Requests a second whose adapter was in none of the engine's places, and adapters that "
        "left one for another. Many: more adapters are asked for than the engines mix.",
        "ops",
        (
            Query("sum(rate(byline_adapter_cold_total[$__rate_interval]))", "cold"),
            Query("sum(rate(byline_adapter_evictions_total[$__rate_interval]))", "evicted"),
        ),
        width=6,
    ),
    Panel(
        "Waiting for a place",
        "Requests whose adapter finds no place among those in flight.",
        "none",
        (Query("sum(byline_adapter_waiting)", "requests"),),
        width=6,
    ),
    Panel(
        "Longest wait for a place",
        "More adapters are asked for at a time than the engines mix.",
        "s",
        (Query("max(byline_adapter_waiting_seconds)", "oldest"),),
        width=6,
    ),
    Panel(
        "Second engine asked",
        "Requests a second that another engine was asked for before a byte had come.",
        "ops",
        (Query("sum(rate(byline_engine_repeats_total[$__rate_interval]))", "requests"),),
        width=6,
    ),
)
