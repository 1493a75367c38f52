"""Limits at the door: what a request may use is taken before its hold, and corrected at its end.

Whoever has no limit is let through without asking for `QUOTA_UNLIMITED_SECONDS` after it was last
asked; all other limits are looked at anew for each request, in the script that takes.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from byline.errors import (
    BudgetSpent,
    LedgerError,
    LimitReached,
    RequestsLimitReached,
    TokensLimitReached,
)
from byline.limits import QUOTA_UNLIMITED_SECONDS
from byline.money import usd
from byline.program import pause
from byline.quotas.scopes import (
    Admitted,
    LimitName,
    Overdue,
    Refused,
    Scope,
    ScopeKind,
    Want,
    Window,
)
from byline.records import Caller
from gateway.background import Background
from gateway.services import Services
from gateway.wire import Question

log = logging.getLogger("gateway")

CALLERS_KEPT_MAX = 10_000  # callers without a limit that are remembered
UNSENT_MAX = 10_000  # corrections that are kept to be sent again; others are overdue one day
DRAIN_SECONDS = 5.0  # for the corrections of a gateway that stops
SWEEP_SECONDS = 10.0  # between two looks for what nobody has corrected
# After its hold's end an inference may still be on its way to the ledger: look a little later.
OVERDUE_AFTER_HOLD_MS = 60_000
LOOK_AGAIN_MS = 86_400_000  # what was not captured by then was never served

ERRORS: dict[LimitName, type[LimitReached]] = {
    LimitName.REQUESTS: RequestsLimitReached,
    LimitName.TOKENS: TokensLimitReached,
    LimitName.DAY: BudgetSpent,
    LimitName.MONTH: BudgetSpent,
}
WORDS = {
    LimitName.REQUESTS: "requests per minute",
    LimitName.TOKENS: "tokens per minute",
    LimitName.DAY: "budget of the day",
    LimitName.MONTH: "budget of the month",
}


@dataclass(frozen=True, slots=True)
class Correction:
    """What an inference has used, in the place of the most that it could."""

    scopes: tuple[Scope, ...]
    requests: int
    tokens: int
    nano: int


class Admissions:
    """Admits inferences within their quotas. No answer from the quotas, no admission."""

    def __init__(self, services: Services) -> None:
        self._quotas = services.quotas
        self._shards = services.shards
        self._telemetry = services.telemetry
        self._lasts_ms = int(services.limits.hold_seconds * 1_000) + OVERDUE_AFTER_HOLD_MS
        self._unlimited_until: dict[tuple[Scope, ...], float] = {}
        self._taken: dict[str, tuple[Scope, ...]] = {}  # by inference, until it is corrected
        self._unsent: dict[str, Correction] = {}
        self._background = Background()
        self._stop = asyncio.Event()

    def start(self) -> None:
        """From now on, settle what nobody has corrected."""
        self._background.start(self._sweep())

    async def admit(
        self,
        caller: Caller,
        want: Want,
        headers: dict[str, str],
        work: Callable[[], Awaitable[None]],
    ) -> None:
        """Take what `want` names, then do `work`; all of it is given back if that fails.

        `headers` gets what a client is told of its limits. Raises LimitReached, LedgerError.
        """
        try:
            await self._admit(caller, want, headers)
            await work()
        except BaseException:
            self._start_correcting(want.inference, requests=0, tokens=0, nano=0)
            raise

    def correct(self, inference: str, *, tokens: int, nano: int) -> None:
        """Give back in the background what was not used. Only the first call counts."""
        self._start_correcting(inference, requests=1, tokens=tokens, nano=nano)

    async def drain(self, seconds: float) -> None:
        """Wait for the corrections under way; what is left is settled by another gateway."""
        self._stop.set()
        await self._background.drain(seconds)
        with suppress(LedgerError):
            await self._send_again()

    # --- at the door ---

    async def _admit(self, caller: Caller, want: Want, headers: dict[str, str]) -> None:
        if self._unlimited_until.get(want.scopes, 0.0) > time.monotonic():
            return
        self._taken[want.inference] = want.scopes  # perhaps, until an answer says it was not
        found = await self._quotas.admit(want, lasts_ms=self._lasts_ms)
        if isinstance(found, Admitted) and not found.is_limited:
            del self._taken[want.inference]
            self._remember_unlimited(want.scopes)
            return
        headers.update(window_headers(found.requests, found.tokens))
        if isinstance(found, Refused):
            del self._taken[want.inference]
            self._telemetry.limit_refusals.labels(found.scope.kind, found.limit_name).inc()
            headers.update(wait_headers(found))
            raise ERRORS[found.limit_name](refusal_text(caller, found))

    def _remember_unlimited(self, scopes: tuple[Scope, ...]) -> None:
        if len(self._unlimited_until) >= CALLERS_KEPT_MAX:
            self._unlimited_until.clear()
        self._unlimited_until[scopes] = time.monotonic() + QUOTA_UNLIMITED_SECONDS

    # --- at the end ---

    def _start_correcting(self, inference: str, *, requests: int, tokens: int, nano: int) -> None:
        scopes = self._taken.pop(inference, None)
        if scopes is not None:
            correction = Correction(scopes, requests, tokens, nano)
            self._background.start(self._correct_or_later(inference, correction))

    async def _correct_or_later(self, inference: str, correction: Correction) -> None:
        try:
            await self._correct(inference, correction)
        except LedgerError as problem:
            log.warning("what %s took from its quotas is corrected later: %s", inference, problem)

    async def _correct(self, inference: str, correction: Correction) -> None:
        if len(self._unsent) < UNSENT_MAX:
            self._unsent[inference] = correction  # until it was answered
        await self._quotas.correct(
            inference,
            correction.scopes,
            requests=correction.requests,
            tokens=correction.tokens,
            nano=correction.nano,
        )
        self._unsent.pop(inference, None)

    async def _send_again(self) -> None:
        for inference, correction in list(self._unsent.items()):
            await self._correct(inference, correction)

    # --- what nobody has corrected ---

    async def _sweep(self) -> None:
        while not self._stop.is_set():
            try:
                await self._send_again()
                await self._settle_all(await self._quotas.overdue())
            except LedgerError as problem:
                log.warning("what was taken from quotas waits to be corrected: %s", problem)
            await pause(self._stop, SWEEP_SECONDS)

    async def _settle_all(self, overdue: Sequence[Overdue]) -> None:
        """At once, so that a shard that is away holds up only what is its own."""
        answers = await asyncio.gather(*map(self._settle, overdue), return_exceptions=True)
        for answer in answers:
            if answer is not None:
                raise answer

    async def _settle(self, overdue: Overdue) -> None:
        """Correct by what the ledger says it cost; if nothing yet, give it back and look again."""
        found = await self._shards.find(overdue.inference, payer=overdue.application)
        is_final = found is not None or overdue.is_looked_at
        await self._quotas.correct(
            overdue.inference,
            overdue.scopes,
            tokens=0,  # its minute is long over
            nano=0 if found is None else found[1].capture.charge_nano,
            keep_ms=0 if is_final else LOOK_AGAIN_MS,
        )
        self._telemetry.reservations_overdue.inc()


def scopes_of(caller: Caller) -> tuple[Scope, ...]:
    """What the quotas of a caller may be for."""
    scopes = [Scope(ScopeKind.APPLICATION, caller.subject)]
    if caller.key:
        scopes.append(Scope(ScopeKind.KEY, caller.key))
    if caller.organisation:
        scopes.append(Scope(ScopeKind.ORGANISATION, caller.organisation))
    return tuple(scopes)


def want_of(
    caller: Caller, inference: str, question: Question, held_nano: int, context_tokens: int
) -> Want:
    """The most that an inference may use: a full context of prompt, and of each choice."""
    longest = min(question.completion_tokens_max or context_tokens, context_tokens)
    tokens = min(question.prompt_tokens_max, context_tokens) + question.choices * longest
    return Want(inference, caller.subject, scopes_of(caller), tokens, held_nano)


def refusal_text(caller: Caller, refused: Refused) -> str:
    """What a client is told."""
    name, kind = WORDS[refused.limit_name], refused.scope.kind
    whose = {"application": f"application '{caller.subject}'", "key": "this API key"}.get(
        kind, f"organisation '{refused.scope.name}'"
    )
    limit, used, wanted = (
        _shown(refused.limit_name, amount)
        for amount in (refused.limit, refused.used, refused.wanted)
    )
    text = f"Limit reached for {whose} on {name}: limit {limit}, used {used}, requested {wanted}."
    if refused.wait_ms is None:
        advice = "ask for fewer tokens with max_tokens" if refused.limit else "nothing may be used"
        return f"{text} It can never fit: {advice}."
    return f"{text} Please try again in {duration(refused.wait_ms)}."


def _shown(name: LimitName, amount: int) -> str:
    return f"{usd(amount)} USD" if name in (LimitName.DAY, LimitName.MONTH) else str(amount)


def window_headers(requests: Window | None, tokens: Window | None) -> dict[str, str]:
    """OpenAI's `x-ratelimit-*` headers, of the limits there are."""
    headers = {}
    for kind, window in (("requests", requests), ("tokens", tokens)):
        if window is not None:
            headers[f"x-ratelimit-limit-{kind}"] = str(window.limit)
            headers[f"x-ratelimit-remaining-{kind}"] = str(window.remaining)
            headers[f"x-ratelimit-reset-{kind}"] = duration(window.reset_ms)
    return headers


def wait_headers(refused: Refused) -> Mapping[str, str]:
    """When to come again, in whole seconds; where never, OpenAI's clients are told not to.

    (Of a budget they are told so with the error itself.)
    """
    if refused.wait_ms is None:
        is_budget = ERRORS[refused.limit_name] is BudgetSpent
        return {} if is_budget else {"x-should-retry": "false"}
    return {"retry-after": str(max(-(-refused.wait_ms // 1_000), 1))}


def duration(milliseconds: int) -> str:
    """As OpenAI writes it: `12ms`, `1.5s`, `6m0s`."""
    if milliseconds < 1_000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes}m{rest / 1_000:g}s" if minutes else f"{rest / 1_000:g}s"
