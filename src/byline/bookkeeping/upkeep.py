"""What of a ledger stays in Redis."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Upkeep:
    """When a snapshot is taken, and what is never trimmed."""

    snapshot_entries: int = 100_000  # between two snapshots
    keep_entries: int = 200_000  # of the journal, the newest ...
    keep_days: float = 7.0  # ... and all that are younger: refunds are drawn up from them


USUAL = Upkeep()
