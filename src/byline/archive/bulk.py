"""Inserts many rows at once, in the way that is fast for each database."""

from collections.abc import Mapping, Sequence

import orjson
from sqlalchemy import Connection, String, Table

from byline.archive.rows import Row


def insert_rows(
    connection: Connection,
    table: Table,
    rows: Sequence[Row],
    *,
    known: Mapping[str, str] | None = None,
) -> None:
    """Insert rows that all have the same columns in the same order.

    `known` says what becomes of a row whose primary key is there: column -> SQL, in which
    `excluded` is the row that was to be inserted.
    """
    if not rows:
        return
    columns = ", ".join(rows[0])
    into = f"INSERT INTO {table.name} ({columns})"
    then = _on_conflict(table, known) if known else ""
    if connection.dialect.name == "postgresql":
        # TEXT, because a cast to VARCHAR(n) would cut what is too long instead of refusing it.
        kinds = {name: table.c[name].type for name in rows[0]}
        typed = ", ".join(
            f"{name} {'TEXT' if isinstance(kind, String) else kind}" for name, kind in kinds.items()
        )
        given = f"json_to_recordset(%s::json) AS given ({typed})"
        insert = f"{into} SELECT {columns} FROM {given}{then}"  # noqa: S608 - no value is in it
        connection.exec_driver_sql(insert, (orjson.dumps(rows).decode(),))
    else:
        places = ", ".join("?" for _ in rows[0])
        values = [tuple(row.values()) for row in rows]
        connection.exec_driver_sql(f"{into} VALUES ({places}){then}", values)


def _on_conflict(table: Table, known: Mapping[str, str]) -> str:
    key = ", ".join(column.name for column in table.primary_key)
    changes = ", ".join(f"{column} = {sql}" for column, sql in known.items())
    return f" ON CONFLICT ({key}) DO UPDATE SET {changes}"
