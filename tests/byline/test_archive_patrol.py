"""Whatever is changed in a row of the archive, in one place alone, the patrol finds it."""

import random
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from byline.archive.database import Archive
from byline.archive.tables import (
    account_days,
    entries,
    inferences,
    legs,
    manifests,
    progress,
    usage_days,
)
from byline.bookkeeping import archive_slice
from byline.bookkeeping.archive_slice import Lap, read_slice
from byline.bookkeeping.bookkeeper import Bookkeeper
from byline.bookkeeping.findings import Findings, Kind
from byline.ledger.ledger import Ledger
from tests.byline.cases import NOW_MS, an_attribution, captured, event_id
from tests.byline.exporting import export
from tests.byline.journals import FakeJournal, a_history

pytestmark = pytest.mark.anyio


def a_lap(archive: Archive) -> dict[str, str]:
    """What is wrong where, in one whole lap or up to the first slice that is not sound."""
    lap = Lap()
    while True:
        with archive.reading() as connection:
            part = read_slice(connection, "usd", lap)
        if part.wrong:
            return part.wrong
        lap.take(part)
        if lap.seq == lap.end:
            return {}


@pytest.fixture
async def journal(archive: Archive) -> FakeJournal:
    journal = FakeJournal()
    a_history(journal, random.Random(7), inferences=25)
    await export(journal, archive)
    return journal


@pytest.mark.parametrize("entries_a_slice", [1, 7, 500])
@pytest.mark.parametrize("legs_a_slice", [3, 10_000])
async def test_a_sound_archive_is_sound_in_slices_of_any_size(
    archive: Archive,
    journal: FakeJournal,
    monkeypatch: pytest.MonkeyPatch,
    entries_a_slice: int,
    legs_a_slice: int,
) -> None:
    monkeypatch.setattr(archive_slice, "ENTRIES_A_SLICE", entries_a_slice)
    monkeypatch.setattr(archive_slice, "LEGS_A_SLICE", legs_a_slice)
    assert len(journal.texts) > 80
    assert a_lap(archive) == {}


async def test_a_text_that_the_ledger_had_no_more_is_no_difference(archive: Archive) -> None:
    journal = FakeJournal()
    a_history(journal, random.Random(8), inferences=5)
    for key in [key for key in journal.explained if "/capture/" in key][:2]:
        journal.explained[key] = None
    await export(journal, archive)
    assert a_lap(archive) == {}


async def test_what_is_exported_during_a_lap_is_read_in_the_next(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_slice, "ENTRIES_A_SLICE", 4)
    journal, rng, lap = FakeJournal(), random.Random(9), Lap()
    for _ in range(12):
        a_history(journal, rng, inferences=2)
        await export(journal, archive)
        with archive.reading() as connection:
            part = read_slice(connection, "usd", lap)
        assert part.wrong == {}
        lap.take(part)
        if lap.seq == lap.end:
            lap = Lap()
    assert lap.seq < len(journal.texts)
    assert a_lap(archive) == {}


@pytest.mark.parametrize("invent", ["invented_day", "invented_inference"])
async def test_what_is_invented_is_found_while_the_archive_grows(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, invent: str
) -> None:
    monkeypatch.setattr(archive_slice, "ENTRIES_A_SLICE", 20)
    journal, rng, lap = FakeJournal(), random.Random(9), Lap()
    wrong: dict[str, str] = {}
    for round_ in range(30):
        a_history(journal, rng, inferences=1)
        await export(journal, archive)
        if round_ == 1:
            with archive.writing() as connection:
                globals()[invent](connection)
        with archive.reading() as connection:
            part = read_slice(connection, "usd", lap)
            wrong |= part.wrong
        lap.take(part)
        if lap.seq == lap.end:
            lap = Lap()
    assert [*wrong] == ["account_days" if invent == "invented_day" else "inferences"]


def test_a_long_archive_is_read_in_larger_slices() -> None:
    lags = (0, 25_000, 100_000, 10**9)
    assert [archive_slice.entries_a_slice(lag) for lag in lags] == [250, 250, 1_000, 2_000]


def text_of_an_entry(connection: Connection) -> None:
    text: str = connection.scalar(select(entries.c.text).where(entries.c.seq == 30)) or ""
    changed = text.replace('"policy":"2026-11"', '"policy":"2026-12"')
    connection.execute(update(entries).where(entries.c.seq == 30).values(text=changed))


def broken_text(connection: Connection) -> None:
    connection.execute(update(entries).where(entries.c.seq == 30).values(text="[]"))


def time_of_an_entry(connection: Connection) -> None:
    one = update(entries).where(entries.c.seq == 30)
    connection.execute(one.values(time_ms=entries.c.time_ms + 1))


def lost_entry(connection: Connection) -> None:
    connection.execute(delete(legs).where(legs.c.seq == 30))
    connection.execute(delete(entries).where(entries.c.seq == 30))


def lost_last_entry(connection: Connection) -> None:
    last = connection.scalar(select(progress.c.seq)) or 0
    connection.execute(delete(legs).where(legs.c.seq == last))
    connection.execute(delete(entries).where(entries.c.seq == last))


def amount_of_a_leg(connection: Connection) -> None:
    one = update(legs).where(legs.c.seq == 30, legs.c.position == 1)
    connection.execute(one.values(nano=legs.c.nano + 1))


def balance_of_a_leg(connection: Connection) -> None:
    one = update(legs).where(legs.c.seq == 30, legs.c.position == 1)
    connection.execute(one.values(balance=legs.c.balance + 1))


def lost_leg(connection: Connection) -> None:
    connection.execute(delete(legs).where(legs.c.seq == 30, legs.c.position == 1))


def invented_leg(connection: Connection) -> None:
    row = {"ledger": "usd", "seq": 30, "position": 9, "account": "contrib:zed", "nano": 1}
    connection.execute(insert(legs).values(**row, balance=1))


def sum_of_a_day(connection: Connection) -> None:
    one = update(account_days).where(account_days.c.account == "platform")
    connection.execute(one.values(nano=account_days.c.nano + 1))


def lost_day(connection: Connection) -> None:
    connection.execute(delete(account_days).where(account_days.c.account == "app:shop"))


def invented_day(connection: Connection) -> None:
    row = {"account": "contrib:zed", "ledger": "usd", "day": 1, "kind": "settle"}
    ends = {"adapter_version": "", "nano": 5, "legs": 1, "first_seq": 1, "last_seq": 1}
    connection.execute(insert(account_days).values(**row, **ends))


def day_that_ends_later(connection: Connection) -> None:
    last = connection.scalar(select(progress.c.seq))
    one = update(account_days).where(account_days.c.account == "funding")
    connection.execute(one.values(last_seq=last))


def day_that_ends_nowhere(connection: Connection) -> None:
    one = update(account_days).where(account_days.c.account == "funding")
    connection.execute(one.values(last_seq=10**9))


def usage_of_a_day(connection: Connection) -> None:
    connection.execute(update(usage_days).values(charge=usage_days.c.charge + 1))


def an_inference(connection: Connection) -> None:
    connection.execute(update(inferences).values(prompt_tokens=1))


def invented_inference(connection: Connection) -> None:
    row = connection.execute(select(inferences).limit(1)).one()._asdict()
    connection.execute(insert(inferences).values({**row, "inference": event_id()}))


def invented_usage(connection: Connection) -> None:
    row = connection.execute(select(usage_days).limit(1)).one()._asdict()
    connection.execute(insert(usage_days).values({**row, "application": "zed"}))


def entry_before_the_first(connection: Connection) -> None:
    row = connection.execute(select(entries).limit(1)).one()._asdict()
    connection.execute(insert(entries).values({**row, "seq": 0, "key": "x"}))


def leg_behind_the_newest(connection: Connection) -> None:
    ends = {"ledger": "usd", "seq": 10**9}
    row = connection.execute(select(entries).limit(1)).one()._asdict()
    connection.execute(insert(entries).values({**row, **ends, "key": "x"}))
    leg = {"position": 0, "account": "contrib:zed", "nano": 1, "balance": 1}
    connection.execute(insert(legs).values(**ends, **leg))


def manifest(connection: Connection) -> None:
    connection.execute(update(manifests).values(text="{}"))


def lost_manifests(connection: Connection) -> None:
    connection.execute(delete(manifests))


CORRUPTIONS = [
    (text_of_an_entry, "entry 30"), (broken_text, "entry 30"), (time_of_an_entry, "entry 30"),
    (lost_entry, "entry 30"), (lost_last_entry, "entry "), (amount_of_a_leg, "leg 30/1"),
    (balance_of_a_leg, "leg 30/1"), (lost_leg, "leg 30/1"), (invented_leg, "leg 30/9"),
    (sum_of_a_day, "account_days platform"), (lost_day, "account_days app:shop"),
    (invented_day, "account_days"), (day_that_ends_later, "account_days funding"),
    (day_that_ends_nowhere, "account_days funding"), (usage_of_a_day, "usage_days"),
    (invented_inference, "inferences"), (invented_usage, "usage_days"),
    (entry_before_the_first, "entries"), (leg_behind_the_newest, "legs"),
    (an_inference, "inference "), (manifest, "entry "), (lost_manifests, "entry "),
]  # fmt: skip


@pytest.mark.parametrize("entries_a_slice", [7, 500])
@pytest.mark.parametrize(
    ("corrupt", "where"), CORRUPTIONS, ids=[case[0].__name__ for case in CORRUPTIONS]
)
@pytest.mark.usefixtures("journal")
async def test_a_changed_row_is_found(
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
    corrupt: Callable[[Connection], None],
    where: str,
    entries_a_slice: int,
) -> None:
    monkeypatch.setattr(archive_slice, "ENTRIES_A_SLICE", entries_a_slice)
    assert a_lap(archive) == {}
    with archive.writing() as connection:
        corrupt(connection)
    wrong = a_lap(archive)
    assert [name for name in wrong if name.startswith(where)], wrong


async def rounds(bookkeeper: Bookkeeper, count: int = 3) -> Findings:
    for _ in range(count):
        findings = await bookkeeper.once(NOW_MS)
    return findings


async def test_a_balance_that_a_leg_carries_freezes_until_it_is_mended(
    ledger: Ledger, ledger_name: str, archive: Archive
) -> None:
    inference = await captured(ledger)
    await ledger.settle(an_attribution(inference), time_ms=NOW_MS)
    await export(ledger, archive, ledger_name)
    bookkeeper = Bookkeeper(ledger, archive, name=ledger_name)
    assert (await rounds(bookkeeper)).figures.archive_read_seq == 4
    one = (legs.c.account == "contrib:alice") & (legs.c.ledger == ledger_name)
    with archive.writing() as connection:
        connection.execute(update(legs).where(one).values(balance=501))
    (finding,) = (await rounds(bookkeeper)).found
    assert (finding.kind, finding.subject) == (Kind.ARCHIVE_ROW, "leg 4/1")
    assert "has balance 501, its entries make it 500" in finding.says
    assert "leg 4/1" in ((await ledger.unfinished()).frozen or "")
    with archive.writing() as connection:
        connection.execute(update(legs).where(one).values(balance=500))
    assert (await rounds(bookkeeper)).balanced


async def test_an_entry_that_is_another_in_the_journal_is_found(
    ledger: Ledger, ledger_name: str, archive: Archive
) -> None:
    """Text and row agree; only the journal says otherwise."""
    await ledger.deposit(event_id(), "demo", 7, time_ms=NOW_MS)
    await captured(ledger)
    await export(ledger, archive, ledger_name)
    bookkeeper = Bookkeeper(ledger, archive, name=ledger_name)
    assert (await rounds(bookkeeper)).balanced
    first = (entries.c.ledger == ledger_name) & (entries.c.seq == 1)
    with archive.writing() as connection:
        text: str = connection.scalar(select(entries.c.text).where(first)) or ""
        other = text.replace('"policy":""', '"policy":"x"')
        connection.execute(update(entries).where(first).values(text=other, policy="x"))
    (finding,) = (await rounds(bookkeeper)).found
    assert (finding.kind, finding.subject) == (Kind.ARCHIVE_ROW, "entry 1")
    assert "in the journal" in finding.says
