"""The same payouts on the real ledger: whatever runs at once, no line is paid twice."""

import asyncio

import pytest

from byline.archive.database import Archive
from byline.errors import (
    LedgerRefused,
)
from byline.ledger.ledger import Ledger
from byline.records import Adjustment, Leg, Payout, Posted
from byline.statements.freezing import Freezer
from byline.statements.payouts import Outcome, PayoutRun
from tests.byline.cases import event_id
from tests.byline.exporting import export
from tests.byline.months import CENT, DOLLAR, NOVEMBER, OCTOBER, PAYDAY
from tests.byline.paydays import earned, paid_to

pytestmark = pytest.mark.anyio

ALICE = "contrib:alice"


async def test_two_months_that_are_run_at_once_pay_no_line_twice(
    ledger: Ledger, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    await earned(ledger, 2 * DOLLAR, OCTOBER)
    await earned(ledger, 3 * DOLLAR)
    gift = Adjustment(event_id(), (Leg(ALICE, 9 * DOLLAR), Leg("funding", -9 * DOLLAR)), "-", "ops")
    await ledger.adjust(gift, time_ms=PAYDAY)  # so that the balance would cover both
    await export(ledger, archive)
    Freezer(archive).freeze_all(NOVEMBER, now_ms=PAYDAY)
    both_have_looked, real = asyncio.Barrier(2), ledger.payout

    async def at_once(payout: Payout, *, time_ms: int) -> Posted:
        await both_have_looked.wait()
        return await real(payout, time_ms=time_ms)

    monkeypatch.setattr(ledger, "payout", at_once)
    run = PayoutRun(ledger, archive)
    outcomes = await asyncio.gather(
        *(run.run(month, now_ms=PAYDAY) for month in (OCTOBER, NOVEMBER))
    )
    refused = [each.reason for (each,) in outcomes if each.reason]
    assert len(refused) == 1
    assert "lines were paid before" in refused[0]
    monkeypatch.setattr(ledger, "payout", real)
    await export(ledger, archive)
    await run.run(NOVEMBER, now_ms=PAYDAY)
    assert await ledger.balance("payout") == 5 * DOLLAR


async def test_the_real_ledger_pays_once_and_archives_what_it_paid(
    ledger: Ledger, archive: Archive
) -> None:
    await earned(ledger, 3 * DOLLAR + 7)
    await export(ledger, archive)
    Freezer(archive).freeze_all(NOVEMBER, now_ms=PAYDAY)
    await ledger.block_payouts(ALICE, "tax form missing")
    run = PayoutRun(ledger, archive)
    assert (await run.run(NOVEMBER, now_ms=PAYDAY))[0].reason == "blocked: tax form missing"
    with pytest.raises(LedgerRefused, match="tax form missing"):
        await ledger.payout(
            Payout(event_id(PAYDAY), ALICE, CENT, f"{ALICE}/2026-11", 1, 4, 0, CENT, ""),
            time_ms=PAYDAY,
        )
    await ledger.allow_payouts(ALICE)
    assert (await run.run(NOVEMBER, now_ms=PAYDAY))[0] == Outcome(
        ALICE, 3 * DOLLAR, 3 * DOLLAR, 7, ""
    )
    adjustment = Adjustment(
        event_id(PAYDAY), (Leg(ALICE, DOLLAR), Leg("funding", -DOLLAR)), "a gift", "ops"
    )
    await ledger.adjust(adjustment, time_ms=PAYDAY)
    await export(ledger, archive)
    (again,) = await run.run(NOVEMBER, now_ms=PAYDAY)
    assert (again.paid_nano, again.reason) == (0, "paid before, in entry 5")
    assert await ledger.balance(ALICE) == DOLLAR + 7
    (paid,) = paid_to(archive, ALICE)
    assert (paid.seq, paid.payout.nano, paid.remainder_nano) == (5, 3 * DOLLAR, 7)
    assert (await ledger.check()).balanced
