"""Opening an archive: what is ours is taken, everything else is refused with what to do."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, insert, select, update
from sqlalchemy.exc import IntegrityError

from byline.archive.database import Archive
from byline.archive.tables import archive_version, progress, tables
from byline.errors import ArchiveUnavailable
from tests.byline.postgres import Postgres


def names(archive: Archive) -> list[str]:
    with archive.reading() as connection:
        return list(connection.execute(select(progress.c.ledger)).scalars())


def test_an_empty_database_gets_the_tables_and_keeps_what_is_written(archive_url: str) -> None:
    first = Archive.open(archive_url)
    with first.writing() as connection:
        connection.execute(insert(progress).values(ledger="usd", seq=7))
    first.close()
    again = Archive.open(archive_url, create=False)
    assert names(again) == ["usd"]
    again.close()


def test_programs_that_start_at_once_make_one_archive(archive_url: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        opened = list(threads.map(Archive.open, [archive_url] * 8))
    with opened[0].reading() as connection:
        assert list(connection.execute(select(archive_version.c.version)).scalars()) == [1]
    for archive in opened:
        archive.close()


def test_a_reader_never_makes_tables(archive_url: str) -> None:
    with pytest.raises(ArchiveUnavailable, match=r"start `python -m byline\.archive`"):
        Archive.open(archive_url, create=False)


def test_a_reader_sees_one_state_while_something_is_written(archive: Archive) -> None:
    with archive.reading() as reader:
        before = list(reader.execute(select(progress.c.ledger)).scalars())
        with archive.writing() as writer:
            writer.execute(insert(progress).values(ledger="usd", seq=7))
        assert list(reader.execute(select(progress.c.ledger)).scalars()) == before == []
    assert names(archive) == ["usd"]


def test_a_transaction_that_fails_leaves_nothing(archive: Archive) -> None:
    def fail() -> None:
        with archive.writing() as connection:
            connection.execute(insert(progress).values(ledger="usd", seq=7))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(archive) == []


def test_what_contradicts_the_archive_is_no_outage(archive: Archive) -> None:
    def write_twice() -> None:
        with archive.writing() as connection:
            for _ in range(2):
                connection.execute(insert(progress).values(ledger="usd", seq=7))

    with pytest.raises(IntegrityError):
        write_twice()
    assert names(archive) == []


def test_sqlite_is_opened_so_that_a_commit_is_on_disk(tmp_path: Path) -> None:
    archive = Archive.open(f"sqlite:///{tmp_path}/a.sqlite")
    with archive.reading() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    archive.close()
    assert found == {
        "journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000,
    }  # fmt: skip


def test_postgresql_syncs_for_us_where_the_database_would_not(postgres: Postgres) -> None:
    archive = Archive.open(postgres.new_schema(settings="-csynchronous_commit=off"))
    with archive.writing() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
    archive.close()


def test_a_database_of_something_else_is_refused_and_left_alone(archive_url: str) -> None:
    engine = create_engine(archive_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE invoices (id INTEGER)")
    with pytest.raises(ArchiveUnavailable, match=r"something else \(invoices\)"):
        Archive.open(archive_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE invoices")
    engine.dispose()
    Archive.open(archive_url).close()


def test_another_schema_version_is_refused(archive_url: str) -> None:
    archive = Archive.open(archive_url)
    with archive.writing() as connection:
        connection.execute(update(archive_version).values(version=99))
    archive.close()
    with pytest.raises(ArchiveUnavailable, match="schema version 99"):
        Archive.open(archive_url)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(ArchiveUnavailable, match="not a database"):
        Archive.open(f"sqlite:///{tmp_path}/a.sqlite")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense", "can't be read"),
        ("mysql://u:hunter2@h/d", "no archive in 'mysql'"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:////nowhere/at/all/a.sqlite", "unable to open"),
        ("postgresql+nothing://u:hunter2@127.0.0.1/d", "nothing: sqlite:"),
        ("postgresql+psycopg://u:hunter2@127.0.0.1:9/d", "(?i)refused"),
        ("postgresql+psycopg://u:hunter2@127.0.0.1:x/d", "can't be read"),
        ("postgresql+psycopg://u:hunter2@127.0.0.1:9/d?sslmode=what", "sslmode"),
    ],
)
def test_a_wrong_address_says_what_is_wanted_and_never_the_password(url: str, says: str) -> None:
    with pytest.raises(ArchiveUnavailable, match=says) as raised:
        Archive.open(url)
    assert "hunter2" not in str(raised.value)


def test_every_amount_and_number_of_the_journal_has_64_bits() -> None:
    narrow = {"position", "version", "day"}
    columns = [column for table in tables.tables.values() for column in table.columns]
    assert not [c for c in columns if str(c.type) == "INTEGER" and c.name not in narrow]
