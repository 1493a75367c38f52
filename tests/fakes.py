"""Fakes for unit tests: the contracts' methods in memory, failing before or after writing.

They subclass the real classes, so that a method whose signature drifts fails the type check.
"""

import asyncio
import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from byline.api_keys import ApiKeys
from byline.canonical import canonical_bytes, sha256_hex
from byline.errors import (
    InsufficientFunds,
    KeyConflict,
    LedgerRefused,
    LedgerUnavailable,
    Unauthenticated,
)
from byline.ledger.ledger import Ledger, Standing
from byline.posting.postings import Posting
from byline.quotas.quotas import Quotas
from byline.quotas.scopes import Admitted, Overdue, Refused, Scope, Want
from byline.records import (
    Attribution,
    AttributionState,
    Caller,
    Capture,
    InferenceRecord,
    Posted,
)
from byline.records_json import attribution_fields, capture_fields, capture_from

Failure = Literal["before", "after"]  # without having written, or having written: both unknown


class FakeLedger(Ledger):
    """Holds, captures, voids and attributions in memory; balances of applications only."""

    def __init__(self) -> None:
        self.funds: dict[str, int] = {"shop": 10**9}
        self.holds: dict[str, tuple[str, int, int]] = {}
        self.captures: dict[str, Capture] = {}
        self.voids: list[str] = []
        self.attributions: dict[str, list[Attribution]] = {}
        self.blocked: dict[str, str] = {}  # accounts whose payouts are held back
        self.attempts: list[str] = []  # the operations that were tried, in order
        self.failures: dict[str, deque[Failure]] = {}
        self.refusals: dict[str, deque[Exception]] = {}
        self.away = False
        self.capture_pause = 0.0
        self._posted: dict[str, object] = {}

    def fail(self, operation: str, *failures: Failure) -> None:
        """Fail the next posts of an operation, in this order."""
        self.failures[operation] = deque(failures)

    def _post(self, operation: str, inference: str, payload: object) -> bool:
        """True if this is new; raises as the real ledger would."""
        self.attempts.append(operation)
        if refusals := self.refusals.get(operation):
            raise refusals.popleft()
        failure = self._next_failure(operation)
        if failure == "before":
            raise LedgerUnavailable(f"{operation}: no answer")
        key = f"{inference}/{operation}"
        known = self._posted.setdefault(key, payload)
        if known != payload:
            raise KeyConflict(f"{key} came with another payload")
        return known is payload

    def _next_failure(self, operation: str) -> Failure | None:
        if self.away:
            return "before"
        queue = self.failures.get(operation)
        return queue[0] if queue else None

    def _answered(self, operation: str, *, new: bool) -> Posted:
        if queue := self.failures.get(operation):
            queue.popleft()
            raise LedgerUnavailable(f"{operation}: the answer was lost")
        return Posted(len(self._posted), duplicate=not new)

    def _begin(self, operation: str, inference: str, payload: object) -> bool:
        try:
            return self._post(operation, inference, payload)
        except LedgerUnavailable:
            if queue := self.failures.get(operation):
                queue.popleft()
            raise

    async def close(self) -> None:
        self.attempts.append("close")

    async def ping(self) -> None:
        if self.away:
            raise LedgerUnavailable("ping: no answer")

    async def hold(
        self, inference: str, application: str, nano: int, *, expires_ms: int, time_ms: int
    ) -> Posted:
        new = self._begin("hold", inference, (application, nano, expires_ms))
        if new:
            if self.funds.get(application, 0) < nano:
                del self._posted[f"{inference}/hold"]
                raise InsufficientFunds(f"'{application}' can't pay {nano} nano-USD")
            self.funds[application] -= nano
            self.holds[inference] = (application, nano, expires_ms)
        return self._answered("hold", new=new)

    async def rejoin(self) -> None:
        self.attempts.append("rejoin")

    async def post(self, posting: Posting) -> Posted | None:
        fields = json.loads(posting.payload)
        if posting.operation == "capture":
            return await self.capture(capture_from(fields), time_ms=0)
        return await self.void(posting.inference, fields["application"], time_ms=0)

    async def capture(self, capture: Capture, *, time_ms: int) -> Posted:
        await asyncio.sleep(self.capture_pause)
        new = self._begin("capture", capture.inference, capture)
        if new:
            application, nano, _ = self.holds.pop(capture.inference)
            assert nano == capture.held_nano >= capture.charge_nano
            parts = sum(leg.nano for leg in capture.credits) + sum(capture.pools)
            assert parts == capture.charge_nano
            self.funds[application] += nano - capture.charge_nano
            self.captures[capture.inference] = capture
            self.attributions.setdefault(capture.inference, _first_states(capture))
        return self._answered("capture", new=new)

    async def void(self, inference: str, application: str, *, time_ms: int) -> Posted:
        new = self._begin("void", inference, application)
        if new:
            if inference not in self.holds:
                raise LedgerRefused(f"nothing is held for {inference}")
            _, nano, _ = self.holds.pop(inference)
            self.funds[application] += nano
            self.voids.append(inference)
        return self._answered("void", new=new)

    async def expired_holds(self, *, now_ms: int, limit: int = 100) -> list[str]:
        return [name for name, (_, _, expires) in self.holds.items() if expires <= now_ms][:limit]

    async def expire(self, inference: str, *, time_ms: int) -> Posted | None:
        if inference not in self.holds:
            return None
        application, nano, _ = self.holds.pop(inference)
        self.funds[application] += nano
        return Posted(0)

    async def inference(self, inference: str) -> InferenceRecord | None:
        if self.away:
            raise LedgerUnavailable("read: no answer")
        capture = self.captures.get(inference)
        if capture is None:
            return None
        legs = {leg.account: leg.nano for leg in capture.credits}
        if capture.pools:
            legs[f"open:{inference}"] = sum(capture.pools)
        return InferenceRecord(capture, 1_000, legs, tuple(self.attributions[inference]))

    async def manifest_hashes(self, inference: str) -> Mapping[str, str]:
        capture = canonical_bytes(capture_fields(self.captures[inference]))
        settled = {
            f"settle/{a.ordinal}": sha256_hex(canonical_bytes(attribution_fields(a)))
            for a in self.attributions[inference]
            if a.state in (AttributionState.DONE, AttributionState.FAILED)
        }
        return {"capture/0": sha256_hex(capture), **settled}

    async def standing(self, inference: str) -> Standing | None:
        if inference not in self.holds:
            return None
        application, nano, _ = self.holds[inference]
        return Standing("held", application, nano)

    async def payout_blocks(self) -> Mapping[str, str]:
        if self.away:
            raise LedgerUnavailable("read the payout blocks: no answer")
        return self.blocked


def _first_states(capture: Capture) -> list[Attribution]:
    state = AttributionState.SKIPPED if capture.skipped else AttributionState.PENDING
    return [
        Attribution(
            capture.inference, ordinal, state, capture.skipped, capture.adapter_version,
            capture.index, pool_nano=capture.pools[ordinal] if capture.pools else 0,
        )
        for ordinal in range(len(capture.usage.completion_tokens))
    ]  # fmt: skip


class FakeKeys(ApiKeys):
    """Keys by their secret."""

    def __init__(self, callers: Mapping[str, Caller]) -> None:
        self.callers = dict(callers)
        self.away = False

    async def find(self, secret: str) -> Caller:
        if self.away:
            raise LedgerUnavailable("look up an API key: no answer")
        if secret not in self.callers:
            raise Unauthenticated("the API key is not known")
        return self.callers[secret]

    async def close(self) -> None:
        pass


class FakeQuotas(Quotas):
    """One answer for every admission; what was taken and corrected, in order."""

    def __init__(self) -> None:
        self.answer: Admitted | Refused = Admitted(is_limited=False)
        self.away = False
        self.wants: list[Want] = []
        self.corrections: list[tuple[str, int, int, int]] = []  # inference, requests, tokens, nano

    async def admit(self, want: Want, *, lasts_ms: int) -> Admitted | Refused:
        self.wants.append(want)
        if self.away:
            raise LedgerUnavailable("quotas: no answer")
        return self.answer

    async def correct(
        self,
        inference: str,
        scopes: Iterable[Scope],
        *,
        requests: int = 1,
        tokens: int,
        nano: int,
        keep_ms: int = 0,
    ) -> bool:
        if self.away:
            raise LedgerUnavailable("quotas: no answer")
        self.corrections.append((inference, requests, tokens, nano))
        return True

    async def overdue(self, *, limit: int = 1_000) -> list[Overdue]:
        return []

    async def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class FakeRoute:
    """What a router answers."""

    adapter: str | None
    confidence: float
    runner_up: str | None


class FakeRouter:
    """Routes by a word in the text; nothing found is below the floor."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self.words = words

    def route(self, text: str) -> FakeRoute:
        for word, adapter in self.words.items():
            if word in text:
                return FakeRoute(adapter, 0.9, "cyber")
        return FakeRoute(None, 0.21, "cyber")
