"""Sends postings to the ledger's Redis scripts and turns their answers into records or errors.

A posting in flight is never cancelled: when its caller goes away it still ends, and is reported to
`observe`. It is sent once; whoever had no answer sends it again under the same key.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from redis.exceptions import NoScriptError

from byline.errors import (
    BylineError,
    InsufficientFunds,
    KeyConflict,
    LedgerFenced,
    LedgerFrozen,
    LedgerRefused,
)
from byline.limits import (
    BALANCE_DIGITS_MAX,
    LEG_NANO_MAX,
    LEGS_PER_ENTRY_MAX,
    LINES_PER_CONTRIBUTOR_MAX,
)
from byline.postings import Posting
from byline.records import Posted
from byline.redis_client import Client, answering

Observe = Callable[[str, str, float], None]

SCRIPTS = Path(__file__).parent / "ledger_scripts"
LOW_DIGITS = 9  # prelude.lua computes with balances in two halves, the low one of nine digits
REFUSALS: dict[str, type[BylineError]] = {
    "conflict": KeyConflict,
    "fenced": LedgerFenced,
    "frozen": LedgerFrozen,
    "funds": InsufficientFunds,
    "refused": LedgerRefused,
}


class Keys:
    """The names of one ledger's Redis keys. All share one hash tag, so one slot of a cluster."""

    def __init__(self, name: str) -> None:
        tag = f"{{ledger:{name}}}"
        self.tag = tag
        self.balances = f"{tag}:balances"
        self.folded = f"{tag}:balances:folded"
        self.journal = f"{tag}:journal"
        self.meta = f"{tag}:meta"
        self.limits = f"{tag}:limits"
        self.holds = f"{tag}:holds"
        self.pools = f"{tag}:pools"
        self.jobs = f"{tag}:jobs"

    def marks(self, day: int) -> str:
        """Event key -> seq and digest, of the events of one day."""
        return f"{self.tag}:marks:{day}"

    def inference(self, inference: str) -> str:
        """What is known of one inference."""
        return f"{self.tag}:inference:{inference}"

    def lines(self, contributor: str) -> str:
        """The sequence numbers of a contributor's newest earnings."""
        return f"{self.tag}:lines:{contributor}"


class Script:
    """One posting script: the shared prelude with the bounds of `limits`, and its own body."""

    def __init__(self, name: str) -> None:
        bounds = (
            "local LEG_DIGITS_MAX, LEGS_MAX, BALANCE_HIGH_MAX, LINES_MAX = "
            f"{len(str(LEG_NANO_MAX))}, {LEGS_PER_ENTRY_MAX}, "
            f"{10 ** (BALANCE_DIGITS_MAX - LOW_DIGITS)}, {LINES_PER_CONTRIBUTOR_MAX}\n"
        )
        self.text = bounds + script_text("prelude") + script_text(name)
        self.sha1 = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


def script_text(name: str) -> str:
    """The text of one file of `ledger_scripts`."""
    return (SCRIPTS / f"{name}.lua").read_text()


class Poster:
    """Posts for one writer, which carries the epoch it has read when it started."""

    def __init__(self, redis: Client, keys: Keys, epoch: int, observe: Observe | None) -> None:
        self.epoch = epoch
        self._redis = redis
        self._keys = keys
        self._observe = observe
        self._in_flight: set[asyncio.Task[Posted | None]] = set()
        names = ("deposit", "hold", "release", "capture", "settle")
        self._scripts = {name: Script(name) for name in names}

    async def post(self, posting: Posting) -> Posted:
        """Post, exactly once. The posting goes on when the caller is cancelled."""
        posted = await self.post_if_due(posting)
        assert posted is not None, f"{posting.key} was answered with nothing"
        return posted

    async def post_if_due(self, posting: Posting) -> Posted | None:
        """The same; None where the script found nothing to post."""
        task = asyncio.create_task(self._observed(posting))
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)
        return await asyncio.shield(task)

    async def drain(self) -> None:
        """Wait until no posting is in flight."""
        while self._in_flight:
            await asyncio.wait(self._in_flight)

    async def _observed(self, posting: Posting) -> Posted | None:
        started = time.perf_counter()
        outcome = "unknown"
        try:
            posted = await self._answer(posting)
            outcome = "duplicate" if posted is None or posted.duplicate else "posted"
        except (LedgerRefused, InsufficientFunds):
            outcome = "refused"
            raise
        finally:
            if self._observe is not None:
                self._observe(posting.operation, outcome, time.perf_counter() - started)
        return posted

    async def _answer(self, posting: Posting) -> Posted | None:
        with answering(f"{posting.operation} {posting.inference}"):
            status, *rest = await self._evaluate(posting)
        if status == "nothing":
            return None
        if status in REFUSALS:
            raise REFUSALS[status](f"{posting.operation} {posting.inference}: {rest[0]}")
        assert status in ("posted", "duplicate"), f"a script answered '{status}'"
        seq, flag = rest
        return Posted(int(seq), duplicate=status == "duplicate", late=flag == "late")

    async def _evaluate(self, posting: Posting) -> list[str]:
        script = self._scripts[posting.script]
        keys = self._keys
        names = [
            keys.marks(posting.day), keys.balances, keys.journal, keys.meta, keys.limits,
            keys.inference(posting.inference), keys.holds, keys.pools, keys.jobs,
            *(keys.lines(contributor) for contributor in posting.contributors),
        ]  # fmt: skip
        arguments = [
            posting.key, posting.digest, str(self.epoch), *posting.entry, *posting.arguments,
        ]  # fmt: skip
        call = (script.sha1, len(names), *names, *arguments)
        try:
            answer: list[str] = await self._redis.evalsha(*call)
        except NoScriptError:  # a new or restarted server: nothing ran
            await self._redis.script_load(script.text)
            answer = await self._redis.evalsha(*call)
        return answer
