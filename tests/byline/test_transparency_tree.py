"""RFC 6962's tree: root(D[n]) commits to every leaf, its order and their number.

Inclusion: PATH(m, D[n]) leads from leaf m to the root, and from nothing else to it. Consistency:
PROOF(m, D[n]) exists only where D[n] begins with D[m]. Held against the RFC's vectors (those of
certificate-transparency) and pymerkle, which is nobody of ours.
"""

import itertools
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from byline.transparency import tree
from byline.transparency.tiles import (
    WIDTH,
    bundle_bytes,
    hashes_of,
    leaves_of,
    nodes_in_tiles,
    tile_path,
    tiles_between,
)

SIZE_MAX = 300
VECTORS = [
    bytes.fromhex(each)
    for each in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
VECTOR_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]

LEAVES = [tree.leaf_hash(str(n).encode()) for n in range(SIZE_MAX)]
NODES = tree.nodes_over(LEAVES)
ROOTS = [tree.root_of(size, NODES) for size in range(SIZE_MAX + 1)]
sizes = st.integers(1, SIZE_MAX)


def test_roots_are_those_of_the_rfcs_vectors() -> None:
    node = tree.nodes_over([tree.leaf_hash(data) for data in VECTORS])
    assert [tree.root_of(size, node).hex() for size in range(1, 9)] == VECTOR_ROOTS
    assert tree.root_of(0, node) == sha256(b"").digest()


def test_roots_and_paths_are_pymerkles_for_every_size() -> None:
    other = InmemoryTree(algorithm="sha256")
    for size in range(1, SIZE_MAX + 1):
        other.append_entry(str(size - 1).encode())
        assert other.get_root() == ROOTS[size]
    for index in range(SIZE_MAX):
        theirs = other.prove_inclusion(index + 1).serialize()["path"]
        assert [bytes.fromhex(each) for each in theirs][1:] == tree.inclusion(
            index, SIZE_MAX, NODES
        )


def test_every_leaf_of_every_size_is_included_where_it_stands() -> None:
    for size in range(1, SIZE_MAX + 1):
        for index in range(size):
            path = tree.inclusion(index, size, NODES)
            assert tree.root_by_inclusion(LEAVES[index], index, size, path) == ROOTS[size]


def test_every_size_is_consistent_with_every_smaller_one() -> None:
    for old, size in itertools.combinations_with_replacement(range(SIZE_MAX + 1), 2):
        path = tree.consistency(old, size, NODES)
        assert tree.is_consistent(old, size, ROOTS[old], ROOTS[size], path), (old, size)


def wrong_paths(path: list[bytes]) -> list[list[bytes]]:
    """Every path that differs in one hash, lacks one, has one more, or has two swapped."""
    changed = [
        [*path[:at], bytes([each[0] ^ 1]) + each[1:], *path[at + 1 :]]
        for at, each in enumerate(path)
    ]
    lacking = [[*path[:at], *path[at + 1 :]] for at in range(len(path))]
    longer = [[*path[:at], bytes(32), *path[at:]] for at in range(len(path) + 1)]
    swapped = [[*path[:at], path[at + 1], path[at], *path[at + 2 :]] for at in range(len(path) - 1)]
    return changed + lacking + longer + swapped


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 8, 50])
def test_no_other_path_leaf_place_or_size_is_included(size: int) -> None:
    for index in range(size):
        path = tree.inclusion(index, size, NODES)
        for wrong in wrong_paths(path):
            assert not tree.is_included(LEAVES[index], index, size, wrong, ROOTS[size])
        for other in range(-1, size + 2):
            right = other == index
            assert tree.is_included(LEAVES[index], other, size, path, ROOTS[size]) == right
            if 0 <= other < size:
                assert tree.is_included(LEAVES[other], index, size, path, ROOTS[size]) == right
                assert tree.is_included(LEAVES[index], index, size, path, ROOTS[other]) is False


@given(size=sizes, data=st.data())
@settings(max_examples=150)
def test_no_wrong_path_is_consistent(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size))
    path = tree.consistency(old, size, NODES)
    for wrong in wrong_paths(path):
        assert not tree.is_consistent(old, size, ROOTS[old], ROOTS[size], wrong)
    other = data.draw(sizes.filter(lambda each: each != old))
    assert not tree.is_consistent(old, size, ROOTS[other], ROOTS[size], path)
    if other != size:
        assert not tree.is_consistent(old, size, ROOTS[old], ROOTS[other], path)


def test_leaves_and_nodes_are_told_apart() -> None:
    left, right = LEAVES[:2]
    assert tree.node_hash(left, right) != tree.leaf_hash(left + right)


def test_what_is_outside_the_tree_is_refused() -> None:
    with pytest.raises(ValueError, match="no leaf 3"):
        tree.inclusion(3, 3, NODES)
    with pytest.raises(ValueError, match="never had 4"):
        tree.consistency(4, 3, NODES)
    assert tree.root_by_inclusion(LEAVES[0], 3, 3, []) is None
    assert not tree.is_consistent(0, 3, ROOTS[1], ROOTS[3], [])


@pytest.mark.parametrize(
    ("level", "index", "width", "path"),
    [
        (0, 0, WIDTH, "tile/0/000"),
        (0, 1234067, WIDTH, "tile/0/x001/x234/067"),
        (1, 0, 17, "tile/1/000.p/17"),
        (2, 999, 1, "tile/2/999.p/1"),
        (0, 1000, WIDTH, "tile/0/x001/000"),
        ("entries", 273, 112, "tile/entries/273.p/112"),
    ],
)
def test_tiles_lie_where_c2sp_says(level: int | str, index: int, width: int, path: str) -> None:
    assert tile_path(level, index, width) == path


def test_a_tree_of_70000_has_the_tiles_of_the_specification() -> None:
    tiles = list(tiles_between(0, 70_000))
    full = [(level, index) for level, index, width in tiles if width == WIDTH]
    partial = [each for each in tiles if each[2] != WIDTH]
    assert full == [*((0, index) for index in range(273)), (1, 0)]
    assert partial == [(0, 273, 112), (1, 1, 17), (2, 0, 1)]
    assert list(tiles_between(0, 256)) == [(0, 0, 256), (1, 0, 1)]


@given(cuts=st.lists(st.integers(1, 70_000), min_size=1, max_size=6))
@settings(max_examples=30)
def test_growing_in_steps_makes_every_tile_of_each_step(cuts: list[int]) -> None:
    made: set[tuple[int, int, int]] = set()
    steps = sorted(set(cuts))
    for old, size in itertools.pairwise([0, *steps]):
        made.update(tiles_between(old, size))
        assert made >= set(tiles_between(0, size))
        assert list(tiles_between(size, size)) == []


def test_proofs_come_out_of_tiles_as_out_of_memory() -> None:
    leaves = [tree.leaf_hash(str(n).encode()) for n in range(66_000)]
    memory = tree.nodes_over(leaves)
    for size in (1, 255, 256, 257, 65_535, 65_536, 66_000):
        files = {
            tile_path(level, index, width): b"".join(
                memory(8 * level, at) for at in range(index * WIDTH, index * WIDTH + width)
            )
            for level, index, width in tiles_between(0, size)
        }
        node = nodes_in_tiles(size, files.get)
        assert tree.root_of(size, node) == tree.root_of(size, memory)
        for index in {0, size // 2, size - 1}:
            assert tree.inclusion(index, size, node) == tree.inclusion(index, size, memory)
        assert tree.consistency(size // 2, size, node) == tree.consistency(size // 2, size, memory)


def test_a_partial_tile_may_have_been_replaced_by_the_full_one() -> None:
    full = {"tile/0/000": b"".join(LEAVES[:WIDTH])}
    assert tree.root_of(200, nodes_in_tiles(200, full.get)) == ROOTS[200]
    with pytest.raises(ValueError, match=r"the log lacks tile/0/000\.p/200"):
        tree.root_of(200, nodes_in_tiles(200, lambda _: None))


@given(leaves=st.lists(st.binary(max_size=600), max_size=10))
def test_bundles_give_back_their_leaves(leaves: list[bytes]) -> None:
    bundle = bundle_bytes(leaves)
    assert leaves_of(bundle) == leaves
    if leaves:
        with pytest.raises(ValueError, match="ends within a leaf"):
            leaves_of(bundle[:-1])


def test_a_tile_gives_back_its_hashes() -> None:
    assert hashes_of(b"".join(LEAVES[:5])) == LEAVES[:5]
