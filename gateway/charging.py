"""From a question to a hold, and from an answer to its capture, exactly once however it ends.

What must reach the ledger is handed to `byline.delivery`, which outlives this process. Prices and
splits come from `byline.money`; no rounding happens here.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import partial

from byline.errors import InsufficientFunds, LedgerError, LedgerRefused, LedgerUnavailable
from byline.money import (
    POLICY,
    Policy,
    Price,
    charge_of,
    credits_of_capture,
    largest_charge_nano,
    pools_of_choices,
)
from byline.records import Capture, ServedTokens
from gateway.answers import Answer, Taped, usage_of
from gateway.background import Background
from gateway.deliveries import Deliveries
from gateway.errors import CLIENT_GONE_STATUS
from gateway.models import Target
from gateway.observed import Observed
from gateway.prompts import prompt_of
from gateway.quotas import Admissions
from gateway.services import Services
from gateway.token_files import TokenFiles
from gateway.wire import Question

log = logging.getLogger("gateway")

# An answer waits at most this long for its charge to be kept: a disk that stands still must not
# hold back what has been generated.
KEPT_WAIT_SECONDS = 2.0
# In the place of a hash where there are no token ids to read (none came, or the disk is full): no
# file has it, so the worker reports the attribution as failed, which is what it is.
NOT_WRITTEN = "0" * 64

READ_AT_ONCE_BYTES_MAX = 65_536  # of a stream: sooner read, in 0.3 ms, than a thread is asked


@dataclass(frozen=True, slots=True)
class Inference:
    """One admitted question: who pays, what answers, and what is held."""

    id: str
    application: str
    question: Question
    target: Target
    held_nano: int
    time_ms: int
    seen: Observed = field(default_factory=Observed)


class Ending(Enum):
    """How an answer ended."""

    COMPLETE = auto()
    BROKEN = auto()  # the engine stopped: what came is charged
    ABANDONED = auto()  # the client left: what came is charged, and the prompt at least


def price_of(policy: Policy, target: Target) -> Price:
    """The price of what answers."""
    return policy.adapter_price if target.adapter else policy.base_price


def hold_nano(policy: Policy, question: Question, target: Target, context_tokens: int) -> int:
    """The most that `question` can cost: a full context of prompt, and of each choice."""
    longest = min(question.completion_tokens_max or context_tokens, context_tokens)
    return largest_charge_nano(
        price_of(policy, target),
        prompt_tokens_max=min(question.prompt_tokens_max, context_tokens),
        usage_completion_max=question.choices * longest,
    )


def capture_of(
    inference: Inference,
    answer: Answer,
    *,
    base_model: str,
    partial: bool,
    tokens_sha256: str | None,
) -> Capture:
    """What a finished answer posts."""
    usage = usage_of(answer, inference.id)
    adapter = inference.target.adapter
    charge = charge_of(price_of(POLICY, inference.target), usage)
    if charge > inference.held_nano:  # a prompt beyond its bound: nobody pays more than was held
        log.error("%s cost %d and only %d were held", inference.id, charge, inference.held_nano)
        charge = inference.held_nano
    legs, pool = credits_of_capture(
        POLICY,
        charge,
        inference=inference.id,
        base_model=base_model,
        owner_of=adapter.adapter if adapter else None,
    )
    pools = pools_of_choices(pool, usage.completion_tokens, inference.id) if adapter else []
    if pools and not any(pools):  # a prompt alone: its worker finds nobody who deserves this
        pools[0] = pool
    return Capture(
        inference=inference.id,
        application=inference.application,
        held_nano=inference.held_nano,
        charge_nano=charge,
        credits=tuple(legs),
        pools=tuple(pools),
        skipped=None if adapter else "base_model",
        model=inference.question.model,
        served_by=inference.target.served_by,
        adapter_version=adapter.version if adapter else None,
        index=adapter.index if adapter else None,
        usage=usage,
        partial=partial,
        tokens_sha256=tokens_sha256,
        policy=POLICY.version,
    )


@dataclass(frozen=True, slots=True)
class Charge:
    """What an answer costs, on its way to the ledger.

    The answer goes out once the charge is kept: from then on no death of this process loses it, and
    the receipt tells when the ledger has it. Should the whole machine die in between, before the
    spool is on its disk, the hold expires and the answer was free.
    """

    posted: "asyncio.Task[Capture | None]"  # None: nothing was served
    kept: "asyncio.Future[None]"

    async def wait_kept(self) -> None:
        """Wait until it is kept, refused or nothing, within bounds."""
        # Without `asyncio.timeout`, which takes four times as long.
        timer = asyncio.get_running_loop().call_later(KEPT_WAIT_SECONDS, _tell, self.kept)
        try:
            await self.kept
        finally:
            timer.cancel()


def _tell(waited_for: "asyncio.Future[None]") -> None:
    """Wake who waits, if anybody still does."""
    if not waited_for.done():
        waited_for.set_result(None)


class Charging:
    """Posts holds, captures and voids; what must not be lost runs on without its request."""

    def __init__(self, services: Services, deliveries: Deliveries, admissions: Admissions) -> None:
        self._admissions = admissions
        self._shards = services.shards
        self._deliveries = deliveries
        self._telemetry = services.telemetry
        self._clock_ms = services.clock_ms
        self._base_model = services.release.base_model
        self._token_files = TokenFiles(services.served_folder)
        self._engines = services.engines
        self._context_tokens = services.release.context_tokens
        self._hold_ms = int(services.limits.hold_seconds * 1_000)
        self._background = Background()
        self._open: set[str] = set()  # held, and neither captured nor voided yet
        self._none_open = asyncio.Event()
        self._none_open.set()
        self._stop = asyncio.Event()

    def start(self) -> None:
        """Send what an earlier process left, and from now on whatever the ledger did not answer."""
        self._background.start(self._deliveries.run(self._stop))

    async def hold(self, inference: Inference) -> None:
        """Hold the largest possible charge. No hold, no tokens; no room for its capture, no hold.

        An unknown outcome is asked for once more under the same key; if it stays unknown, the hold
        is given back in the background, and its time limit does the same should that fail.
        """
        self._deliveries.of(inference.application).require_room()
        with inference.seen.part("hold"):
            try:
                await self._hold_once(inference)
            except LedgerUnavailable:
                try:
                    await self._hold_once(inference)
                except LedgerUnavailable:
                    self._background.start(self._give_back(inference))
                    raise
        self._telemetry.held(streamed=inference.question.stream)
        self._open.add(inference.id)
        self._none_open.clear()

    async def _hold_once(self, inference: Inference) -> None:
        ledger = self._shards.ledger_of(inference.application)
        await self._deliveries.of(inference.application).rejoined(
            lambda: ledger.hold(
                inference.id,
                inference.application,
                inference.held_nano,
                expires_ms=inference.time_ms + self._hold_ms,
                time_ms=inference.time_ms,
            )
        )

    async def _give_back(self, inference: Inference) -> None:
        """Void what is perhaps held, once: a void kept for each refused request would pile up."""
        ledger = self._shards.ledger_of(inference.application)
        try:
            await ledger.void(inference.id, inference.application, time_ms=self._clock_ms())
        except (LedgerError, InsufficientFunds) as problem:
            log.warning("%s is perhaps held until its time is over: %s", inference.id, problem)

    def _close(self, inference: Inference) -> None:
        self._open.discard(inference.id)
        if not self._open:
            self._none_open.set()

    def void(self, inference: Inference) -> "asyncio.Task[None]":
        """Give the whole hold back in the background: nothing was served."""
        self._close(inference)
        voided = self._background.start(self._void(inference))
        inference.seen.settling = voided
        return voided

    def finish(
        self, inference: Inference, answer: Answer | Taped, ending: Ending = Ending.COMPLETE
    ) -> Charge:
        """Charge for an answer in the background. What is long is read in a thread."""
        self._close(inference)
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        tell = partial(_tell, kept)
        self._telemetry.captures_waiting += 1
        posted = self._background.start(self._finish(inference, answer, ending, tell))
        posted.add_done_callback(lambda _: self._finished(tell))
        inference.seen.settling = posted
        return Charge(posted, kept)

    def _finished(self, tell: Callable[[], None]) -> None:
        self._telemetry.captures_waiting -= 1
        tell()  # what was refused is never kept

    def abandon(self, inference: Inference) -> Charge:
        """Charge for the prompt: the client left before anything came."""
        nothing = Answer((), ((),) * inference.question.choices, None)
        return self.finish(inference, nothing, Ending.ABANDONED)

    async def drain(self, seconds: float) -> None:
        """Wait for the posts under way, at most so long. What is left is sent by the next start."""
        deadline = time.monotonic() + seconds
        with suppress(TimeoutError):  # requests that were just cut charge what came
            await asyncio.wait_for(self._none_open.wait(), seconds)
        self._stop.set()
        if given_up := await self._background.drain(max(deadline - time.monotonic(), 0.0)):
            log.error("%d charges were given up at shutdown; their holds will expire", given_up)
        if left := await self._deliveries.drain(max(deadline - time.monotonic(), 0.0)):
            log.warning("%d posts are left for the next start to send", left)
        self._token_files.close()

    async def _void(self, inference: Inference) -> None:
        self._admissions.correct(inference.id, tokens=0, nano=0)
        delivery = self._deliveries.of(inference.application)
        try:
            with inference.seen.part("void"):
                await delivery.void(inference.id, inference.application, time_ms=self._clock_ms())
            self._telemetry.voided(streamed=inference.question.stream)
        except (LedgerRefused, InsufficientFunds) as problem:
            log.warning("the hold of %s was not given back: %s", inference.id, problem)

    async def _finish(
        self,
        inference: Inference,
        answer: Answer | Taped,
        ending: Ending,
        kept: Callable[[], None],
    ) -> Capture | None:
        try:
            reckoned = await self._reckon(inference, answer, ending)
        except Exception:  # the last resort: a bug must not leave a hold standing
            log.critical("nobody pays for %s: a bug", inference.id, exc_info=True)
            self._telemetry.captures_lost.inc()
            reckoned = None
        if reckoned is None:
            await self._void(inference)
            return None
        answer, capture = reckoned
        await self._capture(inference, capture, kept)
        self._count_usage(answer, capture)
        if ending is Ending.ABANDONED:
            message = "%s was abandoned by its client (%d): %d nano-USD, counted as %s"
            source, status = capture.usage.source, CLIENT_GONE_STATUS
            log.info(message, inference.id, status, capture.charge_nano, source)
        return capture

    async def _reckon(
        self, inference: Inference, came: Answer | Taped, ending: Ending
    ) -> tuple[Answer, Capture] | None:
        """What was served, and what is charged for it; None: nothing was served."""
        answer = came if isinstance(came, Answer) else await _read(came)
        if not any(usage_of(answer, inference.id).completion_tokens):
            prompt = await self._prompt(inference, answer, ending)
            if not prompt:
                return None
            answer = replace(answer, prompt=prompt, usage=None)
        sha256 = await self._keep_tokens(inference, answer)
        capture = capture_of(
            inference,
            answer,
            base_model=self._base_model,
            partial=ending is not Ending.COMPLETE and answer.usage is None,
            tokens_sha256=sha256,
        )
        return answer, capture

    async def _prompt(
        self, inference: Inference, answer: Answer, ending: Ending
    ) -> tuple[int, ...] | None:
        """What an answer without tokens is charged for: nothing, unless the client left it."""
        if ending is not Ending.ABANDONED:
            return None
        return answer.prompt or await prompt_of(
            self._engines,
            inference.question,
            self._base_model,  # every adapter has its tokenizer
            inference.id,
            self._context_tokens,
        )

    async def _capture(
        self, inference: Inference, capture: Capture, kept: Callable[[], None]
    ) -> None:
        """Charge it; what waits in the spool for the ledger counts as charged."""
        delivery = self._deliveries.of(inference.application)
        tokens = capture.usage.prompt_tokens + sum(capture.usage.completion_tokens)
        try:
            with inference.seen.part("capture"):
                await delivery.capture(capture, time_ms=self._clock_ms(), kept=kept)
        except (LedgerRefused, InsufficientFunds) as problem:
            charge = capture.charge_nano
            log.critical("%s: nobody pays its %d nano-USD: %s", inference.id, charge, problem)
            self._telemetry.captures_lost.inc()
            self._admissions.correct(inference.id, tokens=tokens, nano=0)
            return
        self._admissions.correct(inference.id, tokens=tokens, nano=capture.charge_nano)
        inference.seen.capture = capture
        streamed = inference.question.stream
        self._telemetry.captured(inference.target.label, capture, streamed=streamed)

    async def _keep_tokens(self, inference: Inference, answer: Answer) -> str | None:
        """Write the answer's token ids for the worker."""
        if inference.target.adapter is None:
            return None
        if answer.usage is not None and not any(answer.choices):
            return NOT_WRITTEN
        try:
            salt = secrets.token_hex(16)
            served = ServedTokens(inference.id, answer.prompt, answer.choices, salt)
            return await self._token_files.keep(served)
        except (OSError, ValueError, TypeError) as problem:  # it was served, and is charged
            log.critical("the token ids of %s were not written: %s", inference.id, problem)
            return NOT_WRITTEN

    def _count_usage(self, answer: Answer, capture: Capture) -> None:
        self._telemetry.usage.labels(str(capture.usage.source)).inc()
        if answer.mismatched:
            self._telemetry.usage_mismatch.inc()
            log.warning("%s: the engine counts other tokens than it sent", capture.inference)


async def _read(taped: Taped) -> Answer:
    if len(taped.events) <= READ_AT_ONCE_BYTES_MAX:
        return taped.read()
    return await asyncio.to_thread(taped.read)
