"""The archive's database: SQLite or PostgreSQL, by its URL.

Knows how to open one, that it is ours, and how a transaction begins. What is in it is `tables`.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from byline.archive.tables import SCHEMA_VERSION, archive_version, tables
from byline.errors import ArchiveUnavailable
from byline.limits import ARCHIVE_CONNECT_SECONDS, ARCHIVE_WAIT_SECONDS

URL_FORMS = "sqlite:////absolute/path or postgresql+psycopg://USER@HOST/DATABASE"
HOW_TO_MAKE = "start `python -m byline.archive`, which makes its tables and fills them"
OPENING = 0x62796C696E65  # the advisory lock under which PostgreSQL's tables are made
REASON_CHARACTERS_MAX = 300


class Archive:
    """An open archive. Raises ArchiveUnavailable where the database is away or not ours."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self._name = name
        self._writer = engine.execution_options(begin="BEGIN IMMEDIATE")
        self._reader = engine
        if engine.dialect.name == "postgresql":
            self._reader = engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> "Archive":
        """Connect, and make the tables of an empty database unless `create` is False."""
        parsed = _parsed(url)
        name = parsed.render_as_string(hide_password=True)
        try:
            engine = _engine(parsed)
        except (SQLAlchemyError, ImportError) as problem:  # no such driver
            raise ArchiveUnavailable(f"the archive {name}: {problem}: {URL_FORMS}") from problem
        archive = cls(engine, name)
        try:
            if not create:
                _require_file(parsed, name)
            archive._adopt(create=create)
        except BaseException:
            engine.dispose()
            raise
        return archive

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the archive, whatever is written meanwhile."""
        with self._answering(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that may write. SQLite lets one in at a time, from its beginning on."""
        with self._answering(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:  # it was reached, and what was written is wrong
            raise
        except SQLAlchemyError as problem:
            raise ArchiveUnavailable(f"the archive {self._name}: {_reason(problem)}") from problem

    def _adopt(self, *, create: bool) -> None:
        """Raise ArchiveUnavailable unless the tables are ours, or can be made."""
        if not create:
            with self.reading() as connection:
                if not self._is_ours(connection):
                    raise ArchiveUnavailable(f"the archive {self._name} is empty: {HOW_TO_MAKE}")
            return
        with self.writing() as connection:
            if connection.dialect.name == "postgresql":  # two programs may start at once
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({OPENING})")
            if not self._is_ours(connection):
                tables.create_all(connection)
                connection.execute(insert(archive_version).values(version=SCHEMA_VERSION))

    def _is_ours(self, connection: Connection) -> bool:
        """True for an archive of this version, False for an empty database; else raises."""
        found = set(inspect(connection).get_table_names())
        if not found:
            return False
        if archive_version.name not in found:
            raise ArchiveUnavailable(
                f"the database {self._name} has tables of something else "
                f"({', '.join(sorted(found)[:3])}): give the archive a database of its own"
            )
        version = connection.execute(select(archive_version.c.version)).scalar()
        if version != SCHEMA_VERSION:
            raise ArchiveUnavailable(
                f"the archive {self._name} has schema version {version}, this program knows "
                f"{SCHEMA_VERSION}: run the release that wrote it, or export into a new database"
            )
        return True


def _parsed(url: str) -> URL:
    """The URL's parts. Its text may hold a password: no error quotes it."""
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError):
        raise ArchiveUnavailable(f"the archive's URL can't be read: {URL_FORMS}") from None
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise ArchiveUnavailable(f"no archive in '{backend}': {URL_FORMS}")
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ArchiveUnavailable(f"the archive's URL names no file: {URL_FORMS}")
    return parsed


def _require_file(url: URL, name: str) -> None:
    """SQLite would make an empty file where a reader finds none."""
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        raise ArchiveUnavailable(f"there is no archive {name}: {HOW_TO_MAKE}")


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": ARCHIVE_WAIT_SECONDS})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    engine = create_engine(
        url,
        pool_pre_ping=True,  # a connection that a restarted server has dropped is replaced
        connect_args={"connect_timeout": ARCHIVE_CONNECT_SECONDS, "application_name": "byline"},
    )
    event.listen(engine, "connect", _prepare_postgresql)
    return engine


def _prepare_sqlite(connection: DBAPIConnection, _record: object) -> None:
    """Money is synced at each commit; readers never wait for the writer."""
    assert isinstance(connection, sqlite3.Connection)
    connection.isolation_level = None  # transactions begin where we say so
    _use_wal(connection)
    for pragma in ("synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _use_wal(connection: sqlite3.Connection) -> None:
    """SQLite does not wait by itself for a lock on the journal mode, as it does for all others."""
    deadline = time.monotonic() + ARCHIVE_WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as problem:
            if "locked" not in str(problem) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _prepare_postgresql(connection: DBAPIConnection, _record: object) -> None:
    """A server that answers before a commit is on disk is told to sync for us all the same."""
    cursor = connection.cursor()
    cursor.execute(
        "SELECT set_config('synchronous_commit', 'on', false) "
        "WHERE current_setting('synchronous_commit') IN ('off', 'local')"
    )
    cursor.close()
    connection.commit()


def _reason(problem: SQLAlchemyError) -> str:
    """What the database said, without our statement and its values."""
    said = problem.orig if isinstance(problem, DBAPIError) else problem
    return " ".join(str(said).split())[:REASON_CHARACTERS_MAX]
