"""Attack worlds: one dataset as it is, and as each attack leaves it. Pure.

Of a dataset a small honest world is drawn as for a fidelity measurement. The *owner* is its
contributor with the most rows, the *attacker* the one in the middle by rows. Each attack is a
function of the honest rows to those that production would then be given. What production does with
them is not decided here: copies are found by `byline.datasets.copies`, and what is left is trained.

All rows that some world trains are one study in which every row is a player of its own. So every
world is a counterfactual run of it, with weight 1 for the rows it trains and 0 for all others: the
same start, batches and order, and two worlds differ by the attack alone. Worlds that train the same
rows (copies that are found, accounts that are split) are one run.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from byline.attacks.texts import edited, inflated, junk, outlying, padded
from byline.canonical import Json, digest
from byline.datasets.copies import without_copies
from byline.errors import InvalidInput
from byline.fidelity.study import Profile, Study, design
from byline.records import Example

PROFILE = Profile(
    contributors_max=8, contributor_rows_max=10, rows_max=60, words_max=40, words_preferred_max=24,
    coalitions=0, questions_reworded=24, questions_held_out=6, orders=1,
)  # fmt: skip
COPIES = (1, 3, 9)
ACCOUNTS = (2, 3, 9)
EDIT_RATES_QUICK = (0.0, 0.1, 0.2, 0.3)  # of words; beyond 0.2 a near-copy is no longer found
EDIT_RATES = (*EDIT_RATES_QUICK, 0.5)
LATER = "9999-12-31"  # than any honest row
NEWCOMER = "newcomer"  # an account without honest rows


class Attack(StrEnum):
    """What is tried."""

    HONEST = "honest"
    COPIES = "near-copies of the owner's rows"
    COPIES_ASIDE = "near-copies of the owner's rows under a second account"
    PADDED = "whole copies with as many random words behind them"
    HONEST_ROWS = "honest rows more (for comparison: no attack)"
    SPLIT = "rows split into accounts"
    OUTLIERS = "rows made outliers"
    INFLATED = "rows repeated to inflate gradients"
    WASH = "questions bought about one's own rows"
    JUNK = "random words in the right format"
    ZERO_WEIGHT = "a newcomer with nothing but copies"


@dataclass(frozen=True, slots=True)
class World:
    """One dataset as an attack leaves it."""

    attack: Attack
    rows: tuple[Example, ...]
    accounts: tuple[str, ...]  # the attacker's
    sent: int = 0  # how many rows, or accounts, the attack uses
    edit_rate: float | None = None

    @property
    def trained(self) -> tuple[str, ...]:
        """The ids of the rows that production trains, in their order."""
        return tuple(sorted(row.id for row in without_copies(self.rows)))

    @property
    def training(self) -> str:
        """A name for what is trained: worlds of one name are one run."""
        ids: list[Json] = list(self.trained)
        return digest(ids)[:16]


@dataclass(frozen=True, slots=True)
class Arena:
    """Everything of one measurement: `study` has every row that a world trains."""

    study: Study
    owner: str
    attacker: str
    worlds: tuple[World, ...]  # the honest one first

    def taken(self, *, quick: bool) -> tuple[World, ...]:
        """The worlds to measure: `quick`, near-copies and what needs no training of its own."""
        costly = (Attack.PADDED, Attack.HONEST_ROWS, Attack.OUTLIERS, Attack.INFLATED, Attack.JUNK)
        return tuple(
            world
            for world in self.worlds
            if not quick
            or (world.attack not in costly and world.edit_rate in (None, *EDIT_RATES_QUICK))
        )


def design_arena(
    name: str, rows: Sequence[Example], seed: int, profile: Profile = PROFILE
) -> Arena:
    """The worlds of a dataset: the same whether all or some of them are measured.

    Raises InvalidInput where the rows are too few for a study, or those of one contributor alone.
    """
    honest = design(name, without_copies(rows), profile, seed)
    sizes = {who: honest.contributor_of.count(c) for c, who in enumerate(honest.contributors)}
    ranked = sorted(sizes, key=lambda who: (-sizes[who], who))
    owner, attacker = ranked[0], ranked[len(ranked) // 2]
    spare = _spare(rows, honest, attacker, profile)
    worlds = tuple(_Attacker(honest.rows, owner, attacker, seed).worlds(spare))
    taught = {name for world in worlds for name in world.trained}
    every = {row.id: row for world in worlds for row in world.rows}
    if any(every[row.id].completion != row.completion for world in worlds for row in world.rows):
        raise InvalidInput(f"{name} has rows with ids that the attackers' have", param="dataset")
    ids = tuple(sorted(taught))
    players = tuple(replace(every[row], contributor=row) for row in ids)
    study = replace(honest, rows=players, contributors=ids, coalitions=())
    return Arena(study, owner, attacker, worlds)


def _spare(
    rows: Sequence[Example], honest: Study, attacker: str, profile: Profile
) -> tuple[Example, ...]:
    """The attacker's other rows, of the same kind; none that a question asks for."""
    known = {row.id for row in honest.rows}
    asked = {question.prompt for question in honest.questions}
    return tuple(
        row
        for row in without_copies(rows)
        if row.contributor == attacker
        and row.id not in known
        and row.prompt not in asked
        and len(row.completion.split()) <= profile.words_preferred_max
    )[: max(COPIES)]


class _Attacker:
    """Makes every world from the honest rows."""

    def __init__(self, rows: tuple[Example, ...], owner: str, attacker: str, seed: int) -> None:
        self._rows = rows
        self._attacker = attacker
        self._seed = seed
        self._owned = [row for row in rows if row.contributor == owner]
        self._own = [row for row in rows if row.contributor == attacker]
        self._others = tuple(row for row in rows if row.contributor != attacker)
        self._vocabulary = sorted({word for row in rows for word in row.completion.split()})

    def worlds(self, spare: tuple[Example, ...]) -> list[World]:
        """All of them; the honest one first."""
        attacker = (self._attacker,)
        made = [World(Attack.HONEST, self._rows, attacker)]
        for rate in EDIT_RATES:
            made += self._copying(Attack.COPIES, self._copies(rate), rate)
            made += self._copying(Attack.COPIES_ASIDE, self._copies(rate), rate)
        made += self._copying(Attack.PADDED, self._copies(None), None)
        made += [
            World(Attack.HONEST_ROWS, (*self._rows, *spare[:sent]), attacker, sent)
            for sent in COPIES
            if sent <= len(spare)
        ]
        made += [self._split(most) for most in sorted({min(k, len(self._own)) for k in ACCOUNTS})]
        made += [
            self._instead(Attack.OUTLIERS, outlying),
            self._instead(Attack.INFLATED, lambda text, _: inflated(text)),
            World(Attack.WASH, self._rows, attacker),
            World(Attack.JUNK, (*self._rows, *self._junk()), (NEWCOMER,), len(self._own)),
        ]
        loud = [
            self._sent(row, f"{NEWCOMER}:{row.id}", NEWCOMER, row.completion.upper())
            for row in self._owned
        ]
        zero = World(Attack.ZERO_WEIGHT, (*self._rows, *loud), (NEWCOMER,), len(loud))
        return [*made, zero]

    def _copying(self, attack: Attack, copies: list[Example], rate: float | None) -> list[World]:
        """One world for each number of copies.

        A second account shows whether what is negative in the copies' scores is shed by it.
        """
        accounts: tuple[str, ...] = (self._attacker,)
        if attack is Attack.COPIES_ASIDE:
            accounts = (self._attacker, NEWCOMER)
            copies = [replace(copy, contributor=NEWCOMER) for copy in copies]
        return [
            World(attack, (*self._rows, *copies[:sent]), accounts, sent, rate) for sent in COPIES
        ]

    def _copies(self, rate: float | None) -> list[Example]:
        """Near-copies of the owner's rows in turn; padded ones without a rate."""
        chance = self._chance(f"copies {rate}")
        made = []
        for number in range(max(COPIES)):
            row = self._owned[number % len(self._owned)]
            text = (
                padded(row.completion, self._vocabulary, chance)
                if rate is None
                else edited(row.completion, rate, self._vocabulary, chance)
            )
            made.append(self._sent(row, f"copy:{rate}:{number}", self._attacker, text))
        return made

    def _split(self, accounts: int) -> World:
        names = tuple(f"{self._attacker}:{number}" for number in range(accounts))
        own = [
            replace(row, contributor=names[place % accounts]) for place, row in enumerate(self._own)
        ]
        return World(Attack.SPLIT, (*self._others, *own), names, accounts)

    def _instead(self, attack: Attack, of: Callable[[str, random.Random], str]) -> World:
        """The attacker's rows in other form, instead of the honest ones."""
        chance = self._chance(attack)
        own = [
            self._sent(row, f"{attack.name}:{row.id}", self._attacker, of(row.completion, chance))
            for row in self._own
        ]
        return World(attack, (*self._others, *own), (self._attacker,), len(own))

    def _junk(self) -> list[Example]:
        chance = self._chance("junk")
        return [
            self._sent(row, f"junk:{row.id}", NEWCOMER,
                       junk(row.completion, self._vocabulary, chance))
            for row in self._own
        ]  # fmt: skip

    def _sent(self, row: Example, name: str, account: str, text: str) -> Example:
        return replace(
            row, id=name, contributor=account, completion=text, contributed_at=LATER
        )  # fmt: skip

    def _chance(self, what: str) -> random.Random:
        return random.Random(f"{self._seed} {what}")  # noqa: S311 - a design to repeat
