"""The sum tree: its root commits to every leg and to the sums, and one leg opens by itself.

For any legs and any of them, the path leads to the root with the whole sums, and no change of the
leg, of its place, of a sibling's hash or sums, or of two sums that keeps their total, does.
"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byline.errors import ProofRefused
from byline.records import JournalEntry, Leg
from byline.transparency.leaves import (
    NO_LEG,
    ChainHead,
    EntrySalts,
    Salts,
    entry_leaf,
    heads_after,
    places_of,
    shares_of,
)
from byline.transparency.legs import (
    NOTHING,
    SUM_MAX,
    LegPath,
    SumNode,
    Sums,
    above,
    leg_node,
    path_of_leg,
    root_by_path,
    root_of_legs,
    sums_of,
)

KINDS = ("app:a", "hold:h", "contrib:c", "platform", "open:o", "unattributed:u")
SALTS = EntrySalts(bytes(32))
amounts = st.integers(-(10**12), 10**12).filter(bool)
legs = st.lists(st.tuples(st.sampled_from(KINDS), amounts), min_size=1, max_size=20)


def nodes_of(given_legs: list[tuple[str, int]]) -> list[SumNode]:
    return [
        leg_node(f"{at} {account} {nano}".encode(), sums_of(account, nano))
        for at, (account, nano) in enumerate(given_legs)
    ]


def entry(*given_legs: tuple[str, int], seq: int = 1, kind: str = "settle") -> JournalEntry:
    key = f"0190-{seq}/settle/0"
    made = tuple(Leg(account, nano) for account, nano in given_legs)
    return JournalEntry(seq, key, kind, None, None, 1, "p", "ab" * 32, 0, made)


@given(legs)
def test_the_root_has_the_sums_of_all_legs(given_legs: list[tuple[str, int]]) -> None:
    root = root_of_legs(nodes_of(given_legs))
    assert root.sums.debits == -sum(nano for _, nano in given_legs if nano < 0)
    assert root.sums.credits == sum(nano for _, nano in given_legs if nano > 0)
    assert root.sums.paid == sum(
        nano
        for account, nano in given_legs
        if nano > 0 and not account.startswith(("app:", "hold:"))
    )


@given(legs, st.data())
def test_a_leg_opens_by_its_path_and_by_nothing_else(
    given_legs: list[tuple[str, int]], data: st.DataObject
) -> None:
    nodes = nodes_of(given_legs)
    root = root_of_legs(nodes)
    index = data.draw(st.integers(0, len(nodes) - 1))
    path = path_of_leg(nodes, index)
    assert root_by_path(nodes[index], path) == root
    other_leg = leg_node(b"another", nodes[index].sums)
    assert root_by_path(other_leg, path).hash != root.hash
    for wrong in wrong_paths(path):
        try:
            assert root_by_path(nodes[index], wrong).hash != root.hash
        except ProofRefused:
            continue


def wrong_paths(path: LegPath) -> list[LegPath]:
    """One thing changed each: place, count, length, a hash, a sum, a sum moved to another."""
    index, count, siblings = path.index, path.count, path.siblings
    found = [LegPath(index + 1, count, siblings), LegPath(index, count, (*siblings, NOTHING))]
    found += [LegPath(index ^ 1, count, siblings)] if siblings else []
    for at, (hash_, sums) in enumerate(siblings):
        rest = siblings[:at], siblings[at + 1 :]
        found.append(LegPath(index, count, rest[0] + rest[1]))
        changed = [SumNode(bytes([hash_[0] ^ 1]) + hash_[1:], sums)]
        changed += [
            SumNode(hash_, sums._replace(**{name: getattr(sums, name) + 1}))
            for name in Sums._fields
        ]
        found += [LegPath(index, count, (*rest[0], each, *rest[1])) for each in changed]
    return found


def test_sums_that_move_between_siblings_change_the_root() -> None:
    """Where only the total were hashed (Maxwell's first form), these two would be one."""
    one, other = SumNode(b"a" * 32, Sums(0, 7, 7)), SumNode(b"b" * 32, Sums(0, 3, 3))
    moved = above(one._replace(sums=Sums(0, 2, 2)), other._replace(sums=Sums(0, 8, 8)))
    assert above(one, other).sums == moved.sums
    assert above(one, other).hash != moved.hash


@pytest.mark.parametrize("sums", [Sums(-1, 0, 0), Sums(0, -1, 0), Sums(0, 0, -1)])
def test_a_negative_sum_is_refused(sums: Sums) -> None:
    good = leg_node(b"x", Sums(5, 5, 5))
    for pair in ((good, SumNode(b"y" * 32, sums)), (SumNode(b"y" * 32, sums), good)):
        with pytest.raises(ProofRefused, match="negative"):
            above(*pair)


def test_a_sum_that_is_too_large_is_refused_and_the_largest_is_not() -> None:
    most = SumNode(b"y" * 32, Sums(SUM_MAX, 0, 0))
    assert above(most, NOTHING).sums.debits == SUM_MAX
    with pytest.raises(ProofRefused, match="too large"):
        above(most, leg_node(b"x", Sums(1, 0, 0)))


def test_an_entry_without_legs_has_an_empty_root() -> None:
    leaf = entry_leaf(entry(kind="capture_late"), (), SALTS)
    assert json.loads(leaf.data)["legs"] == {
        "count": 0, "credits": "0", "debits": "0", "paid": "0", "root": NOTHING.hash.hex(),
    }  # fmt: skip


def test_a_path_of_a_leg_that_is_not_there_is_refused() -> None:
    with pytest.raises(ProofRefused, match="no leg 1"):
        root_by_path(leg_node(b"x", Sums()), LegPath(1, 1, ()))
    with pytest.raises(ProofRefused, match="too short"):
        root_by_path(leg_node(b"x", Sums()), LegPath(0, 2, ()))
    with pytest.raises(ProofRefused, match="too long"):
        root_by_path(leg_node(b"x", Sums()), LegPath(0, 1, (NOTHING,)))


@given(st.lists(st.lists(st.sampled_from(KINDS), unique=True, max_size=5), max_size=15))
def test_every_account_has_one_chain_without_gaps(accounts: list[list[str]]) -> None:
    heads: dict[str, ChainHead] = {}
    chains: dict[str, list[tuple[int, bytes, bytes]]] = {}
    for seq, names in enumerate(accounts, start=1):
        made = entry(*((name, 1) for name in names), seq=seq)
        leaf = entry_leaf(made, places_of(made, heads, {}), SALTS)
        for leg, place, node in zip(made.legs, leaf.places, leaf.nodes, strict=True):
            chains.setdefault(leg.account, []).append((place.n, place.prev, node.hash))
        heads.update(heads_after(made, leaf))
    for account, chain in chains.items():
        if account.startswith(("hold:", "open:")):
            assert {(n, prev) for n, prev, _ in chain} == {(0, NO_LEG)}
            assert account not in heads
            continue
        assert [n for n, _, _ in chain] == list(range(1, len(chain) + 1))
        assert [prev for _, prev, _ in chain] == [NO_LEG, *(h for _, _, h in chain[:-1])]


def test_a_leg_says_its_share_of_the_pool() -> None:
    shares = shares_of(
        {
            "adapter_version": "u", "unattributed_ppb": 400_000_000,
            "shares": [{"contributor": "c", "share_ppb": 600_000_000}],
        }
    )  # fmt: skip
    made = entry(("open:o", -10), ("contrib:c", 6), ("unattributed:u", 4))
    leaf = entry_leaf(made, places_of(made, {}, shares), SALTS)
    said = [json.loads(text)["ppb"] for text in leaf.texts]
    assert said == [None, 600_000_000, 400_000_000]
    assert shares_of({"shares": None}) == {}


def test_the_same_leg_has_another_salt_in_each_entry_and_log() -> None:
    one, other = entry(("host", 5), seq=1), entry(("host", 5), seq=2)
    leaves = [
        entry_leaf(each, places_of(each, {}, {}), salts.of_entry(each.key))
        for each in (one, other)
        for salts in (Salts(bytes(32)), Salts(bytes([1]) * 32))
    ]
    assert len({json.loads(leaf.texts[0])["salt"] for leaf in leaves}) == 4
    again = entry_leaf(one, places_of(one, {}, {}), Salts(bytes(32)).of_entry(one.key))
    assert again.data == leaves[0].data
