"""A real PostgreSQL for the tests: started in a folder of its own, over a socket, and ended."""

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import create_engine

WHAT_TO_INSTALL = "PostgreSQL is not installed: apt-get install postgresql"
SERVER_USER = "postgres"  # the server refuses to be started by root


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server, on a socket in `folder`."""

    folder: Path

    def url(self, database: str, *, settings: str = "") -> str:
        """The address of one of its databases, with settings of the session (`-cname=value`)."""
        options = f"&options={quote(settings)}" if settings else ""
        return f"postgresql+psycopg://byline@/{database}?host={self.folder}{options}"

    def new_database(self) -> str:
        """The address of an empty database."""
        name = f"archive_{uuid.uuid4().hex}"
        self._run(f"CREATE DATABASE {name}")
        return self.url(name)

    def new_schema(self, *, settings: str = "") -> str:
        """The address of an empty schema: as good as a database, and made in no time."""
        name = f"archive_{uuid.uuid4().hex}"
        self._run(f"CREATE SCHEMA {name}")
        return self.url("postgres", settings=f"-csearch_path={name} {settings}".strip())

    def _run(self, statement: str) -> None:
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()


def postgres_programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`, the newest version; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=_version)
    on_path = shutil.which("pg_ctl")
    if found:
        return found[-1].parent
    return Path(on_path).parent if on_path else None


def _version(program: Path) -> int:
    name = program.parent.parent.name
    return int(name) if name.isdigit() else 0


@contextmanager
def running_postgres(programs: Path) -> Iterator[Postgres]:
    """A server that runs as long as the block."""
    is_root = os.geteuid() == 0
    user = SERVER_USER if is_root else pwd.getpwuid(os.geteuid()).pw_name
    with tempfile.TemporaryDirectory(prefix="byline-postgres-") as name:
        folder = Path(name)
        if is_root:
            shutil.chown(folder, user)

        def run(program: str, *arguments: str) -> None:
            subprocess.run(
                [str(programs / program), "-D", str(folder / "data"), *arguments],
                check=True, timeout=60, cwd=folder, user=user if is_root else None,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip

        run("initdb", "--username", "byline", "--auth", "trust", "--encoding", "UTF8", "--no-sync")
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c shared_buffers=32MB"
        run("pg_ctl", "start", "-w", "-l", str(folder / "server.log"), "-o", options)
        try:
            yield Postgres(folder)
        finally:
            run("pg_ctl", "stop", "-w", "-m", "immediate")
