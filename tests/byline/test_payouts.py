"""Payouts pay whole cents of frozen statements once, whatever is run twice or dies in between."""

import asyncio
from dataclasses import replace

import pytest

from byline.archive.database import Archive
from byline.errors import ArchiveUnavailable, LedgerFrozen, LedgerUnavailable, NotFound
from byline.posting.postings import event_ms
from byline.records import Payout, Posted
from byline.statements.paid import payouts_of
from byline.statements.payouts import Outcome, PayoutRun
from byline.statements.planning import payout_operation
from tests.byline.cases import Killed
from tests.byline.journals import DAY_MS
from tests.byline.months import (
    ANN,
    CENT,
    DECEMBER,
    DOLLAR,
    HOST,
    NOVEMBER,
    OCTOBER,
    PAYDAY,
    FakeBank,
    export,
)
from tests.byline.paydays import freeze_all, frozen_bank, paid_to, pay

pytestmark = pytest.mark.anyio


async def test_whole_cents_are_paid_and_the_remainder_is_left(archive: Archive) -> None:
    bank = frozen_bank(archive, (ANN, 2 * DOLLAR + CENT - 1), (HOST, 3 * DOLLAR))
    assert await pay(archive, bank) == [
        Outcome(ANN, 2 * DOLLAR, 2 * DOLLAR, CENT - 1, ""),
        Outcome(HOST, 3 * DOLLAR, 3 * DOLLAR, 0, ""),
    ]
    (paid,) = paid_to(archive)
    assert paid.payout == Payout(
        operation=payout_operation("usd", ANN, NOVEMBER), account=ANN, nano=2 * DOLLAR,
        statement=f"{ANN}/2026-11", first_seq=1, last_seq=2, opening_nano=0,
        lines_nano=2 * DOLLAR + CENT - 1, reference="",
    )  # fmt: skip
    assert paid.remainder_nano == CENT - 1
    with archive.reading() as connection:
        everybody = payouts_of(connection, "usd")
    assert [each.payout.account for each in everybody] == [ANN, HOST]


async def test_the_operation_is_a_uuid_of_the_millisecond_after_the_month() -> None:
    operation = payout_operation("usd", ANN, NOVEMBER)
    assert event_ms(operation) == NOVEMBER.end_ms
    others = {
        payout_operation("eur", ANN, NOVEMBER), payout_operation("usd", HOST, NOVEMBER),
        payout_operation("usd", ANN, DECEMBER), payout_operation("usd", ANN, NOVEMBER, 1),
    }  # fmt: skip
    assert len(others | {operation}) == 5
    assert payout_operation("usd", ANN, NOVEMBER) == operation


async def test_a_second_run_pays_nothing_though_the_balance_has_grown(archive: Archive) -> None:
    bank = frozen_bank(archive, (ANN, 2 * DOLLAR))
    await pay(archive, bank)
    bank.earn(ANN, 5 * DOLLAR, NOVEMBER.end_ms)
    export(archive, bank)
    (again,) = await pay(archive, bank, now_ms=PAYDAY + 30 * DAY_MS)
    assert again == Outcome(ANN, 0, 0, 5 * DOLLAR, "paid before, in entry 2")
    assert len(bank.payouts) == 1


async def test_two_operators_at_once_pay_once(archive: Archive) -> None:
    bank = frozen_bank(archive, (ANN, 2 * DOLLAR))

    both_have_looked = asyncio.Barrier(2)
    real = bank.payout

    async def at_once(payout: Payout, *, time_ms: int) -> Posted:
        await both_have_looked.wait()
        return await real(payout, time_ms=time_ms)

    bank.payout = at_once  # type: ignore[method-assign]
    run = PayoutRun(bank, archive)
    outcomes = await asyncio.gather(*(run.run(NOVEMBER, now_ms=PAYDAY) for _ in range(2)))
    assert sorted(outcome.reason for (outcome,) in outcomes) == ["", "paid before, in entry 2"]
    assert len(bank.payouts) == 1


async def test_a_payout_of_another_amount_meanwhile_is_not_paid_on_top(archive: Archive) -> None:
    bank = frozen_bank(archive, (ANN, 5 * DOLLAR))
    real = bank.payout

    async def after_another(payout: Payout, *, time_ms: int) -> Posted:
        await real(replace(payout, nano=2 * DOLLAR), time_ms=time_ms)
        return await real(payout, time_ms=time_ms)

    bank.payout = after_another  # type: ignore[method-assign]
    (outcome,) = await pay(archive, bank)
    assert (outcome.paid_nano, "byline payouts list" in outcome.reason) == (0, True)
    assert [each.payout.nano for each in paid_to(archive)] == [2 * DOLLAR]


@pytest.mark.parametrize("killed_at", [0, 1])
async def test_a_crash_between_two_payouts_pays_each_once(archive: Archive, killed_at: int) -> None:
    bank = frozen_bank(archive, (ANN, 2 * DOLLAR), (HOST, 3 * DOLLAR))
    steps: list[str] = []

    def die(step: str) -> None:
        steps.append(step)
        if len(steps) > killed_at:
            raise Killed

    with pytest.raises(Killed):
        await PayoutRun(bank, archive, step=die).run(NOVEMBER, now_ms=PAYDAY)
    export(archive, bank)
    await pay(archive, bank)
    assert [each.payout.nano for each in paid_to(archive)] == [2 * DOLLAR]
    assert [each.payout.nano for each in paid_to(archive, HOST)] == [3 * DOLLAR]


async def test_an_answer_that_was_lost_is_found_by_the_next_run(archive: Archive) -> None:
    bank = frozen_bank(archive, (ANN, 2 * DOLLAR))
    real = bank.payout

    async def unanswered(payout: Payout, *, time_ms: int) -> Posted:
        await real(payout, time_ms=time_ms)
        raise LedgerUnavailable("no answer")

    bank.payout = unanswered  # type: ignore[method-assign]
    with pytest.raises(LedgerUnavailable):
        await PayoutRun(bank, archive).run(NOVEMBER, now_ms=PAYDAY)
    export(archive, bank)
    bank.payout = real  # type: ignore[method-assign]
    assert (await pay(archive, bank))[0].reason == "paid before, in entry 2"
    assert len(bank.payouts) == 1


async def test_a_run_waits_until_the_archive_has_what_was_posted(archive: Archive) -> None:
    bank = frozen_bank(archive, (ANN, 2 * DOLLAR))
    bank.lose(ANN, DOLLAR, PAYDAY)
    running = asyncio.create_task(PayoutRun(bank, archive).run(NOVEMBER, now_ms=PAYDAY))
    await asyncio.sleep(0.2)
    assert not running.done()
    export(archive, bank)
    assert (await running)[0].paid_nano == DOLLAR
    impatient = PayoutRun(bank, archive, catch_up_seconds=0.1)
    with pytest.raises(ArchiveUnavailable, match=r"has 2 of 3 entries.*byline\.archive"):
        await impatient.run(NOVEMBER, now_ms=PAYDAY)


async def test_what_is_pending_waits_for_the_next_month(archive: Archive) -> None:
    bank = FakeBank()
    bank.earn(ANN, 2 * DOLLAR, NOVEMBER.start_ms)
    bank.earn(ANN, 3 * DOLLAR, NOVEMBER.end_ms - 1)
    bank.earn(ANN, DOLLAR, NOVEMBER.end_ms + DAY_MS)
    freeze_all(archive, bank, NOVEMBER)
    (outcome,) = await pay(archive, bank, now_ms=NOVEMBER.end_ms + 2 * DAY_MS)
    assert (outcome.paid_nano, outcome.left_nano) == (2 * DOLLAR, 4 * DOLLAR)
    freeze_all(archive, bank, DECEMBER)
    await pay(archive, bank, DECEMBER, now_ms=DECEMBER.end_ms + 10 * DAY_MS)
    first, second = paid_to(archive)
    assert first.remainder_nano == second.payout.opening_nano == 3 * DOLLAR
    assert (second.payout.lines_nano, second.payout.nano) == (DOLLAR, 4 * DOLLAR)
    assert (second.payout.first_seq, second.payout.last_seq) == (3, 4)


async def test_all_that_is_pending_is_said(archive: Archive) -> None:
    bank = frozen_bank(archive, (ANN, 2 * DOLLAR))
    (outcome,) = await pay(archive, bank, now_ms=NOVEMBER.start_ms + DAY_MS)
    assert outcome.reason == "below the minimum of 1.000000000 USD; 2.000000000 USD are pending"


async def test_later_debits_are_taken_from_what_is_payable(archive: Archive) -> None:
    bank = frozen_bank(archive, (ANN, 5 * DOLLAR))
    bank.lose(ANN, 2 * DOLLAR, PAYDAY)
    export(archive, bank)
    assert (await pay(archive, bank))[0].paid_nano == 3 * DOLLAR


async def test_blocked_and_negative_accounts_are_not_paid(archive: Archive) -> None:
    bank = frozen_bank(archive, (ANN, 5 * DOLLAR), (HOST, 5 * DOLLAR))
    bank.lose(ANN, 6 * DOLLAR, PAYDAY)
    bank.blocked[HOST] = "tax form missing"
    export(archive, bank)
    assert await pay(archive, bank) == [
        Outcome(ANN, 0, 0, -DOLLAR, "the balance is negative"),
        Outcome(HOST, 5 * DOLLAR, 0, 5 * DOLLAR, "blocked: tax form missing"),
    ]
    assert not bank.payouts
    bank.blocked.clear()
    assert (await pay(archive, bank))[1].paid_nano == 5 * DOLLAR


async def test_a_block_in_the_last_moment_is_the_ledgers_word(archive: Archive) -> None:
    bank = frozen_bank(archive, (ANN, 5 * DOLLAR), (HOST, 5 * DOLLAR))

    def block(_: str) -> None:
        bank.blocked[HOST] = "tax form missing"

    outcomes = await PayoutRun(bank, archive, step=block).run(NOVEMBER, now_ms=PAYDAY)
    assert outcomes[1].reason == "the ledger refused it: blocked: tax form missing"


async def test_a_frozen_ledger_stops_the_run(archive: Archive) -> None:
    bank = frozen_bank(archive, (ANN, 5 * DOLLAR))

    async def frozen(payout: Payout, *, time_ms: int) -> Posted:
        raise LedgerFrozen("by the bookkeeper")

    bank.payout = frozen  # type: ignore[method-assign]
    with pytest.raises(LedgerFrozen):
        await pay(archive, bank)


async def test_below_the_minimum_nothing_is_paid(archive: Archive) -> None:
    bank = frozen_bank(archive, (ANN, DOLLAR - 1))
    (outcome,) = await pay(archive, bank)
    assert outcome == Outcome(ANN, 99 * CENT, 0, DOLLAR - 1, "below the minimum of 1.000000000 USD")
    assert (await pay(archive, bank, minimum=CENT))[0].paid_nano == 99 * CENT


async def test_remainders_of_a_nano_accumulate_over_the_months(archive: Archive) -> None:
    bank, month = FakeBank(), OCTOBER
    for number in range(4):
        bank.earn(ANN, DOLLAR + CENT // 4, month.start_ms)
        freeze_all(archive, bank, month)
        await pay(archive, bank, month, now_ms=month.end_ms + 10 * DAY_MS)
        assert len(paid_to(archive)) == number + 1
        month = month.next
    assert [each.payout.nano for each in paid_to(archive)] == [DOLLAR] * 3 + [DOLLAR + CENT]
    assert [each.remainder_nano for each in paid_to(archive)] == [
        CENT // 4, CENT // 2, CENT * 3 // 4, 0,
    ]  # fmt: skip


async def test_an_older_month_is_not_paid_after_a_newer_one(archive: Archive) -> None:
    bank = FakeBank()
    bank.earn(ANN, 2 * DOLLAR, OCTOBER.start_ms)
    bank.earn(ANN, 3 * DOLLAR, NOVEMBER.start_ms)
    freeze_all(archive, bank, NOVEMBER)
    assert (await pay(archive, bank))[0].paid_nano == 5 * DOLLAR
    (october,) = await pay(archive, bank, OCTOBER)
    assert october.reason == "its lines are in the payout of contrib:ann/2026-11"


async def test_an_older_month_that_is_paid_late_leaves_the_newer_one_its_own(
    archive: Archive,
) -> None:
    bank = FakeBank()
    bank.earn(ANN, 2 * DOLLAR, OCTOBER.start_ms)
    bank.earn(ANN, 3 * DOLLAR, NOVEMBER.start_ms)
    freeze_all(archive, bank, NOVEMBER)
    assert (await pay(archive, bank, OCTOBER))[0].paid_nano == 2 * DOLLAR
    assert (await pay(archive, bank))[0].paid_nano == 3 * DOLLAR
    _, second = paid_to(archive)
    assert (second.payout.opening_nano, second.payout.lines_nano) == (0, 3 * DOLLAR)


async def test_a_dry_run_pays_nothing(archive: Archive) -> None:
    bank = frozen_bank(archive, (ANN, 5 * DOLLAR))
    run = PayoutRun(bank, archive)
    (outcome,) = await run.run(NOVEMBER, now_ms=PAYDAY, dry_run=True)
    assert outcome == Outcome(ANN, 5 * DOLLAR, 0, 5 * DOLLAR, "")
    assert not bank.payouts


async def test_without_statements_the_message_says_to_freeze(archive: Archive) -> None:
    bank = frozen_bank(archive, (ANN, 5 * DOLLAR))
    with pytest.raises(NotFound, match="byline statements freeze --month 2026-12"):
        await pay(archive, bank, DECEMBER)


async def test_a_payout_whose_text_is_missing_is_said(archive: Archive) -> None:
    bank = frozen_bank(archive, (ANN, 5 * DOLLAR))
    await PayoutRun(bank, archive).run(NOVEMBER, now_ms=PAYDAY)
    bank.explained.clear()
    export(archive, bank)
    with pytest.raises(ArchiveUnavailable, match="lacks the text of the payout in entry 2"):
        paid_to(archive)
