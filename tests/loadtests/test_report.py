"""The figures of a load test from Locust's statistics, computed by hand beside them."""

from typing import Any

import pytest

from loadtests.report import figures, is_good, percentile

BOOKS = {"balanced": True, "journal_entries": 42, "accounts_sum_nano": 0}


def entry(name: str, *, method: str = "POST", failures: int = 0) -> dict[str, Any]:
    """Ten requests of 100 to 1,000 ms, from second 1 to second 6."""
    return {
        "name": name,
        "method": method,
        "num_requests": 10,
        "num_failures": failures,
        "response_times": {str(100 * step): 1 for step in range(1, 11)},
        "start_time": 1.0,
        "last_request_timestamp": 6.0,
    }


def report_of(*stats: dict[str, Any], books: dict[str, Any] | None = None) -> dict[str, Any]:
    states = ["done", "done", "skipped"]
    return figures(stats, users=4, books=books or BOOKS, states=states, settle_seconds=1.26)


def test_a_percentile_is_the_nearest_rank() -> None:
    times = {"10": 50, "20": 45, "1000": 5}
    assert [percentile(times, percent) for percent in (50, 51, 95, 96, 99)] == [
        10.0, 20.0, 20.0, 1000.0, 1000.0,
    ]  # fmt: skip


def test_times_are_ordered_as_numbers_not_as_text() -> None:
    assert percentile({"900": 1, "1000": 1}, 50) == 900.0


def test_no_requests_have_no_percentile() -> None:
    assert percentile({}, 50) is None


def test_the_report_sums_routes_and_counts_states() -> None:
    report = report_of(entry("chat plain"), entry("earnings", method="GET"))
    assert report["requests"] == 20
    assert report["seconds"] == 5.0
    assert report["requests_per_second"] == 4.0
    assert report["routes"]["chat plain"] == {
        "count": 10,
        "p50_ms": 500.0,
        "p95_ms": 1000.0,
        "p99_ms": 1000.0,
        "failures": 0,
    }
    assert report["attributions"] == {"done": 2, "skipped": 1}
    assert report["settle_seconds"] == 1.3
    assert report["books"] == BOOKS
    assert is_good(report)


def test_first_token_times_are_shown_and_are_no_requests() -> None:
    report = report_of(entry("chat"), entry("chat, first token", method="FIRST"))
    assert report["requests"] == 10
    assert report["routes"]["chat, first token"]["p50_ms"] == 500.0


@pytest.mark.parametrize(
    "report",
    [
        report_of(),
        report_of(entry("chat", failures=1)),
        report_of(entry("chat"), books=BOOKS | {"balanced": False}),
        report_of(entry("chat")) | {"attributions": {"failed": 1}},
    ],
    ids=["nothing was asked", "a failure", "unbalanced books", "a failed attribution"],
)
def test_a_bad_report_is_not_good(report: dict[str, Any]) -> None:
    assert not is_good(report)
