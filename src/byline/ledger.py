"""The ledger: one Redis script a posting, each at most once, every leg validated before a write.

Knows the operations and the reading of them. What an operation posts is in `postings`, the sending
in `poster`, prices and splits in `money`.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from byline import postings
from byline.errors import LedgerFenced, LedgerFrozen, LedgerMisconfigured, LedgerRefused
from byline.inference_records import earnings_line, entry_numbers, inference_record
from byline.journal import Journal
from byline.limits import LEDGER_TIMEOUT_SECONDS, LINES_PER_CONTRIBUTOR_MAX
from byline.poster import Keys, Observe, Poster, script_text
from byline.postings import parse_entry
from byline.records import (
    Attribution,
    Books,
    Capture,
    EarningsLine,
    InferenceRecord,
    JournalEntry,
    Posted,
)
from byline.redis_client import Client, answering, connect, without_password

CREDIT_LIMIT_NANO_MAX = 10**15  # a million dollars; and far below what a balance can hold
REQUIRED = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What waits to be finished, and whether posting is stopped: the ledger's gauges."""

    holds: int
    pools: int  # choices that are not settled
    oldest_pool_ms: int | None  # when the oldest of them was captured
    journal_entries: int
    frozen: str | None  # why posting is stopped


class Ledger:
    """Posts to one ledger (one Redis hash tag). Never retries by itself.

    Raises LedgerUnavailable when there was no answer (the outcome may be unknown: call again with
    the same arguments), LedgerRefused and its children when nothing was written, InsufficientFunds
    when an account would fall below what it may.
    """

    def __init__(self, redis: Client, keys: Keys, poster: Poster) -> None:
        self._redis = redis
        self._keys = keys
        self._poster = poster
        self._journal = Journal(redis, keys)

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        name: str = "usd",
        observe: Observe | None = None,
        timeout_seconds: float = LEDGER_TIMEOUT_SECONDS,
    ) -> "Ledger":
        """Connect and check the server: AOF `always`, `noeviction`; else LedgerMisconfigured.

        `observe(operation, outcome, seconds)` is told of each post; the outcome is one of posted,
        duplicate, refused, unknown.
        """
        redis = connect(url, timeout_seconds=timeout_seconds)
        keys = Keys(name)
        try:
            with answering(f"open the ledger at {without_password(url)}"):
                await _require_safe(redis)
                epoch = await _epoch(redis, keys)
        except BaseException:
            await redis.aclose()
            raise
        return cls(redis, keys, Poster(redis, keys, epoch, observe))

    async def close(self) -> None:
        """Wait for the posts in flight, then close the connections."""
        await self._poster.drain()
        await self._redis.aclose()

    async def ping(self) -> None:
        """Raise LedgerUnavailable, LedgerFenced or LedgerFrozen unless this writer could post."""
        with answering("ping the ledger"):
            epoch, frozen = await self._redis.hmget(self._keys.meta, "epoch", "frozen")
        if epoch != str(self._poster.epoch):
            raise LedgerFenced(f"the ledger's epoch is {epoch}, this writer has an older one")
        if frozen is not None:
            raise LedgerFrozen(f"posting is frozen: {frozen}")

    async def deposit(self, operation: str, application: str, nano: int, *, time_ms: int) -> Posted:
        """`funding` -> `app:<application>`. `operation` is a UUIDv7."""
        return await self._poster.post(
            postings.deposit(operation, application, nano, time_ms=time_ms)
        )

    async def hold(
        self, inference: str, application: str, nano: int, *, expires_ms: int, time_ms: int
    ) -> Posted:
        """`app:` -> `hold:<inference>`. InsufficientFunds where the limit forbids."""
        return await self._poster.post(
            postings.hold(inference, application, nano, expires_ms=expires_ms, time_ms=time_ms)
        )

    async def capture(self, capture: Capture, *, time_ms: int) -> Posted:
        """Post the charge; open the pools; write the attribution jobs and the inference's record.

        All of it in one script. After the hold has expired the charge is posted all the same, below
        the credit limit if need be, and flagged `late`: the tokens were served.
        """
        return await self._poster.post(postings.capture(capture, time_ms=time_ms))

    async def void(self, inference: str, application: str, *, time_ms: int) -> Posted:
        """Give the whole hold back: nothing was served."""
        return await self._poster.post(postings.void(inference, application, time_ms=time_ms))

    async def expire(self, inference: str, *, time_ms: int) -> Posted | None:
        """Give a hold back whose time is over; None if it is not, or if it is no hold any more."""
        return await self._poster.post_if_due(postings.expire(inference, time_ms=time_ms))

    async def expired_holds(self, *, now_ms: int, limit: int = 100) -> list[str]:
        """Inferences whose holds are past their time, the oldest first."""
        with answering("look for expired holds"):
            expired: list[str] = await self._redis.zrange(
                self._keys.holds, "-inf", str(now_ms), byscore=True, offset=0, num=limit
            )
        return expired

    async def settle(self, attribution: Attribution, *, time_ms: int) -> Posted:
        """Close the choice's open pool to contributors and `unattributed`; keep the attribution."""
        return await self._poster.post(postings.settle(attribution, time_ms=time_ms))

    async def inference(self, inference: str) -> InferenceRecord | None:
        """The record of a captured inference, or None."""
        with answering(f"read inference {inference}"):
            facts = await self._redis.hgetall(self._keys.inference(inference))
        if "capture" not in facts:
            return None
        return inference_record(facts, await self._journal.entries_at(entry_numbers(facts)))

    async def balances(self) -> Mapping[str, int]:
        """Every account that is not zero."""
        with answering("read the balances"):
            stored = await self._redis.hgetall(self._keys.balances)
        return {account: int(nano) for account, nano in stored.items()}

    async def balance(self, account: str) -> int:
        """One account; zero if nothing was ever posted to it."""
        with answering(f"read the balance of {account}"):
            return int(await self._redis.hget(self._keys.balances, account) or 0)

    async def earnings_lines(self, contributor: str, *, limit: int = 50) -> list[EarningsLine]:
        """The newest lines of a contributor, newest first, LINES_PER_CONTRIBUTOR_MAX at most."""
        last = min(limit, LINES_PER_CONTRIBUTOR_MAX) - 1
        with answering(f"read the earnings of {contributor}"):
            seqs: list[str] = await self._redis.lrange(self._keys.lines(contributor), 0, last)
        entries = await self._journal.entries_at([int(seq) for seq in seqs])
        return [earnings_line(entry, f"contrib:{contributor}") for entry in entries]

    async def entries(self, *, after_seq: int = 0) -> AsyncIterator[JournalEntry]:
        """The journal in order."""
        async for _, text in self._journal.texts(after_seq=after_seq):
            yield parse_entry(text)

    async def check(self) -> Books:
        """Fold the whole journal and hold it against the balances, while posting goes on."""
        return await self._journal.check()

    async def rebuild(self) -> Mapping[str, int]:
        """Replace the balances by the folded journal and raise the epoch; answers the new balances.

        Posting is frozen meanwhile, and stays frozen when the journal itself is broken
        (LedgerRefused). Writers that were open before are fenced: they must open again.
        """
        balances, self._poster.epoch = await self._journal.rebuild()
        return balances

    async def set_credit_limit(self, application: str, nano: int) -> None:
        """How far below zero an application may go. Holds already placed are left alone."""
        if not 0 <= nano <= CREDIT_LIMIT_NANO_MAX:
            raise LedgerRefused(f"a credit limit of {nano} nano-USD is out of bounds")
        with answering(f"set the credit limit of {application}"):
            await self._redis.hset(self._keys.limits, application, str(nano))

    async def freeze(self, reason: str) -> None:
        """Stop all posting; reading goes on."""
        with answering("freeze the ledger"):
            await self._redis.hset(self._keys.meta, "frozen", reason)

    async def thaw(self) -> None:
        """Let posting go on."""
        with answering("thaw the ledger"):
            await self._redis.hdel(self._keys.meta, "frozen")

    async def unfinished(self) -> Unfinished:
        """Gauges, in one cheap round trip."""
        keys = self._keys
        with answering("read the ledger's gauges"):
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.zcard(keys.holds).zcard(keys.pools)
                pipe.zrange(keys.pools, 0, 0, withscores=True)
                pipe.hmget(keys.meta, "seq", "frozen")
                holds, pools, oldest, (seq, frozen) = await pipe.execute()
        oldest_ms = int(oldest[0][1]) if oldest else None
        return Unfinished(holds, pools, oldest_ms, int(seq or 0), frozen)


async def _require_safe(redis: Client) -> None:
    """Raise LedgerMisconfigured where the server may lose an answered write or evict a balance."""
    found = await redis.config_get(*REQUIRED)
    wrong = [
        f"{setting} is '{found.get(setting)}', not '{value}'"
        for setting, value in REQUIRED.items()
        if found.get(setting) != value
    ]
    if wrong:
        raise LedgerMisconfigured(f"the server could lose money: {'; '.join(wrong)}")


async def _epoch(redis: Client, keys: Keys) -> int:
    """The ledger's epoch; an empty ledger gets its first."""
    epoch: str | None = await redis.eval(script_text("open"), 2, keys.meta, keys.journal)
    if epoch is None:
        raise LedgerMisconfigured(f"{keys.tag} has a journal but no epoch")
    return int(epoch)
