"""Several ledgers of one currency, so that postings spread over the primaries of a cluster.

Each application's money lies in one of them; what belongs to everybody (`platform`, a contributor)
has a part in each, and is summed when it is read. No posting ever spans two ledgers, so each keeps
its own books and they balance one by one.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import lru_cache, partial

from byline.errors import LedgerMisconfigured, LedgerRefused
from byline.ledger.ledger import Ledger
from byline.limits import LEDGER_TIMEOUT_SECONDS
from byline.posting.poster import Observe
from byline.records import Adjustment, Books, InferenceRecord, Leg

APPLICATION = "app:"  # how the account of an application begins
APPLICATIONS_KEPT = 4_096  # whose shard by the rule is remembered


@dataclass(frozen=True, slots=True)
class ShardsBooks:
    """The books of every shard, checked one by one."""

    shards: Mapping[str, Books]

    @property
    def accounts_sum_nano(self) -> int:
        """What all accounts of all shards sum to; zero, or money was made or lost."""
        return sum(books.accounts_sum_nano for books in self.shards.values())

    @property
    def balanced(self) -> bool:
        """True when there is nothing to explain in any of them."""
        return all(books.balanced for books in self.shards.values())


@dataclass(frozen=True, slots=True)
class Misplaced:
    """What an application has in a shard that is not its own."""

    application: str
    shard: str
    nano: int


@dataclass(frozen=True, slots=True)
class Move:
    """An application's money goes to another shard, as one operation with one key in both."""

    operation: str  # UUIDv7
    application: str
    nano: int
    source: str
    target: str
    by: str  # who decided it


def shard_of(application: str, names: Collection[str]) -> str:
    """The shard of an application: the one with the highest hash (rendezvous hashing).

    Everyone who knows the names gets the same answer. A shard that is added takes its part of the
    applications from all others and moves no other one.
    """
    return max(names, key=lambda name: hashlib.sha256(f"{name}/{application}".encode()).hexdigest())


class Shards:
    """The ledgers by name, and which of them an application's postings go to.

    `placed` says where applications are that the rule would put elsewhere. Every program must be
    given the same names and places. Should two disagree for a while, no money is made or lost: the
    application is refused where its money does not lie.
    """

    def __init__(self, ledgers: Mapping[str, Ledger], placed: Mapping[str, str]) -> None:
        unknown = sorted(set(placed.values()) - set(ledgers))
        if not ledgers or unknown:
            raise LedgerMisconfigured(f"applications are placed in no shard of ours: {unknown}")
        self.ledgers = ledgers
        self._placed = placed
        self._by_rule = lru_cache(APPLICATIONS_KEPT)(partial(shard_of, names=tuple(ledgers)))

    @classmethod
    async def open(
        cls,
        url: str,
        names: Collection[str],
        *,
        placed: Mapping[str, str] | None = None,
        observe: Observe | None = None,
        timeout_seconds: float = LEDGER_TIMEOUT_SECONDS,
        replicas: int = 0,
    ) -> "Shards":
        """Open every ledger, each at the server that has it. All or none."""
        async with AsyncExitStack() as opened:
            ledgers = {}
            for name in names:
                ledgers[name] = await Ledger.open(
                    url,
                    name=name,
                    observe=observe,
                    timeout_seconds=timeout_seconds,
                    replicas=replicas,
                )
                opened.push_async_callback(ledgers[name].close)
            shards = cls(ledgers, placed or {})
            opened.pop_all()
        return shards

    async def close(self) -> None:
        """Wait for the posts in flight, then close every ledger."""
        await asyncio.gather(*(ledger.close() for ledger in self.ledgers.values()))

    def name_of(self, application: str) -> str:
        """The name of the application's shard."""
        return self._placed.get(application) or self._by_rule(application)

    def ledger_of(self, application: str) -> Ledger:
        """The ledger that the application's postings go to."""
        return self.ledgers[self.name_of(application)]

    async def ledger_of_inference(self, inference: str) -> Ledger | None:
        """The ledger where this inference was captured; None where it was in none."""
        found = await self.find(inference)
        return found[0] if found else None

    async def find(
        self, inference: str, *, payer: str | None = None
    ) -> tuple[Ledger, InferenceRecord] | None:
        """The ledger where this inference was captured, and its record; None where it was in none.

        The payer's shard is asked first, if the payer is known; then all others at once: an
        application may have been moved since. Raises LedgerUnavailable where it was found nowhere
        and one of them did not answer.
        """
        likely = [] if payer is None else [self.ledger_of(payer)]
        others = [ledger for ledger in self.ledgers.values() if ledger not in likely]
        return await _find_in(likely, inference) or await _find_in(others, inference)

    async def payout_blocks(self) -> Mapping[str, str]:
        """Every account whose payouts are held back in any shard, and why."""
        parts = await asyncio.gather(*(each.payout_blocks() for each in self.ledgers.values()))
        return {account: reason for part in parts for account, reason in part.items()}

    async def balance(self, account: str) -> int:
        """One account, summed over the shards."""
        parts = await asyncio.gather(*(each.balance(account) for each in self.ledgers.values()))
        return sum(parts)

    async def balances(self) -> Mapping[str, int]:
        """Every account that is not zero, summed over the shards."""
        total: Counter[str] = Counter()
        for part in (await self._balances_by_shard()).values():
            total.update(part)
        return {account: nano for account, nano in total.items() if nano}

    async def check(self) -> ShardsBooks:
        """Fold every shard's journal and hold it against its balances, while posting goes on."""
        books = await asyncio.gather(*(ledger.check() for ledger in self.ledgers.values()))
        return ShardsBooks(dict(zip(self.ledgers, books, strict=True)))

    async def misplaced(self) -> list[Misplaced]:
        """What lies where its application does not post: after a shard was added, or a late void.

        Place these applications where they are, then move and replace them one after the other.
        """
        return [
            Misplaced(application, shard, nano)
            for shard, balances in (await self._balances_by_shard()).items()
            for account, nano in sorted(balances.items())
            if account.startswith(APPLICATION)
            and self.name_of(application := account.removeprefix(APPLICATION)) != shard
        ]

    async def move(self, move: Move, *, time_ms: int) -> None:
        """Take the money out of one shard, then put it into the other; both through `funding`.

        In between it is nobody's, never two's. After any failure call it again with the same move:
        either half posts at most once, and a move that was changed meanwhile is a KeyConflict. A
        debt is not moved. The credit limit is set anew by the caller.
        """
        shards = (move.source, move.target)
        if move.nano <= 0:
            raise LedgerRefused(f"move of {move.nano} nano-USD: only what is there can be moved")
        if move.source == move.target or not set(shards) <= set(self.ledgers):
            raise LedgerRefused(f"move from {move.source} to {move.target}: not two shards of ours")
        account = f"{APPLICATION}{move.application}"
        for shard, nano in zip(shards, (-move.nano, move.nano), strict=True):
            adjustment = Adjustment(
                operation=move.operation,
                legs=(Leg("funding", -nano), Leg(account, nano)),
                reason=f"moved from {move.source} to {move.target}",
                by=move.by,
            )
            await self.ledgers[shard].adjust(adjustment, time_ms=time_ms)

    async def _balances_by_shard(self) -> Mapping[str, Mapping[str, int]]:
        parts = await asyncio.gather(*(ledger.balances() for ledger in self.ledgers.values()))
        return dict(zip(self.ledgers, parts, strict=True))


async def _find_in(
    ledgers: Sequence[Ledger], inference: str
) -> tuple[Ledger, InferenceRecord] | None:
    """The one of these that has the inference, though others be away."""
    answers = await asyncio.gather(
        *(ledger.inference(inference) for ledger in ledgers), return_exceptions=True
    )
    for ledger, answer in zip(ledgers, answers, strict=True):
        if isinstance(answer, InferenceRecord):
            return ledger, answer
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return None
