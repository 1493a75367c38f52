"""What the dashboard and the alerts ask of the metrics, and whether the programs export it.

An expression over a metric or a label that nobody exports is valid PromQL and shows nothing, so it
is held against real `/metrics` texts. Names are compared sample by sample: a histogram's quantile
asks for `<name>_bucket`, which a summary of the same name would not have.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import promql_parser
import yaml
from prometheus_client.parser import text_string_to_metric_families

# What Grafana puts in before it asks Prometheus.
GRAFANA_VARIABLES = {"$__rate_interval": "5m", "$__range": "1h"}
# What Prometheus adds to every sample it scrapes.
TARGET_LABELS = {"instance", "job"}


def expressions_of_dashboard(dashboard_json: str) -> list[str]:
    """Every expression of a dashboard, ready for Prometheus."""
    expressions = []
    for panel in _panels(json.loads(dashboard_json)):
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for variable, value in GRAFANA_VARIABLES.items():
                expression = expression.replace(variable, value)
            expressions.append(expression)
    return expressions


def expressions_of_rules(rules_yaml: str) -> list[str]:
    """Every expression of a Prometheus rules file."""
    groups = yaml.safe_load(rules_yaml)["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def metric_names(expression: str) -> dict[str, set[str]]:
    """The metrics an expression reads, each with the labels it needs.

    Raises ValueError if the expression does not parse or a selector has no name.
    """
    found: dict[str, set[str]] = {}
    for name, labels in _selectors(promql_parser.parse(expression), frozenset()):
        found.setdefault(name, set()).update(labels)
    return found


def metric_names_of_exposition(text: str) -> dict[str, set[str]]:
    """The sample names in the text of a `/metrics` page, each with the labels it carries."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def missing(expressions: Iterable[str], expositions: Iterable[str]) -> set[str]:
    """What the expressions read and no exposition has: `metric`, or `metric{label}`."""
    exported: dict[str, set[str]] = {}
    for text in expositions:
        for name, labels in metric_names_of_exposition(text).items():
            exported.setdefault(name, set()).update(labels)
    lacking = set()
    for expression in expressions:
        for name, labels in metric_names(expression).items():
            if name not in exported:
                lacking.add(name)
            else:
                lacking |= {
                    f"{name}{{{label}}}" for label in labels - exported[name] - TARGET_LABELS
                }
    return lacking


def missing_metrics(dashboard_json: str, expositions: list[str]) -> set[str]:
    """What the dashboard reads and no exposition has; empty where every panel can show data."""
    return missing(expressions_of_dashboard(dashboard_json), expositions)


def _panels(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for panel in node.get("panels", ()):
        yield panel
        yield from _panels(panel)  # a collapsed row holds its panels


def _selectors(
    node: promql_parser.Expr, grouped_by: frozenset[str]
) -> Iterator[tuple[str, frozenset[str]]]:
    if isinstance(node, promql_parser.VectorSelector):
        if node.name is None:
            raise ValueError(f"a selector without a metric name: {node}")
        yield node.name, grouped_by | {matcher.name for matcher in node.matchers.matchers}
        return
    if isinstance(node, promql_parser.AggregateExpr):
        modifier = node.modifier
        if modifier is not None and modifier.type == promql_parser.AggModifierType.By:
            grouped_by |= frozenset(modifier.labels)
    for child in _children(node):
        yield from _selectors(child, grouped_by)


def _children(node: promql_parser.Expr) -> list[promql_parser.Expr]:
    if isinstance(node, promql_parser.BinaryExpr):
        return [node.lhs, node.rhs]
    if isinstance(node, promql_parser.Call):
        return list(node.args)
    if isinstance(node, promql_parser.MatrixSelector):
        return [node.vector_selector]
    if isinstance(
        node,
        promql_parser.AggregateExpr
        | promql_parser.ParenExpr
        | promql_parser.SubqueryExpr
        | promql_parser.UnaryExpr,
    ):
        return [node.expr]
    return []
