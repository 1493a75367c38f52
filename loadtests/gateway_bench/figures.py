"""What the rounds come to: medians with their spread, and the bars. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Figures: TypeAlias = Mapping[str, float | None]

OURS, DIRECT = "byline", "direct"
DIGITS = 4  # significant ones
GROWTH_REQUESTS = 100_000


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar; `at_most` says on which side of it to be."""

    name: str
    value: float | None
    bar: float
    at_most: bool
    why: str | None = None  # why there is no verdict

    def fields(self) -> dict[str, Any]:
        """As it is printed: no verdict without a value."""
        passed = None
        if self.value is not None and self.why is None:
            passed = self.value <= self.bar if self.at_most else self.value >= self.bar
        return {
            "value": rounded(self.value), "bar": self.bar, "passed": passed,
            **({"why": self.why} if self.why else {}),
        }  # fmt: skip


def rounded(value: float | None) -> float | None:
    """To so many significant digits; large numbers to whole ones."""
    if value is None:
        return None
    return round(value) if abs(value) >= 10**DIGITS else float(f"{value:.{DIGITS}g}")


def summary(rounds: Sequence[Figures]) -> dict[str, Any]:
    """The median of each figure, and every round's."""
    medians: dict[str, Any] = {}
    spread: dict[str, Any] = {}
    for name in dict.fromkeys(name for each in rounds for name in each):
        values = sorted(value for each in rounds if (value := each.get(name)) is not None)
        medians[name] = rounded(statistics.median(values)) if values else None
        spread[name] = [rounded(value) for value in values]
    return {**medians, "rounds": spread}


def added_p50_ms(gateways: Mapping[str, Figures], name: str) -> float | None:
    """What a gateway adds to an answer's time at one connection."""
    own, upstream = _figure(gateways, name, "p50_ms_1"), _figure(gateways, DIRECT, "p50_ms_1")
    return None if own is None or upstream is None else own - upstream


def bars(
    gateways: Mapping[str, Figures], *, sync_ms: float, growth: float, grown_over: int
) -> dict[str, Any]:
    """What was to be reached, and what was; each value from this run alone."""
    own = added_p50_ms(gateways, OURS)
    beyond = None if own is None else own - sync_ms
    peer_added = added_p50_ms(gateways, "tensorzero")
    portkey_p99 = _figure(gateways, "portkey", "p99_ms_32")
    short = f"only {grown_over} requests" if grown_over < GROWTH_REQUESTS else None
    found = [
        _times(gateways, "litellm", "requests_per_second_32", 40.0),
        _times(gateways, "portkey", "requests_per_second_32", 2.5),
        Bar("added_p50_ms_beyond_one_sync", beyond, 0.8, at_most=True),
        Bar(
            "added_p50_times_tensorzero",
            beyond / peer_added if beyond is not None and peer_added else None,
            2.0, at_most=True, why=_missing("tensorzero", peer_added),
        ),
        Bar(
            "p99_ms_32_times_portkey",
            _ratio(_figure(gateways, OURS, "p99_ms_32"), portkey_p99),
            1.0, at_most=True, why=_missing("portkey", portkey_p99),
        ),
        _times(gateways, "litellm", "burst_chunks_per_second", 100.0),
        Bar(
            "burst_chunks_per_second",
            _figure(gateways, OURS, "burst_chunks_per_second"), 150_000.0, at_most=False,
        ),
        Bar("rss_growth", growth, 0.05, at_most=True, why=short),
    ]  # fmt: skip
    return {each.name: each.fields() for each in found}


def _times(gateways: Mapping[str, Figures], peer: str, figure: str, bar: float) -> Bar:
    theirs = _figure(gateways, peer, figure)
    value = _ratio(_figure(gateways, OURS, figure), theirs)
    name = f"{figure}_times_{peer}"
    return Bar(name, value, bar, at_most=False, why=_missing(peer, theirs))


def _ratio(own: float | None, theirs: float | None) -> float | None:
    return own / theirs if own is not None and theirs else None


def _missing(peer: str, value: float | None) -> str | None:
    return None if value else f"{peer} was not measured"


def _figure(gateways: Mapping[str, Figures], name: str, figure: str) -> float | None:
    return gateways.get(name, {}).get(figure)
