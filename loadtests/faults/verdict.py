"""What a run has found wrong, by kind, in the form that is printed. Knows nothing of how."""

from dataclasses import dataclass, field
from typing import Any

SHOWN_MAX = 20  # findings in words; the counts are of all


@dataclass(slots=True)
class Verdict:
    """Everything that must not be. Empty: every promise was kept."""

    lost: set[str] = field(default_factory=set)  # event keys
    doubled: set[str] = field(default_factory=set)  # event keys
    drift_nano: int = 0
    gaps: int = 0
    unbalanced: set[str] = field(default_factory=set)  # inferences
    others: int = 0
    said: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """One finding in words."""
        if len(self.said) < SHOWN_MAX:
            self.said.append(text)

    def note_lost(self, key: str, says: str) -> None:
        """An acknowledged operation is not there."""
        self.lost.add(key)
        self.say(f"lost: {key} {says}")

    def note_doubled(self, key: str, says: str) -> None:
        """An operation is there twice."""
        self.doubled.add(key)
        self.say(f"doubled: {key} {says}")

    def note_drift(self, account: str, folded: int, stored: int, where: str) -> None:
        """A balance is not what the journal says."""
        self.drift_nano += abs(folded - stored)
        self.say(f"drift: {account} holds {stored} in {where}, the journal says {folded}")

    def note_gap(self, seq: int) -> None:
        """An entry's number is missing."""
        self.gaps += 1
        self.say(f"gap: entry {seq} is missing")

    def note_unbalanced(self, inference: str, says: str) -> None:
        """An inference does not balance by itself."""
        self.unbalanced.add(inference)
        self.say(f"unbalanced: inference {inference} {says}")

    def note(self, says: str) -> None:
        """Anything else that is wrong."""
        self.others += 1
        self.say(says)

    @property
    def is_clean(self) -> bool:
        """True when nothing was found."""
        return not (
            self.lost or self.doubled or self.drift_nano or self.gaps or self.unbalanced
            or self.others
        )  # fmt: skip

    def figures(self) -> dict[str, Any]:
        """As it is printed."""
        return {
            "lost": len(self.lost),
            "doubled": len(self.doubled),
            "drift_nano": self.drift_nano,
            "gaps": self.gaps,
            "unbalanced_inferences": len(self.unbalanced),
            "other_findings": self.others,
            "findings": self.said,
        }
