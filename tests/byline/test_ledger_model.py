"""Whatever is posted in whatever order, the ledger agrees with a small model in Python.

After every step the balances are the model's, they sum to zero, and the journal folds to them.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from byline.errors import BylineError, InsufficientFunds, KeyConflict, LedgerRefused
from byline.ledger import Ledger
from byline.records import Posted
from tests.byline.cases import (
    ADAPTER,
    HOLD_MS,
    NOW_MS,
    a_capture,
    a_failure,
    an_attribution,
    event_id,
)

Answer = TypeVar("Answer")
Call = Callable[[], Awaitable[Posted | None]]
applications = st.sampled_from(["demo", "shop"])
picks = st.integers(0, 10**6)


@dataclass
class Inference:
    """What the model knows of one inference."""

    id: str
    application: str
    held: int
    state: str = "held"
    has_expired: bool = False  # also when it was captured late
    pools: dict[int, int] = field(default_factory=dict)  # the open ones


class LedgerAgainstModel(RuleBasedStateMachine):
    """Drives a real ledger and the model side by side."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.ledger = self.run(Ledger.open(self.url, name=uuid.uuid4().hex))
        self.accounts: dict[str, int] = {}
        self.limits = {"demo": 0, "shop": 0}
        self.inferences: list[Inference] = []
        self.sent: list[tuple[Call, Call, Posted]] = []  # a call, one that conflicts, the answer

    def run(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.run(self.ledger.close())
        self.runner.close()

    def expect(self, call: Call, other: Call, error: type[BylineError] | None) -> bool:
        """Post; True if the model, too, says that it is posted."""

        async def answered() -> Posted | None:
            return await call()

        if error is None:
            posted = self.run(answered())
            assert posted is not None
            assert not posted.duplicate
            self.sent.append((call, other, posted))
            return True
        with pytest.raises(error):
            self.run(answered())
        return False

    def move(self, **nano: int) -> None:
        for account, amount in nano.items():
            self.accounts[account] = self.accounts.get(account, 0) + amount

    def pick(self, at: int) -> Inference:
        return self.inferences[at % len(self.inferences)]

    @rule(application=applications, nano=st.integers(1, 5_000))
    def deposit(self, application: str, nano: int) -> None:
        event = event_id()

        def call(amount: int = nano) -> Awaitable[Posted]:
            return self.ledger.deposit(event, application, amount, time_ms=NOW_MS)

        self.expect(call, lambda: call(nano + 1), None)
        self.move(**{"funding": -nano, f"app:{application}": nano})

    @rule(application=applications, nano=st.integers(0, 3_000))
    def allow_credit(self, application: str, nano: int) -> None:
        self.run(self.ledger.set_credit_limit(application, nano))
        self.limits[application] = nano

    @rule(application=applications, nano=st.integers(1, 3_000))
    def hold(self, application: str, nano: int) -> None:
        event = event_id()

        def call(amount: int = nano) -> Awaitable[Posted]:
            return self.ledger.hold(
                event, application, amount, expires_ms=NOW_MS + HOLD_MS, time_ms=NOW_MS
            )

        left = self.accounts.get(f"app:{application}", 0) - nano
        short = InsufficientFunds if left < -self.limits[application] else None
        if self.expect(call, lambda: call(nano + 1), short):
            self.move(**{f"app:{application}": -nano, f"hold:{event}": nano})
            self.inferences.append(Inference(event, application, nano))

    @precondition(lambda self: self.inferences)
    @rule(at=picks, parts=st.lists(st.integers(0, 700), min_size=1, max_size=4))
    def capture(self, at: int, parts: list[int]) -> None:
        inference = self.pick(at)
        credit, *pools = parts
        charge = sum(parts)

        def call(held: int = inference.held) -> Awaitable[Posted]:
            capture = a_capture(
                inference.id, application=inference.application, held=held, credit=credit,
                pools=tuple(pools),
            )  # fmt: skip
            return self.ledger.capture(capture, time_ms=NOW_MS)

        if inference.state == "captured":
            return  # a repetition or a conflict: `send_again`
        late = inference.state == "expired"
        allowed = charge <= inference.held and inference.state in ("held", "expired")
        if self.expect(call, lambda: call(10**6), None if allowed else LedgerRefused):
            assert self.sent[-1][2].late == late
            back = 0 if late else inference.held
            self.move(**{f"app:{inference.application}": back - charge, "platform": credit})
            self.move(**{f"hold:{inference.id}": -back})
            inference.pools = {k: pool for k, pool in enumerate(pools) if pool}
            self.move(**{self.open_account(inference, k): n for k, n in inference.pools.items()})
            inference.state = "captured"

    @precondition(lambda self: self.inferences)
    @rule(at=picks)
    def void(self, at: int) -> None:
        inference = self.pick(at)

        def call(application: str = inference.application) -> Awaitable[Posted]:
            return self.ledger.void(inference.id, application, time_ms=NOW_MS)

        if inference.state == "voided":
            return
        if self.expect(
            call, lambda: call("another"), None if inference.state == "held" else LedgerRefused
        ):
            self.give_back(inference, "voided")

    @precondition(lambda self: self.inferences)
    @rule(at=picks, waited=st.booleans())
    def expire(self, at: int, waited: bool) -> None:
        inference = self.pick(at)
        time_ms = NOW_MS + (HOLD_MS if waited else 0)
        posted = self.run(self.ledger.expire(inference.id, time_ms=time_ms))
        if inference.has_expired:
            assert posted is not None
            assert posted.duplicate
        elif inference.state == "held" and waited:
            assert posted is not None
            self.give_back(inference, "expired")
            inference.has_expired = True
        else:
            assert posted is None

    @precondition(lambda self: any(inference.pools for inference in self.inferences))
    @rule(at=picks, kept=st.integers(0, 700), fails=st.booleans(), wrong=st.booleans())
    def settle(self, at: int, kept: int, fails: bool, wrong: bool) -> None:
        waiting = [inference for inference in self.inferences if inference.pools]
        inference = waiting[at % len(waiting)]
        ordinal, pool = next(iter(inference.pools.items()))
        unattributed = pool if fails else min(kept, pool)
        asked = pool + wrong

        def call(reason: str | None = None) -> Awaitable[Posted]:
            attribution = (
                a_failure(inference.id, ordinal, pool=asked)
                if fails
                else an_attribution(inference.id, ordinal, pool=asked, unattributed=unattributed)
            )
            attribution = replace(attribution, reason=reason)
            return self.ledger.settle(attribution, time_ms=NOW_MS)

        if self.expect(call, lambda: call("another"), LedgerRefused if wrong else None):
            del inference.pools[ordinal]
            self.move(**{self.open_account(inference, ordinal): -pool})
            self.move(**{f"unattributed:{ADAPTER}": unattributed})
            self.move(**{"contrib:alice": pool - unattributed})

    @precondition(lambda self: self.sent)
    @rule(at=picks)
    def send_again(self, at: int) -> None:
        call, other, posted = self.sent[at % len(self.sent)]

        async def both() -> None:
            assert await call() == replace(posted, duplicate=True)
            with pytest.raises((KeyConflict, LedgerRefused)):
                await other()

        self.run(both())

    @invariant()
    def the_books_agree(self) -> None:
        expected = {account: nano for account, nano in self.accounts.items() if nano}
        assert self.run(self.balances()) == expected
        assert sum(expected.values()) == 0
        assert self.run(self.ledger.check()).balanced

    async def balances(self) -> dict[str, int]:
        return dict(await self.ledger.balances())

    def give_back(self, inference: Inference, state: str) -> None:
        self.move(**{f"hold:{inference.id}": -inference.held})
        self.move(**{f"app:{inference.application}": inference.held})
        inference.state = state

    def open_account(self, inference: Inference, ordinal: int) -> str:
        return f"open:{inference.id}" + (f"/{ordinal}" if ordinal else "")


def test_the_ledger_agrees_with_the_model(redis_url: str) -> None:
    machine = type("Machine", (LedgerAgainstModel,), {"url": redis_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
