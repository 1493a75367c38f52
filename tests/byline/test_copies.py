"""Copies of earlier rows are found, whoever sends them and in whatever order rows come.

For all rows: the order decides nothing; every copy is similar to the canonical row that owns it,
which is earlier; no two canonical rows are similar; and a row that comes later changes nothing of
what was decided before. Each edit of the attack is tried on real text.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byline.attribution import row_claims
from byline.datasets import SOURCES
from byline.datasets.copies import (
    SIMILARITY_MIN,
    WORDS_MIN,
    find_copies,
    normal_form,
    owners,
    without_copies,
)
from byline.datasets.packages import find_package
from byline.datasets.selection import selected, usable
from byline.errors import ArtifactError
from byline.records import Example

OWNER, ATTACKER = "alice", "mallory"
TEXT = (
    "The product writes to a buffer using an index or pointer that references a memory location "
    "prior to the beginning of the buffer."
)


def row(name: str, completion: str, who: str = OWNER, day: int = 1, prompt: str = "?") -> Example:
    return Example(
        id=name, contributor=who, licence="l", source="s", contributed_at=f"2026-11-{day:02}",
        prompt=prompt, completion=completion,
    )  # fmt: skip


def shouted(words: list[str], chance: random.Random) -> list[str]:
    return [word.upper() for word in words]


def punctuated(words: list[str], chance: random.Random) -> list[str]:
    return [f"{word};" for word in words]


def swapped(words: list[str], chance: random.Random) -> list[str]:
    place = chance.randrange(len(words) - 1)
    return [*words[:place], words[place + 1], words[place], *words[place + 2 :]]


def appended(words: list[str], chance: random.Random) -> list[str]:
    return [*words, "indeed"]


def with_a_synonym(words: list[str], chance: random.Random) -> list[str]:
    place = chance.randrange(len(words))
    return [*words[:place], "synonymous", *words[place + 1 :]]


def padded(words: list[str], chance: random.Random) -> list[str]:
    return [*words, *(f"filler{number}" for number in range(len(words)))]


def a_fifth_replaced(words: list[str], chance: random.Random) -> list[str]:
    places = set(chance.sample(range(len(words)), len(words) // 5))
    return [f"other{place}" if place in places else word for place, word in enumerate(words)]


def buried(words: list[str], chance: random.Random) -> list[str]:
    """Each word behind two to four fillers: the copy is three times as long and more."""
    return [
        each
        for place, word in enumerate(words)
        for each in (*(f"filler{place}-{n}" for n in range(chance.randint(2, 4))), word)
    ]


EDITS = (shouted, punctuated, swapped, appended, with_a_synonym, padded, a_fifth_replaced, buried)
Edit = Callable[[list[str], random.Random], list[str]]

# Pieces of one line of words: they often hold each other.
LINE = [f"w{number % 25}" for number in range(40)]
texts = st.tuples(st.integers(0, 30), st.integers(1, 30)).map(
    lambda piece: " ".join(LINE[piece[0] : piece[0] + piece[1]])
)
tables = st.lists(
    st.tuples(texts, st.sampled_from([OWNER, "bob", ATTACKER]), st.integers(1, 4), texts),
    max_size=12,
).map(
    lambda given: [
        row(f"row-{place}", text, who, day, prompt)
        for place, (text, who, day, prompt) in enumerate(given)
    ]
)


@given(tables, st.randoms())
def test_the_order_of_rows_decides_nothing(table: list[Example], chance: random.Random) -> None:
    shuffled = list(table)
    chance.shuffle(shuffled)
    assert find_copies(shuffled) == find_copies(table)


@given(tables)
def test_a_copy_is_owned_by_an_earlier_canonical_row_that_says_nearly_the_same(
    table: list[Example],
) -> None:
    by_id = {each.id: each for each in table}
    found = {copy.id: copy for copy in find_copies(table)}
    for copy in found.values():
        owner, own = by_id[copy.of], by_id[copy.id]
        assert copy.of not in found
        assert (owner.contributed_at, owner.id) < (own.contributed_at, own.id)
        assert (copy.owner, copy.contributor) == (owner.contributor, own.contributor)
        assert copy.similarity >= SIMILARITY_MIN


def similar(later: Example, earlier: Example) -> bool:
    """The definition, without an index."""
    mine, theirs = normal_form(later.completion), normal_form(earlier.completion)
    shorter, longer = sorted((mine, theirs), key=len)
    if len(mine) < WORDS_MIN:
        same = normal_form(later.prompt) == normal_form(earlier.prompt)
        return same and mine == theirs
    if len(theirs) < WORDS_MIN:
        return False
    shared = (Counter(shorter) & Counter(longer)).total()
    if 2 * len(shorter) < len(longer):
        shared = in_order(theirs, mine) if theirs is shorter else 0
    return shared >= SIMILARITY_MIN * len(shorter)


def in_order(one: Sequence[str], other: Sequence[str]) -> int:
    """The longest common subsequence, by the table."""
    line = [0] * (len(other) + 1)
    for word in one:
        above = line[:]
        for place, theirs in enumerate(other):
            same = above[place] + 1 if word == theirs else 0
            line[place + 1] = max(line[place], above[place + 1], same)
    return line[-1]


@given(tables)
def test_the_index_misses_no_pair(table: list[Example]) -> None:
    earliest_first = sorted(table, key=lambda each: (each.contributed_at, each.id))
    kept: list[Example] = []
    for each in earliest_first:
        if not any(similar(each, other) for other in kept):
            kept.append(each)
    left_out = {copy.id for copy in find_copies(table)}
    assert {each.id for each in table} - left_out == {each.id for each in kept}
    assert without_copies(table) == tuple(each for each in table if each.id not in left_out)


@given(tables, texts, texts)
def test_what_comes_later_changes_nothing_of_what_was_decided(
    table: list[Example], text: str, prompt: str
) -> None:
    later = row("later", text, ATTACKER, 9, prompt)
    before, after = owners(table), owners([*table, later])
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("edit", EDITS)
def test_each_edit_of_a_copy_is_seen_through(edit: Edit) -> None:
    chance = random.Random(3)
    for _ in range(20):
        text = " ".join(edit(TEXT.split(), chance))
        (copy,) = find_copies([row("own", TEXT), row("copied", text, ATTACKER, 2, "another")])
        assert (copy.id, copy.of, copy.owner) == ("copied", "own", OWNER)


@pytest.mark.parametrize("copies", [1, 3, 9])
def test_near_copies_of_real_rows_own_nothing(copies: int) -> None:
    """Of each real row so many copies, each edited in one or in several ways."""
    honest = real_rows("cybersecurity")
    chance = random.Random(copies)
    attack = [
        replace(
            own, id=f"{own.id}-{number}", contributor=ATTACKER, prompt=f"Tell me {number}",
            contributed_at="2026-11-22",
            completion=edited(own.completion, EDITS[:5], chance),
        )
        for own in honest
        for number in range(copies)
    ]  # fmt: skip
    found = find_copies([*honest, *attack])
    assert {copy.id for copy in found} == {each.id for each in attack}
    assert all(copy.id.startswith(copy.of) for copy in found)
    owner_of = owners([*honest, *attack])
    claims = row_claims((owner_of[each.id], 1.0) for each in (*honest, *attack))
    assert claims == row_claims((each.contributor, 1.0) for each in honest)


def edited(text: str, edits: Sequence[Edit], chance: random.Random) -> str:
    """One or two of the edits, at most one of which replaces a word."""
    told = text.split()
    for edit in chance.sample(edits, chance.randint(1, 2)):
        told = edit(told, chance)
    return " ".join(told)


def real_rows(name: str) -> list[Example]:
    source = SOURCES[name]
    rows = selected(usable(source.read(find_package(source.package))))
    return [contribution.example for contribution in rows]


@pytest.mark.parametrize(("name", "copies"), [("healthcare", 2), ("cybersecurity", 0),
                                              ("compliance", 2)])  # fmt: skip
def test_of_our_own_rows_none_is_taken_from_another_contributor(name: str, copies: int) -> None:
    """Those found differ in a term or a clause and have one contributor each: docs/datasets.md."""
    found = find_copies(real_rows(name))
    assert len(found) == copies
    assert all(copy.contributor == copy.owner for copy in found)


def test_honest_claims_with_the_same_short_answer_are_not_merged() -> None:
    one = row("one", "Yes, it is.", OWNER, 1, "Is AES-256 a block cipher?")
    other = row("two", "Yes, it is.", "bob", 2, "Is SHA-256 a hash function?")
    assert find_copies([one, other]) == ()
    same = row("three", "yes - it IS", ATTACKER, 3, "is aes 256 a block cipher")
    (copy,) = find_copies([one, other, same])
    assert (copy.id, copy.of) == ("three", "one")


def test_the_earliest_owns_it_and_a_time_of_day_counts() -> None:
    morning = replace(row("z", TEXT, OWNER), contributed_at="2026-11-22T08:00:00+01:00")
    noon = replace(row("a", TEXT, ATTACKER), contributed_at="2026-11-22T08:00:00Z")
    (copy,) = find_copies([noon, morning])
    assert copy.owner == OWNER


def test_a_row_without_a_date_is_refused() -> None:
    with pytest.raises(ArtifactError, match="'yesterday' is no ISO date"):
        find_copies([replace(row("a", TEXT), contributed_at="yesterday")])
