"""The same six-leg post as PostgreSQL double entry: entry, legs and balances in one transaction."""

import asyncio
from typing import Any

import psycopg

from loadtests.ledger_bench.figures import summary
from loadtests.ledger_bench.operations import CHARGE_NANO, CREDITS, POOL_NANO, events
from loadtests.ledger_bench.posting import timed_round
from tests.byline.postgres import Postgres

CONNECTIONS = 16
ROUNDS = 3
POSTS = 4_000

SCHEMA = """
CREATE TABLE entries (seq bigserial PRIMARY KEY, key text NOT NULL UNIQUE, time timestamptz NOT NULL
  DEFAULT now());
CREATE TABLE legs (seq bigint NOT NULL REFERENCES entries, account text NOT NULL,
  nano bigint NOT NULL, PRIMARY KEY (seq, account));
CREATE TABLE balances (account text PRIMARY KEY, nano bigint NOT NULL);
CREATE FUNCTION post(event text, accounts text[], nanos bigint[]) RETURNS bigint LANGUAGE plpgsql AS
$$
DECLARE number bigint;
BEGIN
  IF (SELECT sum(n) FROM unnest(nanos) n) <> 0 THEN RAISE 'unbalanced'; END IF;
  INSERT INTO entries (key) VALUES (event) ON CONFLICT DO NOTHING RETURNING seq INTO number;
  IF number IS NULL THEN RETURN (SELECT seq FROM entries WHERE key = event); END IF;
  INSERT INTO legs SELECT number, account, nano FROM unnest(accounts, nanos) AS l(account, nano);
  INSERT INTO balances AS b SELECT account, nano FROM unnest(accounts, nanos) AS l(account, nano)
    ORDER BY account ON CONFLICT (account) DO UPDATE SET nano = b.nano + excluded.nano;
  RETURN number;
END $$;
"""


async def double_entry(server: Postgres) -> dict[str, Any]:
    """Posts a second over several connections, each with one transaction under way."""
    address = f"host={server.folder} user=byline dbname=postgres"
    connections = [
        await psycopg.AsyncConnection.connect(address, autocommit=True) for _ in range(CONNECTIONS)
    ]
    found = await connections[0].execute("SHOW synchronous_commit")
    assert await found.fetchone() == ("on",)
    await connections[0].execute(SCHEMA)
    free: asyncio.Queue[psycopg.AsyncConnection[Any]] = asyncio.Queue()
    for connection in connections:
        free.put_nowait(connection)

    async def post(inference: str) -> None:
        connection = await free.get()
        try:
            await connection.execute("SELECT post(%s, %s, %s)", [inference, *_legs(inference)])
        finally:
            free.put_nowait(connection)

    rounds = [await timed_round(events(POSTS), CONNECTIONS, post) for _ in range(ROUNDS)]
    for connection in connections:
        await connection.close()
    return {**summary(rounds), "connections": CONNECTIONS}


def _legs(inference: str) -> tuple[list[str], list[int]]:
    legs = {
        f"hold:{inference}": -CHARGE_NANO,
        **{leg.account: leg.nano for leg in CREDITS},
        f"open:{inference}": POOL_NANO,
    }
    return list(legs), list(legs.values())
