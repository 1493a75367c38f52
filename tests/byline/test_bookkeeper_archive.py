"""SQL and the ledger are held against each other, a page of accounts a round."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, insert, update

from byline.archive.database import Archive
from byline.archive.tables import accounts, progress
from byline.bookkeeping import archive_books
from byline.bookkeeping.bookkeeper import Bookkeeper
from byline.bookkeeping.findings import Findings, Kind
from byline.errors import ArchiveUnavailable
from byline.ledger.ledger import Ledger
from tests.byline.cases import NOW_MS, an_attribution, captured, held
from tests.byline.exporting import export

pytestmark = pytest.mark.anyio


async def rounds(bookkeeper: Bookkeeper, count: int = 3) -> Findings:
    for _ in range(count):
        findings = await bookkeeper.once(NOW_MS)
    return findings


async def test_an_archive_that_lags_agrees_with_the_journal_since(
    ledger: Ledger, ledger_name: str, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_books, "NAMES_A_ROUND", 2)
    bookkeeper = Bookkeeper(ledger, archive, name=ledger_name)
    inference = await captured(ledger)
    assert (await rounds(bookkeeper)).balanced  # nothing is exported yet
    await export(ledger, archive, ledger_name)
    await ledger.settle(an_attribution(inference), time_ms=NOW_MS)
    await held(ledger)
    findings = await rounds(bookkeeper, 5)
    assert findings.balanced, findings.found
    assert findings.figures.exported_seq == 3


def change(connection: Connection, name: str) -> None:
    where = (accounts.c.ledger == name) & (accounts.c.account == "platform")
    connection.execute(update(accounts).where(where).values(nano=401))


def lose(connection: Connection, name: str) -> None:
    where = (accounts.c.ledger == name) & (accounts.c.account == "app:demo")
    connection.execute(delete(accounts).where(where))


def invent(connection: Connection, name: str) -> None:
    connection.execute(insert(accounts).values(ledger=name, account="contrib:zed", nano=1))


@pytest.mark.parametrize(
    ("corrupt", "account"), [(change, "platform"), (lose, "app:demo"), (invent, "contrib:zed")]
)
async def test_a_changed_row_is_found_and_freezes(
    ledger: Ledger,
    ledger_name: str,
    archive: Archive,
    corrupt: Callable[[Connection, str], None],
    account: str,
) -> None:
    bookkeeper = Bookkeeper(ledger, archive, name=ledger_name)
    await captured(ledger)
    await export(ledger, archive, ledger_name)
    assert (await rounds(bookkeeper)).balanced
    with archive.writing() as connection:
        corrupt(connection, ledger_name)
    findings = await bookkeeper.once(NOW_MS)
    assert [(finding.kind, finding.subject) for finding in findings.found] == [
        (Kind.ARCHIVE, account)
    ]
    frozen = (await ledger.unfinished()).frozen
    assert frozen is not None
    assert account in frozen


@pytest.mark.parametrize(("seq", "says"), [(2, "ends at 2"), (4, "are lost here")])
async def test_an_archive_of_another_length_than_was_said_is_found(
    ledger: Ledger, ledger_name: str, archive: Archive, seq: int, says: str
) -> None:
    await captured(ledger)
    await export(ledger, archive, ledger_name)
    with archive.writing() as connection:
        connection.execute(update(progress).values(seq=seq))
    found = (await Bookkeeper(ledger, archive, name=ledger_name).once(NOW_MS)).found
    assert found[0].kind is Kind.ARCHIVE
    assert says in found[0].says


async def test_an_archive_that_is_far_behind_is_compared_later(
    ledger: Ledger, ledger_name: str, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_books, "LAG_MAX", 1)
    await captured(ledger)
    await export(ledger, archive, ledger_name)
    with archive.writing() as connection:
        change(connection, ledger_name)
    await captured(ledger)
    bookkeeper = Bookkeeper(ledger, archive, name=ledger_name)
    assert (await bookkeeper.once(NOW_MS)).balanced
    await export(ledger, archive, ledger_name)
    assert not (await rounds(bookkeeper)).balanced


async def test_an_archive_that_is_away_is_not_a_finding(
    ledger: Ledger, ledger_name: str, tmp_path: Path
) -> None:
    await captured(ledger)
    archive = Archive.open(f"sqlite:///{tmp_path}/archive.sqlite")
    archive.close()
    for path in tmp_path.glob("archive.sqlite*"):
        path.unlink()
    bookkeeper = Bookkeeper(ledger, archive, name=ledger_name)
    with pytest.raises(ArchiveUnavailable):
        await bookkeeper.once(NOW_MS)
    archive.close()
    assert (await ledger.unfinished()).frozen is None
