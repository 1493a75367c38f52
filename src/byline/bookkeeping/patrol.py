"""Reads the journal again from its beginning, a page a round, for what changed behind the fold.

The live fold reads each entry once. The patrol finds what happens to an entry afterwards: that it
goes, that other bytes stand in its place, that its mark is lost (so that it could post again).
"""

from collections.abc import Mapping
from typing import Any

import orjson

from byline.bookkeeping.findings import Finding, Kind
from byline.bookkeeping.imprints import Imprints
from byline.bookkeeping.live import LiveBooks
from byline.bookkeeping.readings import Readings
from byline.errors import LedgerRefused
from byline.ledger.books import Fold, Page
from byline.ledger.journal import Journal
from byline.limits import EVENT_AGE_DAYS_MAX
from byline.posting.postings import DAY_MS, OPERATIONS, event_ms

ENTRIES_A_ROUND = 2_000
LISTED_MAX = 20
OF_INFERENCES = {"hold", "capture", "void", "expire", "settle"}  # their marks are kept by the day


class Patrol:
    """One lap after another."""

    def __init__(self, journal: Journal, readings: Readings) -> None:
        self._journal = journal
        self._readings = readings
        self._lap: tuple[Fold, Imprints] | None = None
        self._found: dict[tuple[Kind, str], Finding] = {}  # in this lap
        self._last: dict[tuple[Kind, str], Finding] = {}  # in the whole lap before

    async def round(self, live: LiveBooks, *, now_ms: int) -> list[Finding]:
        """Read on; answers what this lap and the last one have found."""
        try:
            fold, imprints = await self._position(live, await self._journal.trimmed())
        except LedgerRefused as problem:  # there is nothing to begin at
            return [*self._findings(), Finding(Kind.TRIMMED, "journal", str(problem))]
        before, problems = fold.seq, fold.problems
        page = await self._journal.read(before, live.fold.seq, ENTRIES_A_ROUND)
        fold.add_page(page)
        imprints.add_page(page)
        changed = imprints.differing(live.imprints)
        is_end = fold.seq == live.fold.seq or not page
        differs = is_end and not _same(fold, imprints, live)
        if fold.problems > problems or changed or differs:
            again = await self._journal.read(before, live.fold.seq, ENTRIES_A_ROUND)
            if again != page or await self._journal.trimmed() > before:
                self._lap = None  # misread, or trimmed meanwhile
                return self._findings()
        self._note_journal(before, fold.problems > problems, changed, differs)
        await self._look_for_marks(page, now_ms)
        if is_end:
            self._last, self._lap = self._found, None
        return self._findings()

    async def _position(self, live: LiveBooks, trimmed: int) -> tuple[Fold, Imprints]:
        """Where this lap stands; a new one begins where the journal does."""
        if self._lap is None or self._lap[0].seq < trimmed:
            base = await self._journal.base(full=not trimmed)
            live.imprints.forget(trimmed)
            self._lap = Fold(base), Imprints(base.seq)
            self._found = {}
        return self._lap

    def _note_journal(self, seq: int, is_broken: bool, changed: list[int], differs: bool) -> None:
        if is_broken:
            self._note(Kind.REWRITTEN, "journal", f"is broken after entry {seq} when read again")
        for last in changed[:LISTED_MAX]:
            self._note(Kind.REWRITTEN, str(last), "was changed, or one of the thousand before it")
        if differs:
            self._note(Kind.REWRITTEN, "journal", "is another when it is read again")

    async def _look_for_marks(self, page: Page, now_ms: int) -> None:
        expected = _expected_marks(page, now_ms)
        missing = await self._unmarked(expected)
        for key in await self._unmarked(missing) if missing else ():
            self._note(Kind.MARK, key, f"of entry {expected[key][0]} is missing or another")

    async def _unmarked(
        self, expected: Mapping[str, tuple[int, str]]
    ) -> dict[str, tuple[int, str]]:
        marks = await self._readings.marks({key: bucket for key, (_, bucket) in expected.items()})
        return {
            key: (seq, bucket)
            for key, (seq, bucket) in expected.items()
            if not (marks[key] or "").startswith(f"{seq}:")
        }

    def _note(self, kind: Kind, subject: str, says: str) -> None:
        self._found.setdefault((kind, subject), Finding(kind, subject, says))

    def _findings(self) -> list[Finding]:
        return list({**self._last, **self._found}.values())


def _same(fold: Fold, imprints: Imprints, live: LiveBooks) -> bool:
    """Has the lap come to where the live fold is?"""
    ends = fold.seq == live.fold.seq and imprints.ends_like(live.imprints)
    return ends and fold.accounts == live.fold.accounts


def _expected_marks(page: Page, now_ms: int) -> dict[str, tuple[int, str]]:
    """Event key -> entry and bucket, of the entries whose marks can't have been dropped yet."""
    oldest_day = now_ms // DAY_MS - EVENT_AGE_DAYS_MAX
    expected: dict[str, tuple[int, str]] = {}
    for _, (_, text) in page:
        try:
            entry: dict[str, Any] = orjson.loads(text)
            event, operation, _ = entry["key"].split("/")
            day = event_ms(event) // DAY_MS
        except (ValueError, KeyError, TypeError, AttributeError, LedgerRefused):
            continue  # a broken entry is the fold's finding
        if operation not in OF_INFERENCES:
            expected[entry["key"]] = (entry["seq"], OPERATIONS)
        elif day >= oldest_day:
            expected[entry["key"]] = (entry["seq"], str(day))
    return expected
