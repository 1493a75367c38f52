"""From Locust's statistics to the figures of one load test. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

FIRST_TOKEN = "FIRST"  # as in locustfile: times that are no requests
PERCENTILES = (50, 95, 99)

Entry = Mapping[str, Any]


def percentile(response_times: Mapping[str, int], percent: int) -> float | None:
    """The nearest-rank percentile of Locust's histogram, milliseconds -> count; None if empty."""
    times = sorted((float(milliseconds), count) for milliseconds, count in response_times.items())
    rank = -(-sum(response_times.values()) * percent // 100)
    seen = 0
    for milliseconds, count in times:
        seen += count
        if seen >= rank:
            return milliseconds
    return None


def routes_of(stats: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """Each route's count, percentiles and failures."""
    return {
        entry["name"]: {
            "count": entry["num_requests"],
            **{f"p{p}_ms": percentile(entry["response_times"], p) for p in PERCENTILES},
            "failures": entry["num_failures"],
        }
        for entry in sorted(stats, key=lambda entry: str(entry["name"]))
    }


def elapsed_seconds(stats: Sequence[Entry]) -> float:
    """From the first request to the last answer."""
    starts = [entry["start_time"] for entry in stats]
    ends = [entry["last_request_timestamp"] or entry["start_time"] for entry in stats]
    return float(max(ends) - min(starts)) if stats else 0.0


def figures(
    stats: Sequence[Entry],
    *,
    users: int,
    books: Mapping[str, Any],
    states: Iterable[str],
    settle_seconds: float,
) -> dict[str, Any]:
    """The one JSON object of a load test."""
    asked = [entry for entry in stats if entry["method"] != FIRST_TOKEN]
    requests = sum(entry["num_requests"] for entry in asked)
    seconds = elapsed_seconds(asked)
    return {
        "seconds": round(seconds, 1),
        "users": users,
        "requests": requests,
        "failures": sum(entry["num_failures"] for entry in asked),
        "requests_per_second": round(requests / seconds, 2) if seconds else 0.0,
        "routes": routes_of(stats),
        "attributions": dict(sorted(Counter(states).items())),
        "settle_seconds": round(settle_seconds, 1),
        "books": dict(books),
    }


def is_good(report: Mapping[str, Any]) -> bool:
    """True where everything was answered, nothing failed, and the books balance."""
    return (
        report["requests"] > 0
        and report["failures"] == 0
        and report["attributions"].get("failed", 0) == 0
        and bool(report["books"].get("balanced"))
    )
