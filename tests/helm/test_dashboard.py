"""The dashboard is built from code, parses, and asks only for what is exported."""

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from byline.archive.metrics import ArchiveMetrics
from byline.bookkeeping.gauges import BooksMetrics
from byline.notary.metrics import NotaryMetrics
from gateway.engines.metrics import EngineMetrics
from gateway.telemetry import Telemetry
from helm.dashboards import build, panels
from helm.dashboards.expressions import (
    expressions_of_dashboard,
    expressions_of_rules,
    metric_names,
    metric_names_of_exposition,
    missing,
    missing_metrics,
)
from serving.telemetry import AuditorMetrics, WorkerMetrics

ROOT = Path(__file__).parents[2]
ALERTS = (ROOT / "helm/dashboards/alerts.yaml").read_text()
EXPOSITION = """\
# HELP byline_requests_total Requests.
# TYPE byline_requests_total counter
byline_requests_total{route="chat",model="auto",status="200"} 3.0
# HELP byline_request_seconds Time.
# TYPE byline_request_seconds histogram
byline_request_seconds_bucket{le="1.0",route="chat"} 2.0
byline_request_seconds_bucket{le="+Inf",route="chat"} 3.0
byline_request_seconds_count{route="chat"} 3.0
byline_request_seconds_sum{route="chat"} 2.5
"""


def dashboard_of(*expressions: str) -> str:
    """A dashboard with these expressions, one of them in a collapsed row."""
    targets = [{"targets": [{"expr": expression}]} for expression in expressions]
    return json.dumps({"panels": [{"panels": targets[:1]}, *targets[1:]]})


def test_the_committed_dashboard_is_the_generated_one() -> None:
    assert build.OUTPUT.read_text() == build.build(), "run python -m helm.dashboards.build"


def test_every_expression_of_the_dashboard_parses_and_is_found() -> None:
    expressions = expressions_of_dashboard(build.build())
    assert len(expressions) == sum(
        len(panel.queries) for row in panels.ROWS for panel in row.panels
    )
    names = {name for expression in expressions for name in metric_names(expression)}
    assert all(name.startswith("byline_") for name in names)


def test_every_query_of_a_panel_has_its_own_reference_id() -> None:
    for panel in json.loads(build.build())["panels"]:
        identifiers = [target["refId"] for target in panel.get("targets", ())]
        assert all(identifiers)
        assert len(set(identifiers)) == len(identifiers)


def test_no_two_panels_overlap_or_share_an_id() -> None:
    taken: set[tuple[int, int]] = set()
    drawn = json.loads(build.build())["panels"]
    assert len({panel["id"] for panel in drawn}) == len(drawn)
    for panel in drawn:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_an_expression_names_its_metrics_and_the_labels_it_needs() -> None:
    expression = 'sum by (le, route) (rate(a_bucket{model="x"}[5m])) / on (route) max(b) or c'
    assert metric_names(expression) == {
        "a_bucket": {"le", "route", "model"},
        "b": set(),
        "c": set(),
    }


def test_an_expression_that_does_not_parse_is_refused() -> None:
    with pytest.raises(ValueError, match="rate"):
        metric_names("rate(a)")


def test_a_selector_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="without a metric name"):
        metric_names('{job="gateway"}')


def test_the_samples_of_an_exposition_come_with_their_labels() -> None:
    found = metric_names_of_exposition(EXPOSITION)
    assert found["byline_requests_total"] == {"route", "model", "status"}
    assert found["byline_request_seconds_bucket"] == {"route", "le"}


def test_a_dashboard_over_exported_metrics_misses_nothing() -> None:
    board = dashboard_of(
        "sum by (model, instance) (rate(byline_requests_total[$__rate_interval]))",
        "histogram_quantile(0.9, sum by (le) (rate(byline_request_seconds_bucket[5m])))",
    )
    assert missing_metrics(board, ["", EXPOSITION]) == set()


def test_a_metric_or_a_label_that_nobody_exports_is_named() -> None:
    board = dashboard_of("sum by (tenant) (byline_requests_total)", "byline_nothing_total")
    assert missing_metrics(board, [EXPOSITION]) == {
        "byline_requests_total{tenant}",
        "byline_nothing_total",
    }


def test_every_alert_parses_and_reads_what_the_dashboard_shows_too() -> None:
    read = {n: ls for e in expressions_of_rules(ALERTS) for n, ls in metric_names(e).items()}
    shown = {n for e in expressions_of_dashboard(build.build()) for n in metric_names(e)}
    assert read.keys() <= shown
    assert missing(expressions_of_rules(ALERTS), [EXPOSITION]) >= {"byline_spool_oldest_seconds"}


def exposition_of(registry: CollectorRegistry) -> str:
    """The page of a program that has counted everything it can count, once."""
    for metric in list(registry._collector_to_names):
        names = getattr(metric, "_labelnames", ()) or getattr(metric, "labelnames", ())
        if names:
            child = metric.labels(*names)  # type: ignore[attr-defined]
            child.observe(1) if hasattr(child, "observe") else child.inc()
    return generate_latest(registry).decode()


def test_the_programs_count_everything_that_the_dashboard_and_the_alerts_ask_for() -> None:
    gateway = Telemetry()
    EngineMetrics(gateway.registry)
    programs = (
        gateway, WorkerMetrics(), AuditorMetrics(), ArchiveMetrics(), BooksMetrics(),
        NotaryMetrics(),
    )  # fmt: skip
    pages = [exposition_of(program.registry) for program in programs]
    assert missing_metrics(build.build(), pages) == set()
    assert missing(expressions_of_rules(ALERTS), pages) == set()


def test_the_operating_guide_says_what_to_do_for_each_alert() -> None:
    guide = (ROOT / "docs/operating.md").read_text()
    headings = set(re.findall(r"^#+ (\w+)$", guide, re.MULTILINE))
    alerts = {
        rule["alert"] for group in yaml.safe_load(ALERTS)["groups"] for rule in group["rules"]
    }
    assert alerts <= headings
