"""Which rows of a dataset are copies of earlier ones, and whose they are. Pure.

A row that says nearly the same as an earlier one teaches nothing new, and if it were trained on,
whoever sent it in would be paid for another's text. So it is left out of training (weight 0), its
text belongs to the earliest row's contributor, and it is paid exactly nothing.

A row is a *copy* if an earlier canonical row says nearly the same; else it is *canonical*. Earlier
is by `contributed_at`, and on the same day or second by id, so that the order in which rows come
decides nothing. Rows that come later never change what an earlier one is: nobody can take a row
from its owner, or bridge two owners' rows, by sending in something afterwards.

Two completions say nearly the same if SIMILARITY_MIN of the shorter one's words stand in the
longer one, as often and in whatever order, and the shorter has at least half the longer's words:
case, punctuation, order, one word in five, and as many added words as there were make no other
text. A longer text still, sent in later, is a copy if it holds so many words of the earlier one in
their order: whatever else is put before, between and behind them. Below WORDS_MIN words an answer
is a claim that many may honestly make: there only the same prompt with the same completion is a
copy. Measured on real rows: docs/datasets.md.

Exact, by an inverted index of words; no sketch is needed at this size.
"""

import re
import unicodedata
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from byline.errors import ArtifactError
from byline.records import Example

# Of the shorter text's words. Four in five, and a margin for words that punctuation takes apart.
SIMILARITY_MIN = 0.78
SIZE_RATIO_MIN = 0.5  # shorter over longer, in words; below it, order counts
WORDS_MIN = 8  # shorter answers are compared whole, with their prompts

WORD = re.compile(r"\w+")
Element: TypeAlias = tuple[str, int]  # a word and which of its occurrences: a bag as a set


@dataclass(frozen=True, slots=True)
class Copy:
    """One row of weight 0, and the canonical row that it repeats."""

    id: str
    contributor: str  # who sent it in
    of: str  # the canonical row's id
    owner: str  # the canonical row's contributor
    similarity: float  # part of the shorter completion's words that both have


def normal_form(text: str) -> tuple[str, ...]:
    """The words of a text without case, punctuation, white space or compatibility forms."""
    return tuple(WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def find_copies(examples: Iterable[Example]) -> tuple[Copy, ...]:
    """Every copy among the rows, in order of id. ArtifactError where a date is none."""
    rows = sorted(examples, key=lambda row: (_when(row), row.id))
    texts = [_Text.of(normal_form(row.completion)) for row in rows]
    frequency = Counter(element for text in texts for element in text.bag)
    found: list[Copy] = []
    canonical = _Canonical(frequency)
    short: dict[tuple[tuple[str, ...], tuple[str, ...]], Example] = {}
    for row, text in zip(rows, texts, strict=True):
        if len(text.words) < WORDS_MIN:
            first = short.setdefault((normal_form(row.prompt), normal_form(row.completion)), row)
            similar = None if first is row else (1.0, first)
        else:
            similar = canonical.nearest(text)
            if similar is None:
                canonical.add(row, text)
        if similar is not None:
            similarity, original = similar
            found.append(
                Copy(row.id, row.contributor, original.id, original.contributor, similarity)
            )
    return tuple(sorted(found, key=lambda copy: copy.id))


def without_copies(examples: Sequence[Example]) -> tuple[Example, ...]:
    """The canonical rows alone, in the order given."""
    left_out = {copy.id for copy in find_copies(examples)}
    return tuple(row for row in examples if row.id not in left_out)


def owners(examples: Sequence[Example]) -> Mapping[str, str | None]:
    """Every row's contributor by row id; None for a copy, which counts for nobody."""
    copies = {copy.id for copy in find_copies(examples)}
    return {row.id: None if row.id in copies else row.contributor for row in examples}


@dataclass(frozen=True, slots=True)
class _Text:
    """One completion's words, in order and as a bag."""

    words: tuple[str, ...]
    bag: frozenset[Element]

    @classmethod
    def of(cls, words: Sequence[str]) -> "_Text":
        seen: Counter[str] = Counter()
        elements: list[Element] = []
        for word in words:
            elements.append((word, seen[word]))
            seen[word] += 1
        return cls(tuple(words), frozenset(elements))


class _Canonical:
    """The canonical rows so far, findable by their words.

    Of similar texts the shorter one, of n words, shares s * n with the longer. So of its n - s * n
    + 1 rarest words at least one stands in the longer one (prefix filtering, Chaudhuri et al., ICDE
    2006). Either may be the shorter: each row is found by its rarest words, and by any of its words
    that is among another's rarest.
    """

    def __init__(self, frequency: Mapping[Element, int]) -> None:
        self._frequency = frequency
        self._rows: list[tuple[Example, _Text]] = []
        self._having: dict[Element, list[int]] = defaultdict(list)
        self._rarely: dict[Element, list[int]] = defaultdict(list)  # among their rarest

    def add(self, row: Example, text: _Text) -> None:
        place = len(self._rows)
        for element in text.bag:
            self._having[element].append(place)
        for element in self._rarest(text):
            self._rarely[element].append(place)
        self._rows.append((row, text))

    def nearest(self, text: _Text) -> tuple[float, Example] | None:
        """The most similar row and how similar it is; of equals the earliest; None if none is."""
        places = {place for element in self._rarest(text) for place in self._having[element]}
        places.update(place for element in text.bag for place in self._rarely[element])
        best: tuple[float, Example] | None = None
        for place in sorted(places):
            row, earlier = self._rows[place]
            similarity = _similarity(earlier, text)
            if similarity >= SIMILARITY_MIN and (best is None or similarity > best[0]):
                best = similarity, row
        return best

    def _rarest(self, text: _Text) -> list[Element]:
        ranked = sorted(text.bag, key=lambda element: (self._frequency[element], element))
        return ranked[: len(ranked) - int(SIMILARITY_MIN * len(ranked)) + 1]


def _similarity(earlier: _Text, later: _Text) -> float:
    shorter, longer = sorted((len(earlier.words), len(later.words)))
    shared = len(earlier.bag & later.bag)
    if shorter >= SIZE_RATIO_MIN * longer:
        return shared / shorter
    if len(earlier.words) > shorter or shared < SIMILARITY_MIN * shorter:
        return 0.0
    return _in_order(earlier.words, later.words) / shorter


def _in_order(one: Sequence[str], other: Sequence[str]) -> int:
    """How many words both have in the same order, at most (Hunt and Szymanski, CACM 1977)."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, word in enumerate(other):
        places[word].append(place)
    ends: list[int] = []  # where the best run of each length ends soonest
    for word in one:
        for place in reversed(places.get(word, ())):
            run = bisect_left(ends, place)
            ends[run : run + 1] = [place]
    return len(ends)


def _when(row: Example) -> datetime:
    """When a row was contributed; a day without a time is its first moment, in UTC."""
    try:
        when = datetime.fromisoformat(row.contributed_at)
    except ValueError as problem:
        raise ArtifactError(f"row {row.id}: '{row.contributed_at}' is no ISO date") from problem
    return when if when.tzinfo else when.replace(tzinfo=UTC)
