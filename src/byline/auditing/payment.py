"""Whether an adapter version is paid: below a floor of fidelity its pools stay open, and wait.

Two files of the home's `payment/` folder, each with one writer and replaced whole by rename, so
that nobody's word is lost: `paused.json` is what the auditor found, `resumed.json` when an operator
said that a version is paid again. A pause is in force unless a word came after it. The operator's
word also covers every answer served before it: only younger ones are judged from then on.
"""

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from byline.auditing.audit import Audit
from byline.auditing.gauges import fidelity_of
from byline.auditing.plan import AuditPlan
from byline.errors import ArtifactError
from byline.posting.postings import event_ms

AUDITS_JUDGED = 50  # the newest of a version
AUDITS_JUDGED_MIN = 10  # fewer say nothing
AUDITS_READ_MAX = 5_000  # when the auditor starts; a version with none among them is not judged
logger = logging.getLogger("byline.auditor")


@dataclass(frozen=True, slots=True)
class Pause:
    """Since when a version is not paid, and the figures that were the reason."""

    since_ms: int
    reason: str


class PaymentPauses:
    """The two files."""

    def __init__(self, folder: Path) -> None:
        self._found = folder / "paused.json"
        self._words = folder / "resumed.json"

    def in_force(self) -> dict[str, Pause]:
        """The versions that are not paid. Raises ArtifactError where a file says nothing clear:
        then nobody may be paid."""
        resumed = self.resumed()
        found = self._pauses()
        return {
            version: pause
            for version, pause in found.items()
            if resumed.get(version, -1) < pause.since_ms
        }

    def resumed(self) -> dict[str, int]:
        """When an operator last said that a version is paid again. Raises ArtifactError."""
        words = _read(self._words)
        if not all(type(ms) is int for ms in words.values()):
            raise ArtifactError(f"{self._words} is no list of resumptions")
        return dict(words)

    def write(self, pauses: Mapping[str, Pause]) -> None:
        """What the auditor found: this is all of it, and only the auditor's to write."""
        _replace(self._found, {version: asdict(pause) for version, pause in pauses.items()})

    def resume(self, version: str, *, now_ms: int) -> None:
        """An operator's word: the version is paid again, and judged by younger answers only."""
        _replace(self._words, {**self.resumed(), version: now_ms})

    def _pauses(self) -> dict[str, Pause]:
        try:
            return {version: _pause(fields) for version, fields in _read(self._found).items()}
        except (KeyError, TypeError) as problem:
            raise ArtifactError(f"{self._found} is no list of pauses: {problem!r}") from problem


class PaymentJudge:
    """The auditor's part: decides by the audits, of all ledgers, and the operators' words.

    What it decides follows from the audits' records, so a judge that is killed is followed by one
    that decides the same. A version that is in no plan any more stays as it is.
    """

    def __init__(self, plan: AuditPlan, pauses: PaymentPauses) -> None:
        self._plan = plan
        self._pauses = pauses
        self._audits: dict[str, dict[tuple[str, int], Audit]] = {
            version: {} for version in plan.adapters
        }

    @property
    def has_enough(self) -> bool:
        """Whether older audits would change nothing."""
        return all(len(known) >= AUDITS_JUDGED for known in self._audits.values())

    def take(self, audits: Iterable[Audit]) -> None:
        """Judge by these too, in any order; one that is known changes nothing."""
        for audit in audits:
            known = self._audits.get(audit.paid.adapter_version or "")
            if known is None:
                continue
            known[audit.paid.inference, audit.paid.ordinal] = audit
            if len(known) > AUDITS_JUDGED:
                del known[min(known)]  # the oldest: an id begins with its time

    def decide(self, *, now_ms: int) -> None:
        """Write down which versions are paused, if that has changed. Raises ArtifactError."""
        resumed, paused = self._pauses.resumed(), self._pauses.in_force()
        after = {version: at for version, at in paused.items() if version not in self._audits}
        for version, known in self._audits.items():
            since = resumed.get(version, -1)
            judged = [audit for (who, _), audit in known.items() if event_ms(who) > since]
            reason = why_below(judged, self._plan)
            if reason is None:
                continue
            # An operator's clock may be ahead of this one: a new finding still is after his word.
            after[version] = paused.get(version) or Pause(max(now_ms, since + 1), reason)
        if after != paused:
            self._pauses.write(after)
        for version in after.keys() - paused.keys():
            logger.error("%s is not paid from now on: %s", version, after[version].reason)
        for version in paused.keys() - after.keys():
            logger.warning("%s is paid again: its audits are good again", version)


def why_below(audits: Sequence[Audit], plan: AuditPlan) -> str | None:
    """The figures that are below the plan's floor; None where they are not, or are too few.

    A figure is judged by the better end of its 95 % interval, so that noise alone does not pause.
    """
    found = fidelity_of(audits)
    if found is None or found.audits < AUDITS_JUDGED_MIN:
        return None
    rank, error = found.rank_correlation, found.payout_error
    reasons = []
    if rank.mean + rank.half_width < plan.rank_correlation_floor:
        reasons.append(
            f"rank correlation {rank.mean:.2f} +- {rank.half_width:.2f}, "
            f"below {plan.rank_correlation_floor:g}"
        )
    if error.mean - error.half_width > plan.payout_error_ceiling:
        reasons.append(
            f"payout error {error.mean:.2f} +- {error.half_width:.2f}, "
            f"above {plan.payout_error_ceiling:g}"
        )
    return f"{'; '.join(reasons)}, over {found.audits} audits" if reasons else None


def _pause(fields: Mapping[str, Any]) -> Pause:
    if type(fields["since_ms"]) is not int or not isinstance(fields["reason"], str):
        raise TypeError("a pause is since_ms, a whole number, and reason, a text")
    return Pause(fields["since_ms"], fields["reason"])


def _read(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as problem:
        raise ArtifactError(f"{path} can't be read: {problem}") from problem
    if not isinstance(fields, dict):
        raise ArtifactError(f"{path} is no object")
    return fields


def _replace(path: Path, fields: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    with aside.open("w") as file:
        json.dump(fields, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
