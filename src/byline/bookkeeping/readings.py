"""What the bookkeeper reads, and the one thing it writes: a freeze. Knows the keys, judges nothing.

A `Look` is everything of one instant, read in one transaction: a fold that is taken to the end that
the journal had at that instant can be held against it, whatever is posted meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from byline.errors import LedgerUnavailable
from byline.ledger.journal import seq_of
from byline.posting.keys import Keys
from byline.posting.redis_client import Client, answering
from byline.posting.server_state import ServerState, questions, state_from

NAMES_A_LOOK = 500  # so that no look holds the server up for more than a millisecond
META = ("seq", "epoch", "frozen", "exported", "snapshot", "trimmed")


@dataclass(frozen=True, slots=True)
class Meta:
    """What the ledger says of itself."""

    seq: int
    epoch: int
    frozen: str | None
    exported: int
    snapshot: int
    trimmed: int


@dataclass(frozen=True, slots=True)
class Look:
    """One instant of the ledger."""

    meta: Meta
    newest_seq: int  # of the journal itself
    entries: int  # in the stream
    accounts: int
    holds: int
    pools: int
    oldest_hold: str | None  # the inference whose hold expires first
    oldest_pool_ms: int | None
    stored: Mapping[str, str | None]  # account -> balance, of the names asked for
    listed: Mapping[str, bool]  # is the hold or pool in its list? of the names asked for


class Readings:
    """Reads one ledger."""

    def __init__(self, redis: Client, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def meta(self) -> Meta:
        """What the ledger says of itself."""
        with answering("read what the ledger says of itself"):
            return _meta(await self._redis.hmget(self._keys.meta, *META))

    async def look(self, names: Sequence[str]) -> Look:
        """One instant: the journal's end, the counts, these accounts, the lists."""
        keys = self._keys
        holds = [name for name in names if name.startswith("hold:")]
        pools = [name for name in names if name.startswith("open:")]
        with answering("look at the ledger"):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hmget(keys.meta, *META)
                pipe.xrevrange(keys.journal, count=1).xlen(keys.journal).hlen(keys.balances)
                pipe.zcard(keys.holds).zcard(keys.pools)
                pipe.zrange(keys.holds, 0, 0).zrange(keys.pools, 0, 0, withscores=True)
                pipe.hmget(keys.balances, *(names or [""]))
                pipe.zmscore(keys.holds, [name[5:] for name in holds] or [""])
                pipe.zmscore(keys.pools, pools or [""])
                answers = await pipe.execute()
        meta, newest, entries, accounts, hold_count, pool_count, hold, pool = answers[:8]
        balances, hold_scores, pool_scores = answers[8:]
        scores = [*zip(holds, hold_scores, strict=False), *zip(pools, pool_scores, strict=False)]
        return Look(
            meta=_meta(meta),
            newest_seq=seq_of(newest[0][0].encode()) if newest else 0,
            entries=entries,
            accounts=accounts,
            holds=hold_count,
            pools=pool_count,
            oldest_hold=hold[0] if hold else None,
            oldest_pool_ms=int(pool[0][1]) if pool else None,
            stored=dict(zip(names, balances, strict=False)),
            listed={name: score is not None for name, score in scores},
        )

    async def names(self, cursors: tuple[int, int, int]) -> tuple[tuple[int, int, int], set[str]]:
        """A page of the names of balances, holds and pools, and where the next page begins."""
        keys = self._keys
        with answering("read names of accounts"):
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hscan(keys.balances, cursors[0], count=NAMES_A_LOOK)
                pipe.zscan(keys.holds, cursors[1], count=NAMES_A_LOOK)
                pipe.zscan(keys.pools, cursors[2], count=NAMES_A_LOOK)
                (at, balances), (at_hold, holds), (at_pool, pools) = await pipe.execute()
        found = {*balances, *(f"hold:{name}" for name, _ in holds), *(name for name, _ in pools)}
        return (at, at_hold, at_pool), found

    async def marks(self, events: Mapping[str, str]) -> dict[str, str | None]:
        """What is marked under each event key; `events` says in which bucket it must be."""
        buckets: dict[str, list[str]] = {}
        for key, bucket in events.items():
            buckets.setdefault(bucket, []).append(key)
        with answering("read marks"):
            async with self._redis.pipeline(transaction=False) as pipe:
                for bucket, event_keys in buckets.items():
                    pipe.hmget(self._keys.marks(bucket), *event_keys)
                answers: list[list[str | None]] = await pipe.execute()
        found: dict[str, str | None] = {}
        for event_keys, marks in zip(buckets.values(), answers, strict=True):
            found.update(zip(event_keys, marks, strict=True))
        return found

    async def server(self) -> ServerState:
        """What a poster asks the server when it connects, asked again."""
        plain: Client = Redis(connection_pool=self._redis.connection_pool)
        plain.response_callbacks.clear()  # the answers as a poster reads them
        with answering("look at the ledger's server"):
            async with plain.pipeline(transaction=False) as pipe:
                for question in questions(self._keys):
                    pipe.execute_command(*question)
                return state_from(await pipe.execute())

    async def memory_used_ratio(self) -> float:
        """How much of `maxmemory` is used; of the machine's memory where there is no such bound."""
        with answering("ask for the server's memory"):
            memory: dict[str, Any] = await self._redis.info("memory")
        # As where a hold is refused: without a bound of its own it may use what the machine has.
        bound = int(memory["maxmemory"]) or int(memory["total_system_memory"])
        return int(memory["used_memory"]) / bound

    async def freeze(self, reason: str) -> bool:
        """Stop all posting, unless it is stopped already: the first reason stays."""
        with answering("freeze the ledger"):
            return bool(await self._redis.hsetnx(self._keys.meta, "frozen", reason))


def _meta(found: Sequence[str | None]) -> Meta:
    seq, epoch, frozen, exported, snapshot, trimmed = found
    if epoch is None:
        raise LedgerUnavailable("the ledger has no epoch: is it being loaded, or made anew?")
    return Meta(
        int(seq or 0), int(epoch), frozen, int(exported or 0), int(snapshot or 0), int(trimmed or 0)
    )
