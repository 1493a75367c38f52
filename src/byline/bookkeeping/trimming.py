"""What may go from Redis: entries exported, in a snapshot and logged; inferences long finished.

How far the journal may be trimmed is decided by `trim.lua`, against what the ledger itself says at
that moment. An inference is forgotten whole, facts and marks together, when a hold or a capture
under its id would be refused as too old and all its entries are trimmed. Before anything is
forgotten the ledger notes up to which time: so it is refused whatever a clock says.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

import orjson

from byline.ledger.journal import Journal
from byline.limits import CHOICES_MAX, EVENT_AGE_DAYS_MAX
from byline.posting.keys import Keys
from byline.posting.postings import DAY_MS, event_ms
from byline.posting.redis_client import Client, answering
from byline.posting.scripts import script_text

ENTRIES_AT_ONCE = 5_000  # so that no call holds the server up
MARKS_AT_ONCE = 500
PAGES_A_ROUND = 10
DAYS_LOOKED_BACK = 400  # a pool that stayed open for longer leaves its few marks behind
FORGET_DAYS = EVENT_AGE_DAYS_MAX + 2  # a day for the end of the event's day, one for clocks
OPERATIONS_OF_ONE = (
    "hold/0", "capture/0", "void/0", "expire/0", *(f"settle/{k}" for k in range(CHOICES_MAX)),
)  # fmt: skip


@dataclass(slots=True)
class _Inference:
    """What Redis still has of one inference."""

    id: str
    facts: Mapping[str, str] = field(default_factory=dict)
    marks: Mapping[str, str] = field(default_factory=dict)  # event key -> seq, digest, flag

    def is_closed_before(self, seq: int) -> bool:
        """Is nothing of it open, and its last entry not after `seq`?"""
        if any(int(mark.partition(":")[0]) > seq for mark in self.marks.values()):
            return False
        state = self.facts.get("state")
        if state == "captured":
            pools = enumerate(orjson.loads(self.facts["capture"])["pools"])
            return all(f"attribution:{ordinal}" in self.facts for ordinal, nano in pools if nano)
        return state in ("voided", "expired", None)  # None: a process died after the facts went


class Trimming:
    """Makes room in one ledger."""

    def __init__(
        self,
        redis: Client,
        keys: Keys,
        journal: Journal,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._journal = journal
        self._step = step
        self._turn: AsyncIterator[tuple[int, set[str]]] | None = None

    async def trim(self, *, keep_entries: int, keep_days: float, now_ms: int) -> int:
        """Trim all but the newest entries and the youngest; answers the newest that is gone."""
        with answering("trim the journal"):
            names = ("seq", "exported", "snapshot", "trimmed", "notarised")
            *found, logged = await self._redis.hmget(self._keys.meta, *names)
            seq, exported, snapshot, trimmed = (int(value or 0) for value in found)
            notarised = seq if logged is None else int(logged)  # None: there is no notary
            last = min(exported - 1, snapshot - 1, notarised - 1, seq - max(keep_entries, 1))
            last = await self._last_posted_by(now_ms - int(keep_days * DAY_MS), trimmed, last)
            while trimmed < last:
                up_to = str(min(trimmed + ENTRIES_AT_ONCE, last))
                keys = (self._keys.journal, self._keys.meta)
                gone: int = await self._redis.eval(script_text("trim"), len(keys), *keys, up_to)
                self._step("trimmed")
                if gone == trimmed:
                    break
                trimmed = gone
        return trimmed

    async def forget(self, *, now_ms: int) -> int:
        """Forget some of the inferences that are long finished; answers how many."""
        forgotten = 0
        for _ in range(PAGES_A_ROUND):
            if self._turn is None:
                self._turn = self._old_inferences(now_ms // DAY_MS - FORGET_DAYS)
            page = await anext(self._turn, None)
            if page is None:
                self._turn = None
                break
            forgotten += await self._forget(*page)
        return forgotten

    async def _last_posted_by(self, time_ms: int, low: int, high: int) -> int:
        """The last entry in (low, high] that was posted by then; `low` if there is none."""
        while low < high:
            middle = (low + high + 1) // 2
            entry = await self._journal.entries_at([middle])
            if entry and entry[0].time_ms <= time_ms:
                low = middle
            else:
                high = middle - 1
        return low

    async def _old_inferences(self, newest_day: int) -> AsyncIterator[tuple[int, set[str]]]:
        """Days with marks, and inferences that have marks there, a page at a time."""
        days = range(newest_day - DAYS_LOOKED_BACK, newest_day + 1)
        with answering("look for old marks"):
            async with self._redis.pipeline(transaction=False) as pipe:
                for day in days:
                    pipe.exists(self._keys.marks(day))
                found = await pipe.execute()
        for day in (day for day, exists in zip(days, found, strict=True) if exists):
            cursor = 0
            while True:
                with answering("read old marks"):
                    cursor, marks = await self._redis.hscan(
                        self._keys.marks(day), cursor, count=MARKS_AT_ONCE
                    )
                yield day, {key.partition("/")[0] for key in marks}
                if cursor == 0:
                    break

    async def _forget(self, day: int, inferences: set[str]) -> int:
        with answering("forget finished inferences"):
            exported, trimmed = await self._redis.hmget(self._keys.meta, "exported", "trimmed")
            limit = min(int(exported or 0), int(trimmed or 0))
            found = await self._read(day, sorted(inferences))
            closed = [each for each in found if each.marks and each.is_closed_before(limit)]
            if not closed:
                return 0
            newest_ms = max(event_ms(each.id) for each in closed)
            await self._redis.eval(script_text("forget"), 1, self._keys.meta, str(newest_ms))
            self._step("forgotten time noted")
            # Facts first: a process that dies in between finds them again by their marks.
            await self._redis.unlink(*(self._keys.inference(each.id) for each in closed))
            self._step("facts deleted")
            marks = [key for inference in closed for key in inference.marks]
            await self._redis.hdel(self._keys.marks(day), *marks)
            self._step("marks deleted")
        return len(closed)

    async def _read(self, day: int, inferences: list[str]) -> list[_Inference]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for inference in inferences:
                events = [f"{inference}/{operation}" for operation in OPERATIONS_OF_ONE]
                pipe.hgetall(self._keys.inference(inference))
                pipe.hmget(self._keys.marks(day), *events)
            answers = await pipe.execute()
        found = []
        for inference, facts, marks in zip(inferences, answers[::2], answers[1::2], strict=True):
            events = [f"{inference}/{operation}" for operation in OPERATIONS_OF_ONE]
            marked = {key: mark for key, mark in zip(events, marks, strict=True) if mark}
            found.append(_Inference(inference, facts, marked))
        return found
