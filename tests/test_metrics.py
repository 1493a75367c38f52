"""The table of metrics in the operating guide and what the programs export are the same."""

import re
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from byline.archive.metrics import ArchiveMetrics
from byline.bookkeeping.gauges import BooksMetrics
from byline.notary.metrics import NotaryMetrics
from gateway.engines.metrics import EngineMetrics
from gateway.telemetry import Telemetry
from serving.telemetry import AuditorMetrics, WorkerMetrics

GUIDE = Path(__file__).parent.parent / "docs" / "operating.md"
METRIC = re.compile(r"`([a-z_]+)(?:\{([a-z_,]*)\})?`")


def exported() -> dict[str, tuple[str, ...]]:
    """Each metric's name, a counter's with its `_total`, and its labels."""
    gateway = Telemetry().registry
    EngineMetrics(gateway)
    programs = (
        WorkerMetrics(), AuditorMetrics(), ArchiveMetrics(), BooksMetrics(), NotaryMetrics(),
    )  # fmt: skip
    registries = [gateway, *(program.registry for program in programs)]
    return {name: labels for registry in registries for name, labels in metrics_of(registry)}


def metrics_of(registry: CollectorRegistry) -> list[tuple[str, tuple[str, ...]]]:
    found = []
    collectors: list[Any] = list(registry._collector_to_names)
    for collector in collectors:
        labels = getattr(collector, "_labelnames", ()) or getattr(collector, "labelnames", ())
        for family in collector.collect():
            suffix = "_total" if family.type == "counter" else ""
            found.append((family.name + suffix, tuple(labels)))
    return found


def documented(guide: str) -> list[tuple[str, tuple[str, ...]]]:
    """What the first column of the table under "Metrics" names."""
    section = guide.split("\n## Metrics\n")[1].split("\n## ", maxsplit=1)[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [
        (name, tuple(labels.split(",")) if labels else ())
        for row in rows
        for name, labels in METRIC.findall(row)
    ]


def test_every_metric_that_is_exported_is_documented_with_its_labels_and_the_reverse() -> None:
    table = documented(GUIDE.read_text())
    assert len(table) > 50
    assert dict(table) == exported()


def test_no_metric_is_documented_twice() -> None:
    names = [name for name, _ in documented(GUIDE.read_text())]
    assert sorted(names) == sorted(set(names))


def test_every_metric_says_in_one_sentence_what_it_is() -> None:
    gateway = Telemetry().registry
    EngineMetrics(gateway)
    texts = [family.documentation for family in gateway.collect() if family.name[:6] == "byline"]
    assert len(texts) > 25
    assert not [text for text in texts if not text.endswith(".")]
