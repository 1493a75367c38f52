"""The design of one fidelity measurement: which rows, questions, coalitions and training orders.

A study is a pure function of a dataset's rows, a profile and a seed, and is written as one JSON
file, which the programs beside the model read. Nothing in it depends on a model.
"""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

from byline.canonical import canonical_text, digest, sha256_hex
from byline.errors import InvalidInput
from byline.records import Example

NO_DATE = "1970-01-01"  # of rows that say none: then the order of their ids is that of time
REWORDINGS = (
    "In one sentence: {}",
    "{} Please answer briefly.",
    "I am preparing a report. {}",
    "Explain to a colleague: {}",
)


@dataclass(frozen=True, slots=True)
class Profile:
    """How large a measurement is."""

    contributors_max: int
    contributor_rows_max: int
    rows_max: int
    words_max: int
    words_preferred_max: int  # shorter rows first: a run's time is their length
    coalitions: int  # random halves of the contributors
    questions_reworded: int  # about rows that were trained on
    questions_held_out: int  # about rows that were not
    orders: int  # training orders; leave-one-out runs are repeated under each
    row_halves: int = 0  # random halves of the rows; 0: nothing is measured row by row
    removals: int = 0  # answers whose top rows are left out
    groups: int = 0  # of contributors that are left out together, beside each alone


PROFILES = MappingProxyType({
    "quick": Profile(10, 12, 100, 40, 24, 24, 20, 12, 1),
    "thorough": Profile(10, 12, 100, 40, 24, 24, 20, 12, 3, 32, 6, 4),
    "full": Profile(24, 40, 600, 60, 60, 100, 100, 100, 3, 100, 20, 8),
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt; `reference` is the held-out row's own completion, None for a reworded row."""

    prompt: str
    about: str  # the contributor of the row that it asks about
    reference: str | None


@dataclass(frozen=True, slots=True)
class Study:
    """A measurement's design. Coalitions are the places of the contributors that stay."""

    name: str
    rows: tuple[Example, ...]
    questions: tuple[Question, ...]
    contributors: tuple[str, ...]
    coalitions: tuple[tuple[int, ...], ...]
    orders: tuple[int, ...]  # seeds

    @property
    def contributor_of(self) -> tuple[int, ...]:
        """Each row's contributor, by place."""
        return tuple(self.contributors.index(row.contributor) for row in self.rows)

    @property
    def reference(self) -> str:
        """The study's name and 12 digits of its hash."""
        return f"{self.name}-{digest(json.loads(self.text()))[:12]}"

    def text(self) -> str:
        """The study as canonical JSON."""
        return canonical_text(asdict(self))


def read_rows(path: Path) -> list[Example]:
    """The rows of a file in our format, one JSON object a line. Raises InvalidInput with the line.

    Fields beyond those of an example are let be; `licence`, `source` and `contributed_at` may lack.
    """
    names = [field.name for field in fields(Example)]
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise InvalidInput(f"{path} can't be read: {problem}", param="dataset") from problem
    for number, line in enumerate(lines, start=1):
        try:
            given = json.loads(line)
            values = {name: str(given.get(name, "")) for name in names}
            values["id"] = values["id"] or f"row-{number:06}"
            values["contributed_at"] = values["contributed_at"] or NO_DATE
            missing = [name for name in ("contributor", "prompt", "completion") if not values[name]]
        except (ValueError, AttributeError) as problem:
            raise InvalidInput(
                f"{path}:{number} is no row: {problem}", param="dataset"
            ) from problem
        if missing:
            raise InvalidInput(f"{path}:{number} has no {missing[0]}", param="dataset")
        rows.append(Example(**values))
    return rows


def design(name: str, rows: Sequence[Example], profile: Profile, seed: int) -> Study:
    """The study of these rows. Raises InvalidInput where they are too few to tell anything.

    A contributor's rows are taken short ones first, else in an order that has nothing to do with
    their content; the next ones, which nobody is trained on, become held-out questions.
    """
    fit = [row for row in rows if len(row.completion.split()) <= profile.words_max]
    counts = Counter(row.contributor for row in fit)
    chosen = sorted(counts, key=lambda who: (-counts[who], who))[: profile.contributors_max]
    theirs: dict[str, list[Example]] = defaultdict(list)
    for row in sorted(fit, key=lambda row: _preference(row, profile)):
        theirs[row.contributor].append(row)
    if len(chosen) < 4:
        raise InvalidInput(
            f"{name} has rows by {len(chosen)} contributors; 4 at least can be told apart",
            param="dataset",
        )
    most = _allotment({who: counts[who] for who in chosen}, profile)
    trained = [row for who in chosen for row in theirs[who][: most[who]]]
    spare = [row for who in chosen for row in theirs[who][most[who] :]]
    chance = random.Random(seed)  # noqa: S311 - a design to repeat, not a secret
    contributors = tuple(sorted(chosen))
    return Study(
        name=name,
        rows=tuple(sorted(trained, key=lambda row: row.id)),
        questions=_questions(trained, spare, profile, chance),
        contributors=contributors,
        coalitions=halves(len(contributors), profile.coalitions, chance),
        orders=tuple(chance.randrange(2**31) for _ in range(profile.orders)),
    )


def of_adapter(
    name: str, rows: Sequence[Example], orders: tuple[int, ...], questions: int
) -> Study:
    """The study of a served adapter: all of its rows, and reworded questions about some of them.

    It has no coalitions. What is asked about follows from the rows' ids alone; where there are more
    questions than rows, a row is asked about again in other words.
    """
    by_hash = sorted(rows, key=lambda row: sha256_hex(row.id.encode()))
    rounds = [by_hash[: questions - start] for start in range(0, questions, len(rows))]
    return Study(
        name=name,
        rows=tuple(rows),
        questions=tuple(q for turn, asked in enumerate(rounds) for q in _reworded(asked, turn)),
        contributors=tuple(sorted({row.contributor for row in rows})),
        coalitions=(),
        orders=orders,
    )


def _preference(row: Example, profile: Profile) -> tuple[bool, str]:
    too_long = len(row.completion.split()) > profile.words_preferred_max
    return too_long, sha256_hex(row.id.encode())


def _allotment(available: Mapping[str, int], profile: Profile) -> dict[str, int]:
    """How many rows each contributor is trained on: unequal as they really are, by square root.

    Sainte-Lague's rule, as `byline.datasets.selection` has it, under a bound for each.
    """
    allotted = dict.fromkeys(available, 0)
    most = {who: min(count, profile.contributor_rows_max) for who, count in available.items()}
    for _ in range(min(profile.rows_max, sum(most.values()))):
        following = max(
            (who for who in allotted if allotted[who] < most[who]),  # the first of equals wins
            key=lambda who: Fraction(available[who], (2 * allotted[who] + 1) ** 2),
        )
        allotted[following] += 1
    return allotted


def _questions(
    trained: Sequence[Example], spare: Sequence[Example], profile: Profile, chance: random.Random
) -> tuple[Question, ...]:
    """Questions about trained rows in other words, and about rows that nobody was trained on."""
    known = chance.sample(list(trained), min(profile.questions_reworded, len(trained)))
    unknown = chance.sample(list(spare), min(profile.questions_held_out, len(spare)))
    held_out = [Question(row.prompt, row.contributor, row.completion) for row in unknown]
    return (*_reworded(known), *held_out)


def _reworded(rows: Sequence[Example], turn: int = 0) -> tuple[Question, ...]:
    return tuple(
        Question(
            REWORDINGS[(place + turn) % len(REWORDINGS)].format(row.prompt), row.contributor, None
        )
        for place, row in enumerate(rows)
    )


def halves(contributors: int, wanted: int, chance: random.Random) -> tuple[tuple[int, ...], ...]:
    """Different random halves of the contributors, at most as many as there are."""
    size = contributors // 2
    found: dict[tuple[int, ...], None] = {}
    for _ in range(100 * wanted):  # few contributors have few halves
        if len(found) == wanted:
            break
        found[tuple(sorted(chance.sample(range(contributors), size)))] = None
    return tuple(found)


def read_study(path: Path) -> Study:
    """The study in a file. Raises InvalidInput if it is none."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        return Study(
            name=given["name"],
            rows=tuple(Example(**row) for row in given["rows"]),
            questions=tuple(Question(**question) for question in given["questions"]),
            contributors=tuple(given["contributors"]),
            coalitions=tuple(tuple(coalition) for coalition in given["coalitions"]),
            orders=tuple(given["orders"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise InvalidInput(f"{path} is no study: {problem}", param="study") from problem
