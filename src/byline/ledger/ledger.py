"""The ledger: one Redis script a posting, each at most once, every leg validated before a write.

Knows the operations and the reading of them. What an operation posts is in `postings`, the sending
in `poster`, prices and splits in `money`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from byline.errors import InvalidInput, LedgerFenced, LedgerFrozen, LedgerRefused
from byline.inference_records import inference_record, manifest_hashes, refundable
from byline.ledger.books import Snapshot, nano_stored
from byline.ledger.existing import require_existing
from byline.ledger.journal import Journal
from byline.limits import LEDGER_TIMEOUT_SECONDS
from byline.posting import operator_postings, postings
from byline.posting.address import Address
from byline.posting.cluster import located
from byline.posting.headroom import Headroom
from byline.posting.keys import Keys
from byline.posting.membership import Membership
from byline.posting.poster import Observe, Poster
from byline.posting.postings import Posting, parse_entry
from byline.posting.redis_client import Client, answering, connect
from byline.records import (
    Adjustment,
    Attribution,
    Books,
    Capture,
    InferenceRecord,
    JournalEntry,
    Payout,
    Posted,
    Refund,
    UnattributedRelease,
)

CREDIT_LIMIT_NANO_MAX = 10**15  # a million dollars; and far below what a balance can hold


@dataclass(frozen=True, slots=True)
class Standing:
    """An inference's hold, and what became of it."""

    state: str  # held, captured, voided, expired
    application: str
    held_nano: int

    @property
    def is_open(self) -> bool:
        """True while its charge is still to come."""
        return self.state == "held"


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

    def __init__(self, redis: Client, keys: Keys, poster: Poster, membership: Membership) -> None:
        self._redis = redis
        self._keys = keys
        self._poster = poster
        self._membership = membership
        self._headroom = Headroom(redis)
        self._journal = Journal(redis, keys)

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        name: str = "usd",
        observe: Observe | None = None,
        timeout_seconds: float = LEDGER_TIMEOUT_SECONDS,
        replicas: int = 0,
        create: bool = True,
    ) -> "Ledger":
        """Connect and check the server: AOF `always`, `noeviction`; else LedgerMisconfigured.

        Without `create`, NotFound where the server has no ledger of this name: nothing is written.

        `observe(operation, outcome, seconds)` is told of each post; the outcome is one of posted,
        duplicate, refused, unconfirmed, unknown. With `replicas`, a post is answered when so many
        have it, and raises LedgerUnconfirmed when they don't in time: sent again, it is confirmed.
        """
        keys = Keys(name)
        found = await located(url, keys.tag)
        redis = connect(found, timeout_seconds=timeout_seconds)
        poster = Poster(
            Address.parse(found), keys, observe, timeout_seconds=timeout_seconds, replicas=replicas
        )
        membership = Membership(url, keys, redis, poster, timeout_seconds=timeout_seconds)
        ledger = cls(redis, keys, poster, membership)
        try:
            if not create:
                await require_existing(redis, keys, name)
            await membership.join()
        except BaseException:
            await ledger.close()
            raise
        return ledger

    async def close(self) -> None:
        """Wait for the posts in flight, then close the connections."""
        await self._membership.close()
        await self._poster.close()
        await self._redis.aclose()

    @property
    def inside(self) -> tuple[Client, Keys]:
        """The client and the keys, for the bookkeeper: it reads what no operation shows."""
        return self._redis, self._keys

    @property
    def epoch(self) -> int:
        """The epoch that this writer has."""
        return self._poster.epoch

    async def ping(self) -> None:
        """Raise LedgerUnavailable, LedgerFenced or LedgerFrozen unless this writer could post."""
        with answering("ping the ledger"):
            epoch, frozen = await self._redis.hmget(self._keys.meta, "epoch", "frozen")
        if epoch != str(self._poster.epoch):
            raise LedgerFenced(f"the ledger's epoch is {epoch}, this writer has an older one")
        if frozen is not None:
            raise LedgerFrozen(f"posting is frozen: {frozen}")

    async def post(self, posting: Posting) -> Posted | None:
        """Post what was drawn up before, byte for byte; None where there was nothing to post."""
        return await self._poster.post_if_due(posting)

    async def deposit(self, operation: str, application: str, nano: int, *, time_ms: int) -> Posted:
        """`funding` -> `app:<application>`. `operation` is a UUIDv7."""
        return await self._poster.post(
            postings.deposit(operation, application, nano, time_ms=time_ms)
        )

    async def hold(
        self, inference: str, application: str, nano: int, *, expires_ms: int, time_ms: int
    ) -> Posted:
        """`app:` -> `hold:<inference>`. InsufficientFunds where the limit forbids.

        LedgerFull where too much of the server's memory is used.
        """
        await self._headroom.require()
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

    async def adjust(self, adjustment: Adjustment, *, time_ms: int) -> Posted:
        """Correct accounts by legs that sum to zero; holds and open pools can't be touched."""
        return await self._poster.post(operator_postings.adjust(adjustment, time_ms=time_ms))

    async def release(self, release: UnattributedRelease, *, time_ms: int) -> Posted:
        """`unattributed:<adapter version>` -> whom the published decision names."""
        return await self._poster.post(operator_postings.release(release, time_ms=time_ms))

    async def refund(self, refund: Refund, *, time_ms: int) -> Posted:
        """Give back part or all of a charge; every credit of it is mirrored in proportion.

        What a payee has been paid out already is taken from `refund` clearing instead. Refused
        while a pool of the inference is open, and beyond its charge.
        """
        facts = await self._facts(refund.inference)
        return await self._poster.post(
            operator_postings.refund(refund, refundable(facts), time_ms=time_ms)
        )

    async def payout(self, payout: Payout, *, time_ms: int) -> Posted:
        """`payout.account` -> `payout`, whole cents, never below zero, never when blocked."""
        return await self._poster.post(operator_postings.payout(payout, time_ms=time_ms))

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
        facts = await self._facts(inference)
        return inference_record(facts) if "capture" in facts else None

    async def manifest_hashes(self, inference: str) -> Mapping[str, str]:
        """What hashes the inference's entries name: `capture/0` and each `settle/<ordinal>`."""
        return manifest_hashes(await self._facts(inference))

    async def standing(self, inference: str) -> Standing | None:
        """What is known of an inference that was held, whatever became of it; None: unknown."""
        facts = await self._facts(inference)
        if "state" not in facts:
            return None
        return Standing(facts["state"], facts["application"], int(facts["held"]))

    async def balances(self) -> Mapping[str, int]:
        """Every account that is not zero."""
        with answering("read the balances"):
            stored = await self._redis.hgetall(self._keys.balances)
        return {account: _balance(account, nano) for account, nano in stored.items()}

    async def balance(self, account: str) -> int:
        """One account; zero if nothing was ever posted to it."""
        with answering(f"read the balance of {account}"):
            stored = await self._redis.hget(self._keys.balances, account)
        return _balance(account, "0" if stored is None else stored)

    async def entries(self, *, after_seq: int = 0) -> AsyncIterator[JournalEntry]:
        """The journal in order."""
        async for _, text in self._journal.texts(after_seq=after_seq):
            yield parse_entry(text)

    async def page(self, *, after_seq: int, limit: int) -> list[tuple[int, str]]:
        """Up to `limit` entries after `after_seq`, in order: sequence number and exact text."""
        return await self._journal.page(after_seq=after_seq, limit=limit)

    async def manifests(self, entries: Sequence[JournalEntry]) -> list[str | None]:
        """The text behind each entry's `manifest_sha256`: the capture's record, the attribution,
        the decision. None where an entry has none, or where it has been trimmed."""
        return await self._journal.manifests(entries)

    async def confirm(self) -> None:
        """Raise LedgerUnconfirmed unless all that was posted until now is on the replicas.

        Without replicas there is nothing to wait for.
        """
        await self._poster.confirm()

    async def note_exported(self, seq: int) -> None:
        """Remember that the archive has everything up to `seq`: trimming may go so far."""
        with answering("note what is exported"):
            await self._redis.hset(self._keys.meta, "exported", str(seq))

    async def note_notarised(self, seq: int | None) -> None:
        """Remember that the log has everything up to `seq`: trimming goes no further.

        None: the ledger has no notary any more, and trimming waits for none.
        """
        with answering("note what is in the log"):
            if seq is None:
                await self._redis.hdel(self._keys.meta, "notarised")
            else:
                await self._redis.hset(self._keys.meta, "notarised", str(seq))

    async def block_payouts(self, account: str, reason: str) -> None:
        """Hold an account's payouts back until `allow_payouts`; its earnings go on."""
        _require_reason("block payouts", reason)
        with answering(f"block payouts of {account}"):
            await self._redis.hset(self._keys.blocked, account, reason)

    async def allow_payouts(self, account: str) -> None:
        """Let the account be paid again."""
        with answering(f"allow payouts of {account}"):
            await self._redis.hdel(self._keys.blocked, account)

    async def payout_blocks(self) -> Mapping[str, str]:
        """Every account whose payouts are held back, and why."""
        with answering("read the payout blocks"):
            blocks: dict[str, str] = await self._redis.hgetall(self._keys.blocked)
        return blocks

    async def check(self) -> Books:
        """Fold the whole journal and hold it against the balances, while posting goes on."""
        return await self._journal.check()

    async def rebuild(
        self, *, full: bool = False, base: Snapshot | None = None
    ) -> Mapping[str, int]:
        """Replace the balances by the folded journal and raise the epoch; answers the new balances.

        Begins at the newest snapshot, with `full` at the first entry, or at `base`. Posting is
        frozen meanwhile, and stays frozen when the journal itself is broken (LedgerRefused).
        Writers that were open before are fenced: they must rejoin.
        """
        balances, self._poster.epoch = await self._journal.rebuild(full=full, base=base)
        return balances

    async def promote(self) -> int:
        """Raise the epoch after a replica took over; answers it. Older writers are fenced.

        With `replicas`, LedgerUnconfirmed says that the new epoch is not on them yet.
        """
        epoch = await self._membership.promote()
        await self._poster.confirm()
        return epoch

    async def rejoin(self) -> None:
        """Take the ledger's epoch again after a LedgerFenced, a failover or a rebuild.

        Safe because every post has its key: what is unknown is sent again and posts at most once.
        Raises LedgerFenced where the server's epoch is *lower*: that is an old primary. In a
        cluster the first writer to find a new primary raises the epoch.
        """
        await self._membership.join()

    async def credit_limits(self) -> Mapping[str, int]:
        """The credit limit of every application that ever had money or credit."""
        with answering("read the credit limits"):
            limits = await self._redis.hgetall(self._keys.limits)
        return {application: int(nano) for application, nano in limits.items()}

    async def set_credit_limit(self, application: str, nano: int) -> None:
        """How far below zero an application may go. Holds already placed are left alone."""
        if not 0 <= nano <= CREDIT_LIMIT_NANO_MAX:
            raise LedgerRefused(f"a credit limit of {nano} nano-USD is out of bounds")
        with answering(f"set the credit limit of {application}"):
            await self._redis.hset(self._keys.limits, application, str(nano))

    async def freeze(self, reason: str) -> None:
        """Stop all posting, and keep why; reading goes on."""
        _require_reason("freeze", reason)
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

    async def _facts(self, inference: str) -> Mapping[str, str]:
        """What is known of one inference: its state, what was held, its record and attributions."""
        with answering(f"read inference {inference}"):
            facts: dict[str, str] = await self._redis.hgetall(self._keys.inference(inference))
        return facts


def _balance(account: str, stored: str) -> int:
    nano = nano_stored(stored)
    if nano is None:
        raise LedgerRefused(
            f"the stored balance of {account} is '{stored}', which is no amount: "
            "run `byline ledger check`"
        )
    return nano


def _require_reason(attempt: str, reason: str) -> None:
    if not reason.strip():
        raise InvalidInput(f"{attempt}: say why, it is kept with the ledger", param="reason")
