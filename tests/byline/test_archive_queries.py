"""Earnings, usage and history: exact over any history, and every line on exactly one page."""

import random
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from byline.archive.cursor import Cursor, cursor_from, newest_first
from byline.archive.database import Archive
from byline.archive.days import day_number, first_pending_day, iso_day
from byline.archive.earnings import balance_of, breakdown_of
from byline.archive.exporter import Exporter
from byline.archive.history import history_of
from byline.archive.lines import AccountLine, account_lines
from byline.archive.periods import ALL_TIME, Period, exported, first_seqs
from byline.archive.tables import account_days, inferences
from byline.archive.usage import Used, funds_of, usage_lines, usage_of
from byline.errors import InvalidInput
from byline.limits import CLEARING_DAYS
from byline.posting.postings import DAY_MS, parse_entry
from tests.byline.cases import ADAPTER, NOW_MS
from tests.byline.journals import FakeJournal, a_history, an_inference, an_operation

pytestmark = pytest.mark.anyio

LEDGERS = ("usd", "usd2")
PAYEES = [f"contrib:payee-{number}" for number in range(20)]
DAY = NOW_MS // DAY_MS


async def export(journals: dict[str, FakeJournal], archive: Archive) -> None:
    for name, journal in journals.items():
        while await Exporter(journal, archive, name=name).once():
            pass


@pytest.fixture
async def journals(archive: Archive) -> dict[str, FakeJournal]:
    """Two ledgers with three weeks of everything, exported."""
    made = {name: FakeJournal() for name in LEDGERS}
    for seed, journal in enumerate(made.values()):
        a_history(journal, random.Random(seed), inferences=25)
    await export(made, archive)
    return made


@pytest.fixture
async def connection(
    archive: Archive, journals: dict[str, FakeJournal]
) -> AsyncIterator[Connection]:
    with archive.reading() as opened:
        yield opened


async def total(journals: dict[str, FakeJournal], account: str) -> int:
    return sum([(await journal.balances()).get(account, 0) for journal in journals.values()])


def walk(
    connection: Connection, account: str, *, limit: int, period: Period = ALL_TIME
) -> list[AccountLine]:
    """Every line, page by page, as a client would."""
    lines: list[AccountLine] = []
    cursor: Cursor | None = None
    for _ in range(1_000):
        page, cursor = account_lines(connection, account, limit=limit, cursor=cursor, period=period)
        lines += page
        if cursor is None:
            return lines
        cursor = cursor_from(cursor.text())
    raise AssertionError("the walk does not end")


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("day", [0, 5, 12, 21, 29, 100])
async def test_available_pending_and_held_are_the_balance(
    connection: Connection, journals: dict[str, FakeJournal], day: int, blocked: bool
) -> None:
    for account in [*PAYEES, "platform", "contrib:nobody"]:
        balance = balance_of(connection, account, now_ms=NOW_MS + day * DAY_MS, blocked=blocked)
        assert balance.balance_nano == await total(journals, account)
        assert balance.available_nano >= 0
        assert balance.pending_nano >= 0
        held = blocked or balance.balance_nano < 0
        assert (balance.held_nano == 0) or held
        assert not held or balance.available_nano == balance.pending_nano == 0


async def test_what_was_earned_less_what_was_paid_is_the_balance(
    connection: Connection, journals: dict[str, FakeJournal]
) -> None:
    for account in PAYEES:
        found = breakdown_of(connection, account, ALL_TIME)
        for sums in (found.by_day.values(), found.by_adapter.values(), found.by_dataset.values()):
            earned, paid = sum(s.earned_nano for s in sums), sum(s.paid_nano for s in sums)
            assert earned - paid == await total(journals, account)
            assert paid == balance_of(connection, account, now_ms=0, blocked=False).paid_nano


async def test_a_periods_sums_are_those_of_its_lines(connection: Connection) -> None:
    period = Period(DAY + 3, DAY + 9)
    for account in PAYEES:
        lines = walk(connection, account, limit=3, period=period)
        assert all(DAY + 3 <= line.time_ms // DAY_MS <= DAY + 9 for line in lines)
        sums = breakdown_of(connection, account, period).by_day.values()
        assert sum(s.earned_nano - s.paid_nano for s in sums) == sum(line.nano for line in lines)
        assert sum(s.lines for s in sums) == len(lines)


@pytest.mark.parametrize("limit", [1, 2, 7, 1_000])
async def test_a_walk_has_every_line_of_every_ledger_once(
    connection: Connection, journals: dict[str, FakeJournal], limit: int
) -> None:
    for account in [*PAYEES[:4], "app:demo", "platform"]:
        lines = walk(connection, account, limit=limit)
        expected = {
            (name, entry.seq)
            for name, journal in journals.items()
            for entry in map(parse_entry, journal.texts)
            if account in {leg.account for leg in entry.legs}
        }
        assert len(lines) == len(expected)
        assert {(line.ledger, line.seq) for line in lines} == expected
        for name in LEDGERS:
            seqs = [line.seq for line in lines if line.ledger == name]
            assert seqs == sorted(seqs, reverse=True)


async def test_lines_that_come_during_a_walk_do_not_disturb_it(
    archive: Archive, journals: dict[str, FakeJournal]
) -> None:
    with archive.reading() as connection:
        expected = {(line.ledger, line.seq) for line in walk(connection, "platform", limit=1_000)}
    seen: list[tuple[str, int]] = []
    cursor: Cursor | None = None
    for number in range(1_000):
        with archive.reading() as connection:
            page, cursor = account_lines(connection, "platform", limit=3, cursor=cursor)
        seen += [(line.ledger, line.seq) for line in page]
        if cursor is None:
            break
        name = LEDGERS[number % 2]
        an_inference(journals[name], random.Random(number), time_ms=NOW_MS)
        await export({name: journals[name]}, archive)
    assert len(seen) == len(set(seen))
    assert set(seen) == expected


async def test_opening_and_lines_are_closing_on_every_page_of_a_history(
    connection: Connection, journals: dict[str, FakeJournal]
) -> None:
    for account in [*PAYEES[:5], "app:demo", "platform", "funding"]:
        cursor, closing = None, await total(journals, account)
        for _ in range(1_000):
            page = history_of(connection, account, limit=4, cursor=cursor)
            assert page.closing_nano == closing
            for line, balance in page.lines:
                assert balance == closing
                closing -= line.nano
            assert page.opening_nano == closing
            if page.next is None:
                break
            cursor = page.next
        assert closing == 0


async def test_the_account_of_an_inference_has_a_history(
    connection: Connection, journals: dict[str, FakeJournal]
) -> None:
    hold = next(
        leg.account
        for leg in parse_entry(journals["usd"].texts[1]).legs
        if leg.account.startswith("hold:")
    )
    page = history_of(connection, hold, limit=9)
    assert [line.kind for line, _ in page.lines] == ["capture", "hold"]
    assert (page.opening_nano, page.closing_nano) == (0, 0)


async def test_usage_is_the_sum_of_its_inferences(connection: Connection) -> None:
    for application in ("demo", "shop", "nobody"):
        usage = usage_of(connection, application, ALL_TIME)
        rows = connection.execute(
            select(inferences).where(inferences.c.application == application)
        ).all()
        assert usage.total == Used(
            len(rows), sum(row.partial for row in rows), sum(row.prompt_tokens for row in rows),
            sum(row.completion_tokens for row in rows), sum(row.charge for row in rows),
        )  # fmt: skip
        assert sum(usage.by_day.values(), Used()) == usage.total
        assert sum(usage.by_model.values(), Used()) == usage.total
        lines, following = usage_lines(connection, application, limit=1_000)
        assert following is None
        assert sum(line.charge_nano for line in lines) == usage.total.charge_nano
        assert application != "demo" or sum(line.refunded_nano for line in lines) > 0


async def test_deposits_less_charges_and_holds_are_an_applications_balance(
    archive: Archive,
) -> None:
    journal, rng = FakeJournal(), random.Random(1)
    an_operation(journal, rng, "deposit", {"funding": -10_000, "app:demo": 10_000})
    an_inference(journal, rng, settled=False)
    hold = {"app:demo": -300, "hold:x": 300}
    journal.append("x/hold/0", "hold", hold)
    journal.append("y/hold/0", "hold", {"app:other": -9, "hold:y": 9})
    await export({"usd": journal}, archive)
    with archive.reading() as connection:
        funds = funds_of(connection, "demo")
        charged = usage_of(connection, "demo", ALL_TIME).total.charge_nano
    assert (funds.held_nano, funds.holds) == (300, 1)
    assert funds.balance_nano == 10_000 - charged - 300


async def test_an_earning_is_pending_for_whole_days_after_its_own(archive: Archive) -> None:
    journal, rng = FakeJournal(), random.Random(1)
    an_operation(
        journal, rng, "settle", {"open:x": -50, "contrib:ann": 50}, time_ms=NOW_MS, version=ADAPTER
    )
    an_operation(journal, rng, "release", {"unattributed:a": -5, "contrib:ann": 5}, time_ms=NOW_MS)
    await export({"usd": journal}, archive)
    end_ms = (DAY + 1 + CLEARING_DAYS) * DAY_MS
    with archive.reading() as connection:
        for now_ms, pending in ((NOW_MS, 50), (end_ms - 1, 50), (end_ms, 0)):
            balance = balance_of(connection, "contrib:ann", now_ms=now_ms, blocked=False)
            assert (balance.pending_nano, balance.available_nano) == (pending, 55 - pending)


async def test_an_empty_archive_answers_zeros(archive: Archive) -> None:
    with archive.reading() as connection:
        assert exported(connection) == {}
        assert balance_of(connection, "contrib:ann", now_ms=0, blocked=False).balance_nano == 0
        assert walk(connection, "contrib:ann", limit=5) == []
        assert history_of(connection, "contrib:ann", limit=5).closing_nano == 0
        assert funds_of(connection, "demo").holds == 0
        assert usage_of(connection, "demo", ALL_TIME).total == Used()
        mine = account_days.c.account == "contrib:ann"
        assert first_seqs(connection, account_days, mine, Period(1, 2)) == {}


@given(st.dictionaries(st.text(max_size=64), st.integers(1, 2**63 - 1), max_size=20))
def test_a_cursor_comes_back_as_it_went(before: dict[str, int]) -> None:
    cursor = Cursor(before)
    if len(cursor.text()) <= 4_096:
        assert cursor_from(cursor.text()) == cursor


@given(st.text(max_size=60))
def test_any_other_text_is_refused_or_a_cursor(text: str) -> None:
    with suppress(InvalidInput):
        assert all(seq > 0 for seq in cursor_from(text).before.values())


class Placed:
    """A line of nothing."""

    def __init__(self, ledger: str, seq: int, time_ms: int) -> None:
        self.ledger, self.seq, self.time_ms = ledger, seq, time_ms


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    times=st.lists(st.lists(st.integers(0, 50), max_size=15), min_size=1, max_size=4),
    limit=st.integers(1, 7),
)
def test_a_walk_over_any_ledgers_has_each_line_once(times: list[list[int]], limit: int) -> None:
    lines = {
        str(ledger): [Placed(str(ledger), seq, time_ms) for seq, time_ms in enumerate(given, 1)]
        for ledger, given in enumerate(times)
    }

    def fetch(ledger: str, before: int, most: int) -> list[Placed]:
        return [line for line in reversed(lines[ledger]) if line.seq < before][:most]

    seen: list[Placed] = []
    cursor: Cursor | None = Cursor({ledger: len(some) + 1 for ledger, some in lines.items()})
    while cursor is not None:
        page, cursor = newest_first(fetch, cursor, limit)
        assert len(page) <= limit
        seen += page
    assert len(seen) == sum(len(some) for some in lines.values())
    assert len({(line.ledger, line.seq) for line in seen}) == len(seen)


@given(st.integers(0, 60_000))
def test_a_day_has_one_number(day: int) -> None:
    assert day_number(iso_day(day)) == day


@pytest.mark.parametrize("text", ["", "2026-1-2", "20260102", "2026-W01-1", "2026-02-30", "x"])
def test_what_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"isoformat|YYYY|day|month"):
        day_number(text)


def test_the_first_pending_day_leaves_whole_days_to_clear() -> None:
    assert first_pending_day(DAY * DAY_MS) == DAY - CLEARING_DAYS
