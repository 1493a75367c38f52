"""Medians of rounds, with their spread."""

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SYNCS = 300
SYNCED_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Round:
    """So many posts in so many seconds, and how long each caller waited."""

    seconds: float
    waits: list[float]

    @property
    def rate(self) -> float:
        """Posts a second."""
        return len(self.waits) / self.seconds


def percentile_ms(waits: Sequence[float], hundredth: int) -> float:
    """How long so many hundredths of the callers waited at most."""
    return round(statistics.quantiles(waits, n=100)[hundredth - 1] * 1e3, 2)


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """The median round's figures, and the rate of each."""
    return {
        "posts_per_second": round(statistics.median(each.rate for each in rounds)),
        "rounds": sorted(round(each.rate) for each in rounds),
        "p50_ms": round(statistics.median(percentile_ms(each.waits, 50) for each in rounds), 2),
        "p99_ms": round(statistics.median(percentile_ms(each.waits, 99) for each in rounds), 2),
    }


def disk_sync_ms(folder: Path) -> dict[str, float]:
    """How long this disk takes to sync a page that was added to a file."""
    waits = []
    with (folder / "synced").open("wb", buffering=0) as file:
        for _ in range(SYNCS):
            file.write(os.urandom(SYNCED_BYTES))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            waits.append(time.perf_counter() - began)
    return {"p50": percentile_ms(waits, 50), "p99": percentile_ms(waits, 99)}
