"""What the bookkeeper finds, and the figures it shows. Records only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What can be wrong with the books."""

    DRIFT = "drift"  # a balance is not what the journal folds to
    GAP = "gap"  # the journal misses an entry
    UNBALANCED_ENTRY = "unbalanced entry"
    UNBALANCED_INFERENCE = "unbalanced inference"
    REWRITTEN = "rewritten"  # an entry is not what was read before
    MARK = "mark"  # an entry has no mark: it could be posted again
    UNLISTED = "unlisted"  # a hold or a pool that nobody would ever finish, or the reverse
    ROUNDING = "rounding"  # the account that must stay empty
    ARCHIVE = "archive"  # SQL has another balance
    ARCHIVE_ROW = "archive row"  # a row in SQL is not what its entry says
    SERVER = "server"  # its settings were changed so that it could lose money
    TRIMMED = "trimmed"  # more of the journal is gone than is exported and in a snapshot


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and whose."""

    kind: Kind
    subject: str  # an account, an entry's number, an inference
    says: str

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}: {self.says}"


@dataclass(frozen=True, slots=True)
class Figures:
    """The gauges of one ledger, after one round."""

    conservation_error_nano: int = 0
    folded_seq: int = 0
    lag_entries: int = 0
    open_holds: int = 0
    oldest_hold_seconds: float = 0.0
    open_pools: int = 0
    oldest_pool_seconds: float = 0.0
    snapshot_seq: int = 0
    exported_seq: int = 0
    trimmed_seq: int = 0
    memory_used_ratio: float = 0.0
    archive_read_seq: int = 0  # how far the patrol over the archive is
    restored_jobs: int = 0  # in this round
    jobless_pools: int = 0  # whose jobs can't be made again
    frozen: str | None = None
    balances: Mapping[str, int] = field(default_factory=dict)  # a closed set of names


@dataclass(frozen=True, slots=True)
class Findings:
    """One round: what was found twice in a row, and the figures."""

    found: tuple[Finding, ...]
    figures: Figures

    @property
    def balanced(self) -> bool:
        """True when there is nothing to explain."""
        return not self.found

    def count(self, *kinds: Kind) -> int:
        """How many findings are of these kinds."""
        return sum(finding.kind in kinds for finding in self.found)
