"""What is more than a leg of the ledger holds is paid in parts, all of them and each once."""

import pytest

from byline.archive.database import Archive
from byline.limits import LEG_NANO_MAX
from byline.statements import payouts
from byline.statements.frozen import Frozen
from byline.statements.payouts import PayoutRun
from byline.statements.planning import Plan, Standing, plan
from tests.byline.cases import Killed
from tests.byline.months import CENT, DOLLAR, HOST, NOVEMBER, OCTOBER, PAYDAY, FakeBank, export
from tests.byline.paydays import freeze_all, frozen_bank, paid_to, pay

pytestmark = pytest.mark.anyio


async def test_more_than_a_leg_holds_is_paid_in_parts(archive: Archive) -> None:
    whole = LEG_NANO_MAX // CENT * CENT
    bank = frozen_bank(archive, *[(HOST, whole)] * 2, (HOST, 5 * CENT + 1))
    steps: list[str] = []

    def die(step: str) -> None:
        steps.append(step)
        raise Killed

    with pytest.raises(Killed):
        await PayoutRun(bank, archive, step=die).run(NOVEMBER, now_ms=PAYDAY)
    export(archive, bank)
    for _ in range(2):
        (outcome,) = await pay(archive, bank, minimum=CENT)
    assert outcome.reason == "paid before, in entry 6"
    first, second, third = paid_to(archive, HOST)
    assert [each.payout.nano for each in (first, second, third)] == [whole, whole, 5 * CENT]
    assert (second.payout.lines_nano, second.payout.opening_nano) == (0, whole + 5 * CENT + 1)
    assert third.remainder_nano == 1


async def test_a_last_part_below_the_minimum_is_paid(archive: Archive) -> None:
    """The minimum is the whole payout's."""
    bank = frozen_bank(archive, (HOST, LEG_NANO_MAX // CENT * CENT), (HOST, 5 * CENT + 1))
    (outcome,) = await pay(archive, bank, minimum=DOLLAR)
    assert (outcome.paid_nano, outcome.left_nano, outcome.reason) == (outcome.payable_nano, 1, "")
    export(archive, bank)
    (again,) = await pay(archive, bank, minimum=DOLLAR)
    assert (again.paid_nano, again.reason) == (0, "paid before, in entry 4")


async def test_parts_of_exactly_what_a_leg_holds_are_all_paid(archive: Archive) -> None:
    bank = frozen_bank(archive, (HOST, LEG_NANO_MAX // CENT * CENT))
    assert [each.reason for each in await pay(archive, bank)] == [""]
    export(archive, bank)
    assert [each.reason for each in await pay(archive, bank)] == ["paid before, in entry 2"]


async def test_why_a_later_part_is_not_paid_is_said(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = frozen_bank(archive, (HOST, LEG_NANO_MAX // CENT * CENT), (HOST, 5 * CENT))

    def once(frozen: Frozen, standing: Standing, *, minimum_nano: int) -> Plan:
        if standing.paid:
            return Plan(5 * CENT, reason="held back")
        return plan(frozen, standing, minimum_nano=minimum_nano)

    monkeypatch.setattr(payouts, "plan", once)
    (outcome,) = await pay(archive, bank)
    assert (outcome.payable_nano - outcome.paid_nano, outcome.reason) == (5 * CENT, "held back")


async def test_parts_left_over_are_paid_with_the_next_month(archive: Archive) -> None:
    whole = LEG_NANO_MAX // CENT * CENT
    bank = FakeBank()
    for _ in range(2):
        bank.earn(HOST, whole, OCTOBER.start_ms)
    freeze_all(archive, bank, OCTOBER)

    def die(_: str) -> None:
        raise Killed

    with pytest.raises(Killed):
        await PayoutRun(bank, archive, step=die).run(OCTOBER, now_ms=PAYDAY)
    freeze_all(archive, bank, NOVEMBER)
    assert (await pay(archive, bank))[0].paid_nano == whole
    (october,) = await pay(archive, bank, OCTOBER)
    assert october.reason == "its lines are in the payout of host/2026-11"
