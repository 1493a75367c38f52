"""Statements are frozen once, cover each line once, and are closed where the journal says."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import insert, update

from byline.archive.database import Archive
from byline.archive.tables import adapters, legs, statements
from byline.errors import ArchiveUnavailable, InvalidInput, MonthOpen, NotFound
from byline.statements import frozen as store
from byline.statements.freezing import Freezer
from byline.statements.months import Month
from byline.statements.statement import is_payee, sha256_of
from tests.byline.cases import ADAPTER, Killed
from tests.byline.journals import DAY_MS
from tests.byline.months import (
    ANN,
    DECEMBER,
    HOST,
    NOVEMBER,
    OCTOBER,
    FakeBank,
    chain,
    export,
    freeze,
)

SOON = NOVEMBER.end_ms + 1_000  # the month is over, its last entries may still be on their way


@pytest.mark.parametrize(
    "text",
    [
        "2026-13",
        "2026-1",
        "26-11",
        "2026-11-01",
        "",
        "\uff12026-11",
        "2026-11\n",
        "1969-12",
        "9999-12",
    ],
)
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="write 2026-11"):
        Month.parse(text)


def test_months_follow_each_other_through_the_year() -> None:
    assert str(DECEMBER.next) == "2027-01"
    assert NOVEMBER.end_ms == DECEMBER.start_ms
    assert Month.of(DECEMBER.start_ms - 1) == NOVEMBER
    assert Month.of(DECEMBER.start_ms) == DECEMBER == Month.parse("2026-12")


def test_payees_alone_get_statements() -> None:
    payees = ["contrib:a", "owner:med", "base:tiny", "host", "platform"]
    others = ["app:demo", "unattributed:med@1", "hold:x", "open:x", "funding", "payout", "refund"]
    assert [name for name in payees + others if is_payee(name)] == payees


@pytest.mark.parametrize("column", ["nano", "balance"])
def test_lines_that_do_not_come_to_the_balance_they_carry_are_not_frozen(
    archive: Archive, column: str
) -> None:
    bank = FakeBank()
    bank.earn(ANN, 70, OCTOBER.start_ms)
    bank.earn(ANN, 100, NOVEMBER.start_ms)
    bank.earn(ANN, 1, DECEMBER.start_ms)
    export(archive, bank)
    one = update(legs).where(legs.c.account == ANN, legs.c.seq == 2)
    with archive.writing() as connection:
        connection.execute(one.values({column: legs.c[column] + 5}))
    assert freeze(archive, ANN, OCTOBER).closing_nano == 70
    with pytest.raises(ArchiveUnavailable, match=f"of {ANN} for 2026-11 is not frozen"):
        freeze(archive, ANN, NOVEMBER)
    with archive.writing() as connection:
        connection.execute(one.values({column: legs.c[column] - 5}))
    assert freeze(archive, ANN, NOVEMBER).closing_nano == 170


def test_a_statement_is_opening_and_lines_and_closing(archive: Archive) -> None:
    bank = FakeBank()
    bank.earn(ANN, 70, OCTOBER.start_ms)
    bank.earn(HOST, 5, NOVEMBER.start_ms)
    bank.earn(ANN, 100, NOVEMBER.start_ms + 1)
    bank.lose(ANN, 30, NOVEMBER.start_ms + 2)
    bank.earn(ANN, 1, DECEMBER.start_ms)
    export(archive, bank)
    with archive.writing() as connection:
        row = {"adapter_version": ADAPTER, "adapter": "healthcare", "dataset": "rows@1"}
        connection.execute(insert(adapters).values(row))
    november = freeze(archive, ANN, NOVEMBER)
    assert (november.from_seq, november.to_seq) == (2, 4)
    assert (november.opening_nano, november.closing_nano) == (70, 140)
    assert [(line.seq, line.kind, line.nano) for line in november.lines] == [
        (3, "settle", 100), (4, "adjust", -30),
    ]  # fmt: skip
    assert (november.totals["earnings"], november.totals["adjustments"]) == (100, -30)
    assert november.adapters == [(None, None, -30), (ADAPTER, "rows@1", 100)]
    assert [str(each.month) for each in chain(archive, ANN)] == ["2026-10", "2026-11"]


def test_a_month_ends_before_the_first_entry_of_a_later_one(archive: Archive) -> None:
    bank = FakeBank()
    bank.earn(ANN, 1, NOVEMBER.end_ms - 1)
    bank.earn(HOST, 1, NOVEMBER.end_ms)  # somebody else's
    bank.earn(ANN, 2, NOVEMBER.end_ms - 1)  # the spool sent it late
    export(archive, bank)
    november = freeze(archive, ANN, NOVEMBER)
    assert [line.nano for line in november.lines] == [1]
    december = freeze(archive, ANN, DECEMBER)
    assert [(line.nano, line.late) for line in december.lines] == [(2, True)]
    assert not any(line.late for line in november.lines)


def test_a_month_that_is_not_over_is_refused(archive: Archive) -> None:
    bank = FakeBank()
    bank.earn(ANN, 1, NOVEMBER.start_ms)
    bank.earn(ANN, 1, NOVEMBER.end_ms)
    export(archive, bank)
    with pytest.raises(MonthOpen, match=r"can be frozen from 2026-12-01T00:00:00Z on"):
        Freezer(archive).freeze(ANN, NOVEMBER, now_ms=NOVEMBER.end_ms - 1)


def test_a_month_whose_end_the_archive_has_not_seen_is_refused(archive: Archive) -> None:
    bank = FakeBank()
    bank.earn(ANN, 1, NOVEMBER.start_ms)
    export(archive, bank)
    with pytest.raises(MonthOpen, match=r"or after 2026-12-01T01:00:00Z"):
        Freezer(archive).freeze(ANN, NOVEMBER, now_ms=SOON)
    bank.earn(HOST, 1, NOVEMBER.end_ms)
    export(archive, bank)
    assert Freezer(archive).freeze(ANN, NOVEMBER, now_ms=SOON).to_seq == 1


def test_an_hour_after_its_end_a_quiet_month_ends_with_what_there_is(archive: Archive) -> None:
    bank = FakeBank()
    bank.earn(ANN, 1, NOVEMBER.start_ms)
    export(archive, bank)
    assert freeze(archive, ANN, NOVEMBER).closing_nano == 1
    bank.earn(ANN, 2, NOVEMBER.start_ms)
    export(archive, bank)
    assert [line.nano for line in freeze(archive, ANN, NOVEMBER).lines] == [1]
    assert [(line.nano, line.late) for line in freeze(archive, ANN, DECEMBER).lines] == [(2, True)]


def test_freezing_again_changes_nothing(archive: Archive) -> None:
    bank = FakeBank()
    bank.earn(ANN, 1, NOVEMBER.start_ms)
    bank.earn(ANN, 1, NOVEMBER.end_ms)
    export(archive, bank)
    first = Freezer(archive).freeze(ANN, NOVEMBER, now_ms=SOON)
    bank.earn(ANN, 5, NOVEMBER.start_ms)
    export(archive, bank)
    assert Freezer(archive).freeze(ANN, NOVEMBER, now_ms=SOON + 40 * DAY_MS) == first
    assert Freezer(archive).freeze_all(NOVEMBER, now_ms=SOON) == [first]


def test_processes_that_freeze_at_once_get_the_same_bytes(archive: Archive) -> None:
    bank = FakeBank()
    for day in range(90):
        bank.earn(ANN, day, OCTOBER.start_ms + day * DAY_MS)
        bank.earn(HOST, day, OCTOBER.start_ms + day * DAY_MS)
    export(archive, bank)

    def work(_: int) -> list[store.Frozen]:
        return Freezer(archive).freeze_all(NOVEMBER, now_ms=SOON)

    with ThreadPoolExecutor(8) as threads:
        frozen = list(threads.map(work, range(8)))
    assert all(each == frozen[0] for each in frozen)
    assert [each.account for each in frozen[0]] == [ANN, HOST]
    for account in (ANN, HOST):
        october, november = chain(archive, account)
        assert november.opening_nano == october.closing_nano


def test_skipped_months_are_frozen_in_order_and_empty_ones_chain(archive: Archive) -> None:
    bank = FakeBank()
    september = Month(2026, 9)
    bank.earn(HOST, 1, september.start_ms)
    bank.earn(ANN, 1, OCTOBER.start_ms)
    bank.earn(ANN, 1, DECEMBER.start_ms)
    bank.earn(ANN, 1, DECEMBER.end_ms)
    export(archive, bank)
    freeze(archive, ANN, DECEMBER)
    months = chain(archive, ANN)
    assert [(str(each.month), len(each.lines)) for each in months] == [
        ("2026-10", 1), ("2026-11", 0), ("2026-12", 1),
    ]  # fmt: skip
    found = store.of_account(archive, "usd", ANN)
    assert [each.previous_sha256 for each in months] == [None, found[2].sha256, found[1].sha256]
    with pytest.raises(NotFound):
        store.find(archive, "usd", ANN, september)


def test_a_crash_between_two_steps_is_repaired_by_freezing_again(archive: Archive) -> None:
    bank = FakeBank()
    bank.earn(ANN, 1, OCTOBER.start_ms)
    bank.earn(HOST, 1, NOVEMBER.start_ms)
    bank.earn(ANN, 1, DECEMBER.start_ms)
    export(archive, bank)
    steps: list[str] = []
    Freezer(archive, step=steps.append).freeze_all(NOVEMBER, now_ms=SOON)
    expected = store.of_month(archive, "usd", NOVEMBER)
    assert len(steps) == 4
    for account in range(len(steps)):
        with archive.writing() as connection:
            connection.execute(statements.delete())
        left = [account]

        def die(_: str, left: list[int] = left) -> None:
            if not left[0]:
                raise Killed
            left[0] -= 1

        with pytest.raises(Killed):
            Freezer(archive, step=die).freeze_all(NOVEMBER, now_ms=SOON)
        assert Freezer(archive).freeze_all(NOVEMBER, now_ms=SOON) == expected


def test_an_account_without_a_line_has_no_statement(archive: Archive) -> None:
    bank = FakeBank()
    bank.earn(ANN, 1, NOVEMBER.start_ms)
    bank.earn(HOST, 1, NOVEMBER.end_ms)
    export(archive, bank)
    for account in (HOST, "contrib:nobody"):
        with pytest.raises(NotFound, match="nothing before the month's end"):
            Freezer(archive).freeze(account, NOVEMBER, now_ms=SOON)
    assert [each.account for each in Freezer(archive).freeze_all(NOVEMBER, now_ms=SOON)] == [ANN]


def test_a_ledger_that_was_never_exported_is_said(archive: Archive) -> None:
    with pytest.raises(NotFound, match="has nothing of the ledger 'eur'"):
        Freezer(archive, ledger="eur").freeze_all(NOVEMBER, now_ms=SOON)


def test_ledgers_are_frozen_apart(archive: Archive) -> None:
    for name, nano in (("usd", 1), ("usd-2", 2)):
        bank = FakeBank(nano)
        bank.earn(ANN, nano, NOVEMBER.start_ms)
        bank.earn(ANN, nano, NOVEMBER.end_ms)
        export(archive, bank, name=name)
        frozen = Freezer(archive, ledger=name).freeze(ANN, NOVEMBER, now_ms=SOON)
        assert (frozen.ledger, frozen.closing_nano) == (name, nano)


def test_a_statement_that_was_changed_is_not_handed_out(archive: Archive) -> None:
    bank = FakeBank()
    bank.earn(ANN, 1, NOVEMBER.start_ms)
    bank.earn(ANN, 1, NOVEMBER.end_ms)
    export(archive, bank)
    frozen = Freezer(archive).freeze(ANN, NOVEMBER, now_ms=SOON)
    text = store.text_of(archive, frozen)
    assert sha256_of(text) == frozen.sha256
    with archive.writing() as connection:
        connection.execute(update(statements).values(json=text.replace('"nano":1', '"nano":2')))
    with pytest.raises(ArchiveUnavailable, match="not the one that was frozen"):
        store.text_of(archive, frozen)


def test_an_entry_of_a_kind_that_nobody_knows_stops_the_freezing(archive: Archive) -> None:
    bank = FakeBank()
    bank.earn(ANN, 1, NOVEMBER.start_ms)
    bank.append("x/gift/0", "gift", {ANN: 1, HOST: -1}, time_ms=NOVEMBER.start_ms)
    bank.earn(ANN, 1, NOVEMBER.end_ms)
    export(archive, bank)
    with pytest.raises(ArchiveUnavailable, match="entry 2 of contrib:ann is a 'gift'"):
        Freezer(archive).freeze(ANN, NOVEMBER, now_ms=SOON)
