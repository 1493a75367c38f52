"""The Merkle tree of RFC 6962, section 2.1: hashes, roots, inclusion and consistency proofs.

A tree is asked for through `NodeAt`, so it may lie in memory or in tiles: only perfect subtrees are
ever asked for, and those never change while a log grows.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TypeAlias

# The hash of leaves [index << level, (index + 1) << level), all of which the tree has.
NodeAt: TypeAlias = Callable[[int, int], bytes]

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """A leaf's hash: what it says can't be taken for a node."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of the node above two others."""
    return sha256(b"\x01" + left + right).digest()


def root_of(size: int, node: NodeAt) -> bytes:
    """The root over the first `size` leaves."""
    return _range(0, size, node) if size else EMPTY_ROOT


def inclusion(index: int, size: int, node: NodeAt) -> list[bytes]:
    """PATH(index, D[size]): the siblings from the leaf up. Raises ValueError outside the tree."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range(middle, end, node))
            end = middle
        else:
            path.append(_range(start, middle, node))
            start = middle
    return path[::-1]


def consistency(old: int, size: int, node: NodeAt) -> list[bytes]:
    """PROOF(old, D[size]), RFC 6962, 2.1.2; empty from nothing and to the same size."""
    if not 0 <= old <= size:
        raise ValueError(f"a tree of {size} leaves never had {old}")
    if old in (0, size):
        return []
    path: list[bytes] = []
    start, end, is_whole = 0, size, True  # is the old tree's part here a whole subtree from 0?
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(_range(middle, end, node))
            end = middle
        else:
            path.append(_range(start, middle, node))
            start, is_whole = middle, False
    if not is_whole:
        path.append(_range(start, end, node))
    return path[::-1]


def root_by_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that the path leads to from a leaf's hash; None if it is of the wrong length.

    RFC 9162, 2.1.3.2.
    """
    if not 0 <= index < size:
        return None
    last, found = size - 1, leaf
    for sibling in path:
        if last == 0:
            return None
        if index & 1 or index == last:
            found = node_hash(sibling, found)
            while not index & 1 and index:  # promoted: it had no sibling here
                index, last = index >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        index, last = index >> 1, last >> 1
    return found if last == 0 else None


def is_included(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Does the path show that the leaf with this hash stands at `index` under `root`?"""
    return root_by_inclusion(leaf, index, size, path) == root


def is_consistent(old: int, size: int, old_root: bytes, root: bytes, path: Sequence[bytes]) -> bool:
    """Does the path show that the tree begins with the old one? RFC 9162, 2.1.4.2."""
    if old == size:
        return not path and old_root == root
    if old == 0:
        return not path and old_root == EMPTY_ROOT
    if not 0 < old < size or not path:
        return False
    steps = list(path) if old & (old - 1) else [old_root, *path]
    first, last = old - 1, size - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    found_old = found = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if first & 1 or first == last:
            found_old, found = node_hash(step, found_old), node_hash(step, found)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            found = node_hash(found, step)
        first, last = first >> 1, last >> 1
    return last == 0 and found_old == old_root and found == root


def nodes_over(hashes: Sequence[bytes]) -> NodeAt:
    """The tree over leaf hashes in memory."""
    levels = [list(hashes)]
    while len(below := levels[-1]) > 1:
        levels.append([node_hash(*below[i : i + 2]) for i in range(0, len(below) - 1, 2)])
    return lambda level, index: levels[level][index]


def _split(size: int) -> int:
    """The largest power of two that is less than `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def _range(start: int, end: int, node: NodeAt) -> bytes:
    """The hash over leaves [start, end), which begin where a subtree of theirs may begin."""
    size = end - start
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return node(level, start >> level)
    middle = start + _split(size)
    return node_hash(_range(start, middle, node), _range(middle, end, node))
