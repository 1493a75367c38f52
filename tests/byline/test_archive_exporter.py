"""The exporter on a journal in memory: exactly once, whole, and never across a contradiction."""

import asyncio
import json
import random
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Table, func, select

from byline.archive.database import Archive
from byline.archive.exporter import Exporter, Lag
from byline.archive.rows import is_transient
from byline.archive.tables import (
    account_days,
    accounts,
    entries,
    inferences,
    legs,
    manifests,
    progress,
    tables,
    usage_days,
)
from byline.archive.writing import Written
from byline.errors import ArchiveMismatch, ArchiveUnavailable, LedgerFenced, LedgerUnavailable
from byline.posting.postings import DAY_MS
from tests.byline.cases import NOW_MS, event_id
from tests.byline.journals import FakeJournal, a_history, an_inference, an_operation, legs_of

pytestmark = pytest.mark.anyio

STEPS = ["read", "confirmed", "locked", "inserted", "summed", "progressed", "committed", "noted"]


class Stopped(Exception):
    """What a step raises in the place of a crash."""


def a_journal(inferences: int = 12, seed: int = 1) -> FakeJournal:
    journal = FakeJournal()
    a_history(journal, random.Random(seed), inferences=inferences)
    return journal


def exporter(
    journal: FakeJournal, archive: Archive, *, step: Callable[[str], None] = lambda _: None
) -> Exporter:
    return Exporter(journal, archive, step=step, entries_max=7)


async def export(journal: FakeJournal, archive: Archive) -> int:
    """Everything there is."""
    made, total = exporter(journal, archive), 0
    while added := await made.once():
        total += added
    return total


def rows(archive: Archive, table: Table) -> list[Any]:
    with archive.reading() as connection:
        key = list(table.primary_key)
        return list(connection.execute(select(table).order_by(*key)).all())


def contents(archive: Archive) -> dict[str, list[Any]]:
    return {name: rows(archive, table) for name, table in tables.tables.items()}


def balances(archive: Archive) -> dict[str, int]:
    return {row.account: row.nano for row in rows(archive, accounts) if row.nano}


async def test_every_entry_and_leg_is_archived_as_it_was_posted(archive: Archive) -> None:
    journal = a_journal()
    assert await export(journal, archive) == len(journal.texts)
    assert [row.text for row in rows(archive, entries)] == journal.texts
    archived = [(row.account, row.nano) for row in rows(archive, legs)]
    assert archived == [(leg.account, leg.nano) for leg in legs_of(journal)]
    assert journal.exported[-1] == len(journal.texts) == rows(archive, progress)[0].seq


async def test_the_accounts_are_the_ledgers_balances(archive: Archive) -> None:
    journal = a_journal()
    await export(journal, archive)
    assert balances(archive) == await journal.balances()
    assert not [
        row for row in rows(archive, accounts) if is_transient(row.account) and not row.nano
    ]


async def test_each_leg_knows_its_accounts_balance_after_it(archive: Archive) -> None:
    journal = a_journal()
    await export(journal, archive)
    running: dict[str, int] = {}
    for row in rows(archive, legs):
        running[row.account] = running.get(row.account, 0) + row.nano
        assert row.balance == running[row.account]


async def test_the_sums_by_day_are_those_of_the_lines(archive: Archive) -> None:
    journal = a_journal(30)
    await export(journal, archive)
    with archive.reading() as connection:
        day = func.floor(entries.c.time_ms / DAY_MS)
        version = func.coalesce(entries.c.adapter_version, "")
        key = (legs.c.account, day, entries.c.kind, version)
        summed = connection.execute(
            select(*key, func.sum(legs.c.nano), func.count(), func.min(legs.c.seq),
                   func.max(legs.c.seq))
            .select_from(legs.join(entries)).group_by(*key)
        ).all()  # fmt: skip
    expected = {tuple(map(_plain, row)) for row in summed if not is_transient(row[0])}
    found = {
        (row.account, row.day, row.kind, row.adapter_version, row.nano, row.legs, row.first_seq,
         row.last_seq) for row in rows(archive, account_days)
    }  # fmt: skip
    assert found == expected


def _plain(value: object) -> object:
    return value if isinstance(value, str) else int(value)  # type: ignore[call-overload]


async def test_an_inference_is_archived_from_its_captures_record(archive: Archive) -> None:
    journal = FakeJournal()
    inference = an_inference(journal, random.Random(1), application="shop", partial=True)
    await export(journal, archive)
    (row,) = rows(archive, inferences)
    assert (row.inference, row.application, row.seq, row.charge) == (inference, "shop", 2, 900)
    assert (row.model, row.prompt_tokens, row.completion_tokens) == ("auto", 12, 7)
    assert row.partial is True
    (day,) = rows(archive, usage_days)
    assert (day.inferences, day.partial, day.prompt_tokens, day.completion_tokens, day.charge) == (
        1, 1, 12, 7, 900,
    )  # fmt: skip


async def test_the_texts_behind_the_hashes_are_archived(archive: Archive) -> None:
    journal = a_journal()
    await export(journal, archive)
    assert {row.text for row in rows(archive, manifests)} == set(journal.explained.values())


async def test_a_text_the_ledger_has_no_more_is_archived_as_missing(archive: Archive) -> None:
    journal = FakeJournal()
    an_inference(journal, random.Random(1), settled=False)
    journal.explained = dict.fromkeys(journal.explained)
    told: list[Written] = []
    await Exporter(journal, archive, observe=told.append).once()
    assert [row.text for row in rows(archive, manifests)] == [None]
    assert (told[0].missing, told[0].manifests, told[0].inferences) == (1, 1, 0)


async def test_a_changed_text_stops_the_export(archive: Archive) -> None:
    journal = FakeJournal()
    an_inference(journal, random.Random(1), settled=False)
    journal.explained = {
        key: (text or "").replace("demo", "evil") for key, text in journal.explained.items()
    }
    with pytest.raises(ArchiveMismatch, match="changed after it was posted"):
        await export(journal, archive)
    assert contents(archive)["entries"] == []


async def test_exporting_again_from_the_start_adds_nothing(archive: Archive) -> None:
    journal = a_journal()
    await export(journal, archive)
    before = contents(archive)
    assert await export(journal, archive) == 0
    assert contents(archive) == before
    assert journal.exported[-1] == len(journal.texts)  # said again, should it have been lost


async def test_two_exporters_at_once_export_once(archive: Archive) -> None:
    journal = a_journal(30)
    added = await asyncio.gather(*(export(journal, archive) for _ in range(3)))
    assert sum(added) >= len(journal.texts)  # the one that came second may have added nothing
    assert [row.text for row in rows(archive, entries)] == journal.texts
    assert balances(archive) == await journal.balances()


@pytest.mark.parametrize("broken", STEPS)
async def test_whatever_step_it_dies_after_the_next_one_completes_the_same_archive(
    archive: Archive, broken: str
) -> None:
    journal = a_journal()
    seen: list[str] = []

    def die(step: str) -> None:
        seen.append(step)
        if step == broken and seen.count(step) == 2:
            raise Stopped

    first = exporter(journal, archive, step=die)
    with pytest.raises(Stopped):
        await first.run(asyncio.Event())
    await export(journal, archive)
    assert [row.text for row in rows(archive, entries)] == journal.texts
    assert balances(archive) == await journal.balances()
    assert sum(row.legs for row in rows(archive, account_days)) == len(
        [leg for leg in legs_of(journal) if not is_transient(leg.account)]
    )


async def test_a_gap_in_the_journal_stops_the_export(archive: Archive) -> None:
    journal = a_journal()
    journal.first_seq = 3
    with pytest.raises(ArchiveMismatch, match=r"no entry 1 \(its next is 3\): it was trimmed"):
        await export(journal, archive)
    assert contents(archive)["entries"] == []


async def test_a_journal_trimmed_up_to_what_is_exported_is_continued(archive: Archive) -> None:
    journal = a_journal()
    await export(journal, archive)
    journal.first_seq = len(journal.texts) + 1
    assert await export(journal, archive) == 0
    an_inference(journal, random.Random(9))
    assert await export(journal, archive) == 3


async def test_a_ledger_restored_from_an_older_copy_is_refused(archive: Archive) -> None:
    journal = a_journal()
    await export(journal, archive)
    journal.texts = journal.texts[:-3]
    with pytest.raises(ArchiveMismatch, match="restored from an older copy"):
        await export(journal, archive)


async def test_a_ledger_that_went_on_differently_is_refused(archive: Archive) -> None:
    journal = a_journal()
    await export(journal, archive)
    journal.texts = journal.texts[:-2]
    an_inference(journal, random.Random(9))
    with pytest.raises(ArchiveMismatch, match="is another one in the archive"):
        await export(journal, archive)
    assert journal.exported[-1] == len(journal.texts) - 1


async def test_a_key_that_is_archived_under_another_number_is_refused(archive: Archive) -> None:
    journal = FakeJournal()
    key = f"{event_id()}/deposit/0"
    for _ in range(2):
        journal.append(key, "deposit", {"funding": -5, "app:demo": 5})
    with pytest.raises(ArchiveMismatch, match="already, under another number"):
        await export(journal, archive)


@pytest.mark.parametrize(
    "text",
    ["{}", "no json", '{"v":2}', None],
)
async def test_a_broken_entry_stops_the_export(archive: Archive, text: str | None) -> None:
    journal = a_journal()
    unbalanced = json.loads(journal.texts[4])
    unbalanced["legs"][0][1] = "1"
    journal.texts[4] = text or json.dumps(unbalanced)
    with pytest.raises(ArchiveMismatch, match="journal entry 5"):
        await export(journal, archive)


async def test_several_ledgers_share_an_archive(archive: Archive) -> None:
    journals = {"usd": a_journal(3, seed=1), "usd2": a_journal(3, seed=2)}
    for name, journal in journals.items():
        while await Exporter(journal, archive, name=name).once():
            pass
    for name, journal in journals.items():
        found = {r.account: r.nano for r in rows(archive, accounts) if r.ledger == name and r.nano}
        assert found == await journal.balances()


async def test_the_lag_says_what_waits_and_since_when(archive: Archive) -> None:
    journal = a_journal(3)
    empty = exporter(journal, archive)
    assert await empty.lag() == Lag(0, len(journal.texts), NOW_MS)
    await export(journal, archive)
    assert await empty.lag() == Lag(len(journal.texts), 0, None)


async def test_a_page_of_very_wide_entries_is_cut(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byline.archive.exporter.LEGS_PER_EXPORT_MAX", 3)
    journal = a_journal()
    told: list[Written] = []
    await Exporter(journal, archive, observe=told.append).once()
    assert told[0].entries == 2
    assert await export(journal, archive) == len(journal.texts) - 2


@pytest.mark.parametrize(
    "problem", [LedgerUnavailable("no answer"), LedgerFenced("an older epoch")]
)
async def test_a_ledger_that_is_away_is_waited_for_and_joined_again(
    archive: Archive, problem: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byline.archive.exporter.AWAY_SECONDS", 0.001)
    journal, stop = a_journal(), asyncio.Event()
    journal.away = problem
    running = asyncio.create_task(exporter(journal, archive).run(stop))
    await _until(lambda: journal.exported[-1:] == [len(journal.texts)])
    stop.set()
    await running
    assert journal.rejoined >= 2  # the first attempt failed, too
    assert balances(archive) == await journal.balances()


async def test_an_archive_that_is_away_is_waited_for(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byline.archive.exporter.AWAY_SECONDS", 0.001)
    journal, stop, failures = a_journal(), asyncio.Event(), [1, 2]

    def fail(step: str) -> None:
        if step == "locked" and failures:
            failures.pop()
            raise ArchiveUnavailable("the disk is full")

    running = asyncio.create_task(exporter(journal, archive, step=fail).run(stop))
    await _until(lambda: journal.exported[-1:] == [len(journal.texts)])
    stop.set()
    await running
    assert not failures


async def test_a_contradiction_ends_the_run(archive: Archive) -> None:
    journal = a_journal()
    journal.first_seq = 3
    with pytest.raises(ArchiveMismatch):
        await asyncio.wait_for(exporter(journal, archive).run(asyncio.Event()), 5)


async def _until(claim: Callable[[], bool]) -> None:
    for _ in range(500):
        if claim():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not become true in time")


AMOUNTS = st.lists(st.tuples(st.integers(0, 5), st.integers(-(10**12) + 1, 10**12 - 1)), max_size=6)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=st.lists(AMOUNTS, max_size=30), pages=st.integers(1, 9))
async def test_any_history_leaves_the_ledgers_balances(
    archive: Archive, history: Sequence[Sequence[tuple[int, int]]], pages: int
) -> None:
    journal, rng, name = FakeJournal(), random.Random(1), uuid.uuid4().hex
    for amounts in history:
        legs_by_account = {f"contrib:{number}": nano for number, nano in amounts if nano}
        rest = -sum(legs_by_account.values())
        balanced = legs_by_account | ({"funding": rest} if rest else {})
        an_operation(journal, rng, "adjust", balanced)
    made = Exporter(journal, archive, name=name, entries_max=pages)
    while await made.once():
        pass
    found = {r.account: r.nano for r in rows(archive, accounts) if r.ledger == name and r.nano}
    assert found == await journal.balances()
