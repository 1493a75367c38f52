"""Audits one inference after the other: draw, score, keep the record, post, forget the tokens.

Every step may be repeated. The draw is a function of the log; the record is written once, by
whoever is first, and is what is posted; the adjustment's key is its choice's own, so it is posted
at most once; the served tokens go last. So an auditor may be killed between any two steps, and two
may run.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from byline.attribution import NO_TOKENS, REPLAYED_VERSIONS
from byline.auditing.audit import Audit, Draw, audit_of
from byline.auditing.groups import of_members
from byline.auditing.lottery import is_drawn
from byline.auditing.plan import AuditPlan, Counterfactuals, Order
from byline.auditing.store import AuditStore
from byline.errors import (
    ArtifactError,
    AttributionFailed,
    KeyConflict,
    LedgerFenced,
    LedgerFrozen,
    LedgerRefused,
    NotFound,
)
from byline.records import (
    Adjustment,
    Attribution,
    AttributionState,
    InferenceRecord,
    Posted,
    ServedTokens,
)
from byline.served import erase_served, read_served
from serving.auditing.engine_scoring import PREFIX
from serving.telemetry import AuditorMetrics

log = logging.getLogger("byline.auditor")


class AuditedLedger(Protocol):
    """What an audit needs of the ledger."""

    async def inference(self, inference: str) -> InferenceRecord | None:
        """The record of a captured inference."""

    async def adjust(self, adjustment: Adjustment, *, time_ms: int) -> Posted:
        """Post an adjustment, at most once."""


class Scoring(Protocol):
    """What an audit needs of the engine."""

    async def log_probabilities(
        self, served: ServedTokens, ordinal: int, models: Sequence[str]
    ) -> list[float]:
        """Summed log-probabilities, in nats."""

    async def load(self, name: str, folder: Path) -> None:
        """Load an adapter."""

    async def unload(self, name: str) -> None:
        """Unload an adapter."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the auditor finds and keeps things; the base model's name at the engine."""

    served: Path
    counterfactuals: Path
    audits: Path
    base_model: str


class Auditing:
    """Audits the inferences of one ledger. `commitment` answers the text that tickets are made of,
    or raises NotFound while the capture is in no signed tree.
    """

    def __init__(
        self,
        ledger: AuditedLedger,
        scoring: Scoring,
        commitment: Callable[[str], str],
        plan: AuditPlan,
        places: Places,
        metrics: AuditorMetrics,
        *,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._ledger = ledger
        self._scoring = scoring
        self._commitment = commitment
        self._plan = plan
        self._places = places
        self._metrics = metrics
        self._store = AuditStore(places.audits)
        self._step = step

    async def once(self, inference: str, *, now_ms: int) -> bool:
        """Bring one inference as far as it goes; False while it is not settled or not in the log.

        Raises what the ledger and the engine raise when they are away: call again.
        """
        record = await self._ledger.inference(inference)
        pending = AttributionState.PENDING
        if record is None or any(a.state is pending for a in record.attributions):
            return False
        counterfactuals = self._plan.adapters.get(record.capture.adapter_version or "")
        if counterfactuals is not None:
            try:
                text = await asyncio.to_thread(self._commitment, inference)
            except NotFound:
                return False
            draw = Draw(text, self._plan.rate)
            if is_drawn(draw.commitment.encode(), inference, draw.rate):
                self._step("drawn")
                for paid in record.attributions:
                    await self._choice(record, paid, draw, counterfactuals, now_ms)
        erase_served(self._places.served, inference)
        self._step("forgotten")
        return True

    async def _choice(
        self, record: InferenceRecord, paid: Attribution, draw: Draw,
        counterfactuals: Counterfactuals, now_ms: int,
    ) -> None:  # fmt: skip
        """Audit one choice, unless nothing was to be shared out."""
        if not paid.pool_nano or paid.reason == NO_TOKENS or paid.version not in REPLAYED_VERSIONS:
            return
        audit = self._store.read(paid.inference, paid.ordinal)
        if audit is None:
            try:
                with self._metrics.audit_seconds.time():
                    audit = await self._scored(record, paid, draw, counterfactuals)
            except (ArtifactError, AttributionFailed) as problem:
                log.warning("%s/%d can't be audited: %s", paid.inference, paid.ordinal, problem)
                self._metrics.failed.inc()
                return
            self._step("scored")
            audit = self._store.write(audit)
            self._step("kept")
        await self._post(audit, now_ms)
        self._step("posted")

    async def _scored(
        self, record: InferenceRecord, paid: Attribution, draw: Draw, cf: Counterfactuals
    ) -> Audit:
        """Score the served tokens under base, full and counterfactual adapters."""
        capture = record.capture
        served = read_served(self._places.served, paid.inference, capture.tokens_sha256 or "")
        read = self._scoring.log_probabilities
        # Never the base model beside an adapter: the CPU engine then scored it, 2 times of
        # 98, as if it were the adapter (docs/results.md).
        (without_all,) = await read(served, paid.ordinal, [self._places.base_model])
        (lift_of,) = await read(served, paid.ordinal, [capture.served_by])
        effects: dict[str, float] = {}
        for order in cf.orders:
            for contributor, nats in (await self._effects(served, paid.ordinal, order)).items():
                effects[contributor] = effects.get(contributor, 0.0) + nats / len(cf.orders)
        if cf.groups is not None:
            effects = of_members(effects, cf.groups, paid.scores)
        lift = lift_of - without_all
        return audit_of(paid, effects, lift, draw, reliability_ppb=cf.reliability_ppb)

    async def _effects(
        self, served: ServedTokens, ordinal: int, order: Order
    ) -> dict[str, float]:  # fmt: skip
        """The effect of each contributor, or group, in one training order, in nats.

        The order's adapters stay loaded for the next audit; `run` unloads what no plan names.
        """
        for run in order.runs:
            await self._scoring.load(PREFIX + run, self._places.counterfactuals / run)
        models = [PREFIX + run for run in order.runs]
        full, *without = await self._scoring.log_probabilities(served, ordinal, models)
        return {who: full - nats for who, nats in zip(order.without, without, strict=True)}

    async def _post(self, audit: Audit, now_ms: int) -> None:
        """Post what the record says. What the ledger refuses for good is written off, and told."""
        if not audit.legs():
            self._metrics.observe(audit, is_new=True)
            return
        try:
            posted = await self._ledger.adjust(audit.adjustment(), time_ms=now_ms)
        except (LedgerFrozen, LedgerFenced, KeyConflict):
            raise
        except LedgerRefused as refused:
            log.warning("the audit of %s is written off: %s", audit.paid.inference, refused)
            moved = sum(leg.nano for leg in audit.legs() if leg.nano > 0)
            self._metrics.written_off_nano.inc(moved)
        else:
            self._metrics.observe(audit, is_new=not posted.duplicate)
