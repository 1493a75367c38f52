"""Months that were frozen and are paid: who earned, a run of the payouts, and what came of it."""

from byline.archive.database import Archive
from byline.ledger.ledger import Ledger
from byline.statements.freezing import Freezer
from byline.statements.months import Month
from byline.statements.paid import Paid, payouts_of
from byline.statements.payouts import Outcome, PayoutRun
from tests.byline.cases import a_capture, an_attribution, event_id
from tests.byline.journals import DAY_MS
from tests.byline.months import ANN, DOLLAR, NOVEMBER, PAYDAY, FakeBank, export


def frozen_bank(archive: Archive, *earnings: tuple[str, int]) -> FakeBank:
    """November's earnings, archived and frozen."""
    bank = FakeBank()
    for account, nano in earnings:
        bank.earn(account, nano, NOVEMBER.start_ms)
    freeze_all(archive, bank, NOVEMBER)
    return bank


def freeze_all(archive: Archive, bank: FakeBank, month: Month) -> None:
    export(archive, bank)
    Freezer(archive).freeze_all(month, now_ms=month.end_ms + DAY_MS)


async def pay(
    archive: Archive, bank: FakeBank, month: Month = NOVEMBER, *, now_ms: int = PAYDAY,
    minimum: int = DOLLAR,
) -> list[Outcome]:  # fmt: skip
    outcomes = await PayoutRun(bank, archive, minimum_nano=minimum).run(month, now_ms=now_ms)
    export(archive, bank)
    return outcomes


def paid_to(archive: Archive, account: str = ANN) -> list[Paid]:
    with archive.reading() as connection:
        return payouts_of(connection, "usd", account)


async def earned(ledger: Ledger, pool: int, month: Month = NOVEMBER) -> None:
    """One inference of the month that pays `alice` its pool, on the real ledger."""
    time_ms = month.start_ms
    inference = event_id(time_ms)
    await ledger.deposit(event_id(time_ms), "demo", 2 * pool, time_ms=time_ms)
    await ledger.hold(inference, "demo", pool, expires_ms=time_ms + 1, time_ms=time_ms)
    capture = a_capture(inference, held=pool, credit=0, pools=(pool,))
    await ledger.capture(capture, time_ms=time_ms)
    await ledger.settle(an_attribution(inference, pool=pool), time_ms=time_ms)
