"""The worker's port: /metrics for Prometheus, /healthz for whoever starts it, nothing else."""

import urllib.error
import urllib.request
from dataclasses import replace

import pytest

from byline.attribution import failed
from byline.metric_labels import LABELS_MAX, OTHER
from byline.metrics_server import metrics_server
from serving.telemetry import WorkerMetrics
from tests.serving.test_worker import JOB


def get(port: int, path: str) -> tuple[int, str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.status, answer.read().decode()


def test_the_port_shows_every_metric_and_its_health() -> None:
    metrics = WorkerMetrics()
    metrics.observe_post("settle", "posted", 0.01)
    metrics.observe_settled(failed(JOB, "because"))
    with metrics_server(metrics.registry, "127.0.0.1", 0) as port:
        assert get(port, "/healthz") == (200, "ok\n")
        status, text = get(port, "/metrics")
        with pytest.raises(urllib.error.HTTPError, match="404") as refused:
            get(port, "/anything")
        refused.value.close()
    assert status == 200
    assert 'byline_attributions_total{adapter="healthcare",state="failed"} 1.0' in text
    assert 'byline_ledger_posts_total{operation="settle",outcome="posted"} 1.0' in text
    for name in (
        "byline_attribution_seconds_bucket", "byline_attribution_queue_length",
        "byline_attribution_queue_age_seconds", "byline_holds_expired_total",
        "byline_pool_nano_total", "byline_payment_paused{",
        "byline_attribution_lift_nats_bucket", "byline_ledger_post_seconds_bucket",
    ):  # fmt: skip
        assert name in text


def test_two_workers_count_apart() -> None:
    one, other = WorkerMetrics(), WorkerMetrics()
    one.holds_expired.inc()
    assert other.registry.get_sample_value("byline_holds_expired_total") == 0


def test_adapters_without_end_share_one_label() -> None:
    metrics = WorkerMetrics()
    for number in range(1_000):
        job = replace(JOB, adapter_version=f"a{number}@0123456789ab")
        metrics.observe_settled(failed(job, "because"))
    shown = metrics.registry.get_sample_value
    labels = {"adapter": OTHER, "state": "failed"}
    assert shown("byline_attributions_total", labels) == 1_000 - LABELS_MAX


def test_the_jobs_of_all_ledgers_are_shown_as_one() -> None:
    metrics = WorkerMetrics()
    for ledger, length, age in (("usd-0", 2, 9.0), ("usd-1", 3, 4.0), ("usd-0", 1, 0.5)):
        metrics.observe_queue(ledger, length, age)
    assert metrics.registry.get_sample_value("byline_attribution_queue_length") == 4
    assert metrics.registry.get_sample_value("byline_attribution_queue_age_seconds") == 4.0
