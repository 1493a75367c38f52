"""The fold that follows the journal, and what each look at the ledger says of it.

Every comparison is of one instant: a look reads balances and the journal's end in one transaction,
then the fold is taken to exactly that end, however much is posted meanwhile. Counts are compared at
every look; names are compared when an entry has touched them, and all of them in turn.
"""

from collections.abc import Iterable

from byline.bookkeeping.findings import Finding, Kind
from byline.bookkeeping.imprints import Imprints
from byline.bookkeeping.readings import NAMES_A_LOOK, Look, Readings
from byline.errors import LedgerUnavailable
from byline.ledger.books import Fold, Page, Snapshot
from byline.ledger.journal import Journal, seq_of

LOOKS_A_ROUND = 20
NAMES_SWEPT_A_ROUND = 2_000
NAMES_WAITING_MAX = 50_000  # what is touched beyond that is compared in its turn
LOOK_AGAIN_MAX = 1_000  # of what differed the last time
LISTED_MAX = 20  # findings of one kind


class Astray(LedgerUnavailable):
    """The fold has taken in what does not stand in the journal: it must begin anew."""


class LiveBooks:
    """One ledger's fold, as far as the journal goes."""

    def __init__(self, journal: Journal, readings: Readings, base: Snapshot) -> None:
        self.fold = Fold(base)
        self.imprints = Imprints(base.seq)
        self.drifting: dict[str, str] = {}  # account -> what is stored instead
        self.compared: set[str] = set()  # the accounts of the last round
        self._unlisted: dict[str, str] = {}
        self._journal = journal
        self._readings = readings
        self._waiting: set[str] = set()  # names to compare
        self._lap: list[str] = []  # names of the fold whose turn is still to come
        self._cursors = (0, 0, 0)

    async def follow(self, up_to_seq: int) -> None:
        """Take in the journal up to there. Raises Astray when the fold must begin anew."""
        if up_to_seq > self.fold.seq:
            pages = self._journal.pages(after_seq=self.fold.seq, up_to_seq=up_to_seq)
            async for page in pages:
                await self._add(page)

    async def round(self) -> tuple[Look, list[Finding]]:
        """Take in what is new, compare what is due; the last look, and all that is wrong."""
        await self.follow((await self._readings.meta()).seq)
        await self._sweep()
        self.compared.clear()
        for names in self._due():
            look = await self._readings.look(names)
            await self.follow(look.meta.seq)
            self._compare(look)
        return look, self._findings(look)

    def _due(self) -> list[list[str]]:
        """The names of this round, look by look: first what differed. At least one look."""
        names = [*self.drifting, *self._unlisted][:LOOK_AGAIN_MAX]
        self._waiting.difference_update(names)
        more = min(LOOKS_A_ROUND * NAMES_A_LOOK, len(self._waiting))
        names += [self._waiting.pop() for _ in range(more)]
        return [
            names[start : start + NAMES_A_LOOK] for start in range(0, len(names) or 1, NAMES_A_LOOK)
        ]

    async def _add(self, page: Page) -> None:
        """Take in entries. Before anything is held against them they are read a second time."""
        before, problems = self.fold.seq, self.fold.problems
        posted = self.fold.add_page(page)
        if self.fold.problems > problems:
            again = await self._journal.read(before, seq_of(page[-1][0]), len(page))
            if again != page or await self._journal.trimmed() > before:
                raise Astray(f"two readings of the journal after {before} differ")
        self.imprints.add_page(page)
        if len(self._waiting) < NAMES_WAITING_MAX:
            self._waiting.update(*posted)

    async def _sweep(self) -> None:
        """Put the next names in turn among the waiting: the fold's, and those only Redis has."""
        if not self._lap:
            self._lap = list(self.fold.accounts)
        self._waiting.update(self._lap[-NAMES_SWEPT_A_ROUND:])
        del self._lap[-NAMES_SWEPT_A_ROUND:]
        self._cursors, found = await self._readings.names(self._cursors)
        self._waiting |= found - self.fold.accounts.keys()

    def _compare(self, look: Look) -> None:
        self.compared.update(look.stored)
        for name, stored in look.stored.items():
            folded = self.fold.accounts.get(name, 0)
            self.drifting.pop(name, None)
            if (stored or "0") != str(folded):
                self.drifting[name] = stored or "0"
        for name, is_listed in look.listed.items():
            exists = name in self.fold.accounts
            self._unlisted.pop(name, None)
            if exists != is_listed:
                self._unlisted[name] = "in no list" if exists else "listed, yet there is none"

    def conservation_error_nano(self) -> int:
        """What all accounts sum to: the fold's, corrected by what is known to be stored instead."""
        drift = sum(
            int(stored) - self.fold.accounts.get(name, 0)
            for name, stored in self.drifting.items()
            if stored.removeprefix("-").isdigit()
        )
        return sum(self.fold.accounts.values()) + drift

    def _findings(self, look: Look) -> list[Finding]:
        fold, accounts = self.fold, self.fold.accounts
        drift = {
            name: f"the journal folds to {accounts.get(name, 0)}, stored is {stored}"
            for name, stored in self.drifting.items()
        }
        of_names = [
            (Kind.DRIFT, drift),
            (Kind.UNLISTED, self._unlisted),
            (Kind.GAP, dict.fromkeys(map(str, fold.gaps), "is missing")),
            (Kind.UNBALANCED_ENTRY, dict.fromkeys(map(str, fold.unbalanced), "is broken")),
            (Kind.UNBALANCED_INFERENCE, fold.inferences.wrong),
        ]
        found = [
            Finding(kind, name, says)
            for kind, wrong in of_names
            for name, says in sorted(wrong.items())[:LISTED_MAX]
        ]
        return found + [Finding(*wrong) for wrong in _at_once(fold, look)]


def _at_once(fold: Fold, look: Look) -> Iterable[tuple[Kind, str, str]]:
    """What one look says without a name: ends, counts, and the account that stays empty."""
    meta = look.meta
    if not fold.seq == meta.seq == look.newest_seq:
        ends = f"read up to {fold.seq}, ends at {look.newest_seq}, is said to end at {meta.seq}"
        yield Kind.GAP, "journal", ends
    if look.entries != look.newest_seq - meta.trimmed:
        says = f"{look.entries} entries from {meta.trimmed + 1} to {look.newest_seq}"
        yield Kind.GAP, "journal", says
    if look.accounts != len(fold.accounts):
        says = f"{look.accounts} balances are stored, the journal folds to {len(fold.accounts)}"
        yield Kind.DRIFT, "accounts", says
    for name, listed, prefix in (("holds", look.holds, "hold:"), ("pools", look.pools, "open:")):
        if listed != fold.waiting[prefix]:
            says = f"{listed} are listed, the journal folds to {fold.waiting[prefix]}"
            yield Kind.UNLISTED, name, says
    if "rounding" in fold.accounts:
        yield Kind.ROUNDING, "rounding", f"holds {fold.accounts['rounding']} nano-USD"
    if meta.trimmed > min(meta.exported, meta.snapshot):
        says = f"up to {meta.trimmed}, exported {meta.exported}, in a snapshot {meta.snapshot}"
        yield Kind.TRIMMED, "journal", says
