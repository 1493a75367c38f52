"""What a panel is, and the shapes of PromQL that panels are made of, for Prometheus 2.42."""

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


def rate_by(metric: str, *labels: str) -> str:
    """Per-second rate of a counter, summed over everything but `labels`."""
    return f"sum by ({', '.join(labels)}) (rate({metric}[$__rate_interval]))"


def quantiles(histogram: str, levels: tuple[float, ...] = (0.5, 0.95, 0.99)) -> tuple[Query, ...]:
    """Percentiles of a histogram over all its series."""
    return tuple(
        Query(
            f"histogram_quantile({level}, sum by (le) "
            f"(rate({histogram}_bucket[$__rate_interval])))",
            f"p{round(level * 100)}",
        )
        for level in levels
    )


def quantile_by(level: float, histogram: str, label: str) -> Query:
    """One percentile of a histogram for each value of a label."""
    return Query(
        f"histogram_quantile({level}, sum by (le, {label}) "
        f"(rate({histogram}_bucket[$__rate_interval])))",
        f"{{{{{label}}}}}",
    )


def usd_an_hour(counter_nano: str, *labels: str) -> str:
    """A counter of nano-USD as dollars an hour: floats are for screens only."""
    return rate_by(counter_nano, *labels) + f" * 3600 / {NANO_PER_USD}"
