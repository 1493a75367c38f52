"""Attack worlds: what the attacker sends is added or changed, and nothing of anybody else's.

What production does with it is decided by the same code as in production: near-copies up to one
word in five are found, and a world whose attack is found trains what the honest world trains.
"""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byline.attacks.texts import edited, inflated, junk, outlying, padded
from byline.attacks.worlds import NEWCOMER, Arena, Attack, World, design_arena
from byline.datasets.copies import find_copies
from byline.errors import InvalidInput
from byline.records import Example
from tests.byline.attack_world import PROFILE, attacked_rows, made_up_arena

WORDS = st.lists(st.sampled_from([f"w{n}" for n in range(300)]), min_size=8, max_size=40)
VOCABULARY = [f"v{n}" for n in range(50)]


@pytest.fixture(scope="module")
def arena() -> Arena:
    return made_up_arena()


def of(arena: Arena, attack: Attack) -> list[World]:
    return [world for world in arena.worlds if world.attack is attack]


def test_every_attack_is_there_and_the_design_repeats(arena: Arena) -> None:
    assert {world.attack for world in arena.worlds} == set(Attack)
    assert made_up_arena() == arena
    assert arena.owner != arena.attacker


def test_nobody_elses_rows_are_changed(arena: Arena) -> None:
    honest = {row for row in arena.worlds[0].rows if row.contributor != arena.attacker}
    for world in arena.worlds:
        assert honest <= set(world.rows)
        others = set(world.rows) - honest
        assert {row.contributor for row in others} <= {arena.attacker, *world.accounts}


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2])
def test_near_copies_up_to_a_word_in_five_change_nothing_that_is_trained(
    arena: Arena, rate: float
) -> None:
    found = [world for world in of(arena, Attack.COPIES) if world.edit_rate == rate]
    assert [world.sent for world in found] == [1, 3, 9]
    assert {world.training for world in found} == {arena.worlds[0].training}


def test_padded_copies_change_nothing_that_is_trained(arena: Arena) -> None:
    assert {world.training for world in of(arena, Attack.PADDED)} == {arena.worlds[0].training}


def test_near_copies_beyond_it_are_trained(arena: Arena) -> None:
    """The attack is measured where it works, not only where it is found."""
    for world in [each for each in of(arena, Attack.COPIES) if each.edit_rate in (0.3, 0.5)]:
        assert len(world.trained) == len(arena.worlds[0].trained) + world.sent


def test_copies_under_a_second_account_are_the_same_training(arena: Arena) -> None:
    pairs = zip(of(arena, Attack.COPIES), of(arena, Attack.COPIES_ASIDE), strict=True)
    for one, aside in pairs:
        assert aside.training == one.training
        assert aside.accounts == (arena.attacker, NEWCOMER)
        theirs = [row.id for row in aside.rows if row.contributor == NEWCOMER]
        assert len(theirs) == aside.sent
        assert all(row.startswith("copy:") for row in theirs)


def test_a_copy_comes_after_its_original(arena: Arena) -> None:
    for world in of(arena, Attack.COPIES):
        assert {copy.contributor for copy in find_copies(world.rows)} <= {arena.attacker}


def test_splitting_moves_rows_to_accounts_and_trains_the_same(arena: Arena) -> None:
    honest = [row.id for row in arena.worlds[0].rows if row.contributor == arena.attacker]
    for world in of(arena, Attack.SPLIT):
        assert world.training == arena.worlds[0].training
        assert len(world.accounts) == world.sent
        theirs = [row.id for row in world.rows if row.contributor in world.accounts]
        assert sorted(theirs) == sorted(honest)
        assert {row.contributor for row in world.rows} >= set(world.accounts)
    assert [world.sent for world in of(arena, Attack.SPLIT)][-1] == len(honest)


def test_outliers_and_inflated_rows_replace_the_attackers_own(arena: Arena) -> None:
    for attack in (Attack.OUTLIERS, Attack.INFLATED):
        (world,) = of(arena, attack)
        assert len(world.rows) == len(arena.worlds[0].rows)
        own = [row for row in arena.worlds[0].rows if row.contributor == arena.attacker]
        assert not {row.id for row in own} & set(world.trained)


def test_a_newcomer_with_copies_alone_has_no_row_that_is_trained(arena: Arena) -> None:
    (world,) = of(arena, Attack.ZERO_WEIGHT)
    theirs = [row for row in world.rows if row.contributor == NEWCOMER]
    assert len(theirs) == world.sent > 1
    assert world.training == arena.worlds[0].training


def test_the_study_holds_what_some_world_trains_and_each_row_is_a_player(arena: Arena) -> None:
    assert {row.id for row in arena.study.rows} == {
        row for world in arena.worlds for row in world.trained
    }
    assert arena.study.contributors == tuple(row.id for row in arena.study.rows)
    assert arena.study.contributor_of == tuple(range(len(arena.study.rows)))


def test_quick_takes_some_of_the_same_worlds(arena: Arena) -> None:
    quick = arena.taken(quick=True)
    assert arena.taken(quick=False) == arena.worlds
    assert quick[0] is arena.worlds[0]
    free = {Attack.HONEST, Attack.SPLIT, Attack.WASH, Attack.ZERO_WEIGHT}
    assert {world.attack for world in quick} == {*free, Attack.COPIES, Attack.COPIES_ASIDE}
    assert {w.training for w in quick if w.attack in free} == {arena.worlds[0].training}
    assert {world.edit_rate for world in quick} == {None, 0.0, 0.1, 0.2, 0.3}
    assert len({world.training for world in quick}) == 4


def test_honest_rows_to_compare_with_are_nobodys_question(arena: Arena) -> None:
    honest = {row.id for row in arena.worlds[0].rows}
    asked = {question.prompt for question in arena.study.questions}
    more = [row for world in of(arena, Attack.HONEST_ROWS) for row in world.rows]
    added = [row for row in more if row.id not in honest]
    assert added
    assert not asked & {row.prompt for row in added}
    assert {row.contributor for row in added} == {arena.attacker}


def test_a_row_that_is_called_like_an_attackers_is_refused() -> None:
    rows = attacked_rows()
    with pytest.raises(InvalidInput, match="attackers"):
        design_arena("taken", [replace(row, id=_called(row)) for row in rows], 1, PROFILE)


def _called(row: Example) -> str:
    return row.id.replace("dan-", "copy:0.5:")


@given(WORDS, st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.5, 0.9]), st.integers())
def test_so_many_words_are_exchanged_and_the_rest_stay_in_place(
    words: list[str], rate: float, seed: int
) -> None:
    made = edited(" ".join(words), rate, VOCABULARY, random.Random(seed)).split()
    assert len(made) == len(words)
    changed = sum(one != other for one, other in zip(words, made, strict=True))
    assert changed == int(rate * len(words))
    row = Example("a", "owner", "", "", "2020-01-01", "p", " ".join(words))
    copy = replace(row, id="b", contributor="thief", contributed_at="2021-01-01")
    found = find_copies([row, replace(copy, completion=" ".join(made))])
    assert [each.id for each in found] == (["b"] if changed <= 0.22 * len(words) else [])


def test_the_other_texts_are_what_they_are_called() -> None:
    text = "one two three four five six seven eight"
    chance = random.Random(1)
    assert inflated(text).split() == text.split() * 3
    assert padded(text, VOCABULARY, chance).startswith(text)
    assert len(padded(text, VOCABULARY, chance).split()) > 2 * len(text.split())
    assert set(junk(text, VOCABULARY, chance).split()) <= set(VOCABULARY)
    strange = outlying(text, chance).split()
    assert strange[0::2] == text.split()[0::2]
    assert not set(strange[1::2]) & set(text.split())
