"""Whatever is posted in whatever order, the ledger agrees with a small model in Python.

After every step the balances are the model's, they sum to zero, the journal folds to them, and it
has as many entries as the model has posted.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
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

from byline.errors import InsufficientFunds, KeyConflict, LedgerRefused
from byline.ledger.ledger import Ledger
from byline.limits import CENT_NANO, CONTRIBUTOR_DEBT_NANO_MAX, LEG_NANO_MAX
from byline.posting.keys import Keys
from byline.posting.postings import DAY_MS
from byline.posting.redis_client import Client, connect
from byline.records import Posted
from tests.byline.cases import (
    HOLD_MS,
    NOW_MS,
    a_capture,
    a_failure,
    an_attribution,
    event_id,
)
from tests.byline.decisions import a_payout, a_refund, a_release, an_adjustment
from tests.byline.model import UNATTRIBUTED, Inference, Model, State

Answer = TypeVar("Answer")
Call = Callable[[], Awaitable[Posted | None]]
applications = st.sampled_from(["demo", "shop"])
payees = st.sampled_from(["contrib__alice", "contrib__bob", "platform", "app__demo", "refund"])
FUNDS_MAX = 20 * CENT_NANO
picks = st.integers(0, 10**6)
amounts = st.integers(1, 3_000) | st.integers(1, 9).map(lambda cents: cents * CENT_NANO)
percents = st.integers(1, 110)  # of what there is: most postings succeed, and some are refused

ratios = st.lists(st.integers(0, 9), min_size=1, max_size=4)  # the credit's, then the pools'


@dataclass
class Sent:
    """A call that was posted, the same with another payload, and the answer."""

    call: Call
    other: Call
    posted: Posted
    is_permanent: bool  # its mark is never dropped
    is_dropped: bool = False


class LedgerAgainstModel(RuleBasedStateMachine):
    """Drives a real ledger and the model side by side."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.keys = Keys(uuid.uuid4().hex)
        self.ledger = self.run(Ledger.open(self.url, name=self.keys.tag[8:-1]))
        self.redis: Client = connect(self.url)
        self.model = Model()
        self.sent: list[Sent] = []
        self.deposit("demo", 9 * CENT_NANO)

    def run(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.run(self.every_inference_balances_by_itself())
        self.run(self.ledger.close())
        self.run(self.redis.aclose())
        self.runner.close()

    def both(
        self, model: Callable[[], object], call: Call, other: Call, *, permanent: bool = False
    ) -> Posted | None:
        """Post to the model and to the ledger: both do it, or both refuse it alike."""

        async def answered() -> Posted | None:
            return await call()

        try:
            model()
        except (InsufficientFunds, LedgerRefused) as expected:
            with pytest.raises(type(expected)):
                self.run(answered())
            return None
        posted = self.run(answered())
        assert posted is not None
        assert not posted.duplicate
        self.sent.append(Sent(call, other, posted, permanent))
        return posted

    def pick(self, at: int, *states: State, is_open: bool = True) -> Inference:
        """One of the inferences in these states, or with no open pool; any where there are none."""
        wanted = [
            inference
            for inference in self.model.inferences
            if inference.state in states and (is_open or not inference.pools)
        ]
        found = wanted or self.model.inferences
        return found[at % len(found)]

    def payable(self) -> list[str]:
        """Payees who have a cent."""
        payees = ("contrib:alice", "contrib:bob", "owner:healthcare", "platform")
        return [payee for payee in payees if self.model.accounts[payee] >= CENT_NANO]

    def part(self, account: str, percent: int) -> int:
        """So much of what the account has; never nothing, nor more than fits into a leg."""
        return min(max(1, self.model.accounts[account] * percent // 100), LEG_NANO_MAX // 2)

    @precondition(lambda self: self.model.accounts["funding"] > -FUNDS_MAX)
    @rule(application=applications, nano=amounts)
    def deposit(self, application: str, nano: int) -> None:
        event = event_id()

        def call(amount: int = nano) -> Awaitable[Posted]:
            return self.ledger.deposit(event, application, amount, time_ms=NOW_MS)

        self.both(
            lambda: self.model.deposit(application, nano), call, lambda: call(nano + 1),
            permanent=True,
        )  # fmt: skip

    @rule(application=applications, nano=st.integers(0, 3_000))
    def give_credit(self, application: str, nano: int) -> None:
        self.run(self.ledger.set_credit_limit(application, nano))
        self.model.limits[application] = nano

    @precondition(lambda self: self.model.accounts["app:demo"] > 0)
    @rule(application=st.sampled_from(["demo", "demo", "demo", "shop"]), percent=percents)
    def hold(self, application: str, percent: int) -> None:
        event, nano = event_id(), self.part(f"app:{application}", percent)

        def call(amount: int = nano) -> Awaitable[Posted]:
            return self.ledger.hold(
                event, application, amount, expires_ms=NOW_MS + HOLD_MS, time_ms=NOW_MS
            )

        self.both(lambda: self.model.hold(event, application, nano), call, lambda: call(nano + 1))

    @precondition(lambda self: self.model.inferences)
    @rule(at=picks, percent=percents, ratio=ratios)
    def capture(self, at: int, percent: int, ratio: list[int]) -> None:
        inference = self.pick(at, State.HELD, State.EXPIRED)
        if inference.state is State.CAPTURED:
            return  # a repetition or a conflict: `send_again`
        whole = inference.held * percent // 100
        credit, *pools = (whole * part // max(sum(ratio), 1) for part in ratio)
        late = inference.state is State.EXPIRED

        def call(held: int = inference.held) -> Awaitable[Posted]:
            capture = a_capture(
                inference.id, application=inference.application, held=held, credit=credit,
                pools=tuple(pools),
            )  # fmt: skip
            return self.ledger.capture(capture, time_ms=NOW_MS)

        posted = self.both(
            lambda: self.model.capture(inference, credit, pools),
            call,
            lambda: call(inference.held + 1),
        )
        assert posted is None or posted.late == late

    @precondition(lambda self: self.model.inferences)
    @rule(at=picks)
    def void(self, at: int) -> None:
        inference = self.pick(at, State.HELD)

        def call(application: str = inference.application) -> Awaitable[Posted]:
            return self.ledger.void(inference.id, application, time_ms=NOW_MS)

        if inference.state is not State.VOIDED:
            self.both(
                lambda: self.model.give_back(inference, State.VOIDED), call, lambda: call("another")
            )

    @precondition(lambda self: self.model.inferences)
    @rule(at=picks, waited=st.booleans())
    def expire(self, at: int, waited: bool) -> None:
        inference, entries = self.pick(at, State.HELD), self.model.entries
        if inference.state is State.HELD and waited:
            self.model.give_back(inference, State.EXPIRED)
        time_ms = NOW_MS + (HOLD_MS if waited else 0)
        posted = self.run(self.ledger.expire(inference.id, time_ms=time_ms))
        is_new = posted is not None and not posted.duplicate
        assert is_new == (self.model.entries > entries)

    @precondition(lambda self: any(inference.pools for inference in self.model.inferences))
    @rule(at=picks, kept=st.integers(0, 100), fails=st.booleans(), off=st.sampled_from([0, 0, 1]))
    def settle(self, at: int, kept: int, fails: bool, off: int) -> None:
        waiting = [inference for inference in self.model.inferences if inference.pools]
        inference = waiting[at % len(waiting)]
        ordinal, pool = next(iter(inference.pools.items()))
        asked = pool + off
        unattributed = asked if fails else pool * kept // 100

        def call(reason: str | None = None) -> Awaitable[Posted]:
            attribution = (
                a_failure(inference.id, ordinal, pool=asked)
                if fails
                else an_attribution(inference.id, ordinal, pool=asked, unattributed=unattributed)
            )
            attribution = replace(attribution, reason=reason)
            return self.ledger.settle(attribution, time_ms=NOW_MS)

        self.both(
            lambda: self.model.settle(inference, ordinal, asked, unattributed), call,
            lambda: call("another"),
        )  # fmt: skip

    @precondition(lambda self: self.model.accounts["app:demo"] > 0)
    @rule(percent=percents, ratio=ratios, kept=st.integers(0, 100))
    def answer(self, percent: int, ratio: list[int], kept: int) -> None:
        """The usual way of an inference in one step: held, captured and settled."""
        self.hold("demo", percent)
        newest = len(self.model.inferences) - 1
        if newest >= 0:
            self.capture(newest, 100, ratio)
        while any(inference.pools for inference in self.model.inferences):
            self.settle(0, kept, fails=kept == 0, off=0)

    @rule(
        payer=payees, payee=payees,
        nano=amounts | st.sampled_from([CONTRIBUTOR_DEBT_NANO_MAX - 1, CONTRIBUTOR_DEBT_NANO_MAX]),
    )  # fmt: skip
    def adjust(self, payer: str, payee: str, nano: int) -> None:
        if payer == payee:
            return
        adjustment = an_adjustment(**{payer: -nano, payee: nano})

        def call(by: str = "ann") -> Awaitable[Posted]:
            return self.ledger.adjust(replace(adjustment, by=by), time_ms=NOW_MS)

        legs = {leg.account: leg.nano for leg in adjustment.legs}
        self.both(lambda: self.model.adjust(legs), call, lambda: call("bob"), permanent=True)

    @precondition(lambda self: self.model.accounts[UNATTRIBUTED] > 0)
    @rule(percent=percents, owner=st.integers(1, 300))
    def release(self, percent: int, owner: int) -> None:
        nano = self.part(UNATTRIBUTED, percent)
        release = a_release(contrib__bob=nano, owner__healthcare=owner)

        def call(decision: str = "https://example.org/2") -> Awaitable[Posted]:
            return self.ledger.release(replace(release, decision=decision), time_ms=NOW_MS)

        legs = {leg.account: leg.nano for leg in release.credits}
        self.both(lambda: self.model.release(legs), call, lambda: call("x"), permanent=True)

    @precondition(lambda self: any(i.charge for i in self.model.inferences))
    @rule(at=picks, percent=percents | st.just(100))
    def refund(self, at: int, percent: int) -> None:
        inference, operation = self.pick(at, State.CAPTURED, is_open=percent > 90), event_id()
        asked = max(1, (inference.charge - inference.refunded) * percent // 100)

        def call(reason: str = "the answer was cut") -> Awaitable[Posted]:
            refund = replace(a_refund(inference.id, asked, operation), reason=reason)
            return self.ledger.refund(refund, time_ms=NOW_MS)

        self.both(
            lambda: self.model.refund(inference, asked, operation), call, lambda: call("x"),
            permanent=True,
        )  # fmt: skip

    @precondition(lambda self: self.payable())
    @rule(at=picks, percent=percents)
    def payout(self, at: int, percent: int) -> None:
        account = self.payable()[at % len(self.payable())]
        cents = max(1, self.part(account, percent) // CENT_NANO)
        shift = {8: 1, 9: -1}.get(percent % 10, 0)  # a line left out, a line paid before
        first_seq = max(1, self.model.paid[account] + 1 + shift)
        payout = a_payout(account, cents, first_seq=first_seq)

        def call(reference: str = "") -> Awaitable[Posted]:
            return self.ledger.payout(replace(payout, reference=reference), time_ms=NOW_MS)

        self.both(lambda: self.model.payout(payout), call, lambda: call("x"), permanent=True)

    @precondition(lambda self: self.payable())
    @rule(at=picks)
    def block(self, at: int) -> None:
        """Or allow again, if it is blocked; then a payout is tried."""
        account = self.payable()[at % len(self.payable())]
        if account not in self.model.blocked:
            self.run(self.ledger.block_payouts(account, "a dispute"))
            self.model.blocked.add(account)
        else:
            self.run(self.ledger.allow_payouts(account))
            self.model.blocked.discard(account)
        self.payout(at, 50)

    @rule()
    def drop_marks(self) -> None:
        """As 35 days later: what was posted of inferences is known by their facts alone."""
        self.run(self.redis_delete(self.keys.marks(NOW_MS // DAY_MS)))
        for sent in self.sent:
            sent.is_dropped = not sent.is_permanent

    @precondition(lambda self: self.sent)
    @rule(at=picks)
    def send_again(self, at: int) -> None:
        """Nothing is posted twice; the invariants see that nothing has moved."""
        sent = self.sent[at % len(self.sent)]
        duplicate = replace(sent.posted, duplicate=True)

        async def again() -> None:
            try:
                assert await sent.call() == duplicate
            except LedgerRefused:
                assert sent.is_dropped
            with pytest.raises(LedgerRefused if sent.is_dropped else KeyConflict):
                await sent.other()

        self.run(again())

    @invariant()
    def the_books_agree(self) -> None:
        assert self.run(self.balances()) == self.model.balances
        assert sum(self.model.balances.values()) == 0
        books = self.run(self.ledger.check())
        assert books.balanced
        assert books.journal_entries == self.model.entries

    async def balances(self) -> dict[str, int]:
        return dict(await self.ledger.balances())

    async def redis_delete(self, key: str) -> None:
        await self.redis.delete(key)

    async def every_inference_balances_by_itself(self) -> None:
        for inference in self.model.inferences:
            record = await self.ledger.inference(inference.id)
            assert (record is not None) == (inference.state is State.CAPTURED)
            if record is not None:
                assert sum(record.legs.values()) == inference.charge == record.capture.charge_nano


def test_the_ledger_agrees_with_the_model(redis_url: str) -> None:
    machine = type("Machine", (LedgerAgainstModel,), {"url": redis_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=50,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
