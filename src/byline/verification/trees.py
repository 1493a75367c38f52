"""Merkle trees (RFC 6962, 2.1): the log's, and that of an entry's legs; only their nodes differ."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TypeVar

from .reading import require

EMPTY_ROOT = sha256(b"").digest()
Node = TypeVar("Node")


def node_hash(left: bytes, right: bytes) -> bytes:
    """A node of the log."""
    return sha256(b"\x01" + left + right).digest()


def split(size: int) -> int:
    """How many leaves are left of the root: the largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def fold(
    leaf: Node, index: int, size: int, path: Sequence[Node], join: Callable[[Node, Node], Node]
) -> Node:
    """The root to which a path leads; its last node is the root's child."""
    require(0 <= index < size and bool(path) == (size > 1), "a path does not fit its tree")
    if size == 1:
        return leaf
    left = split(size)
    if index < left:
        return join(fold(leaf, index, left, path[:-1], join), path[-1])
    return join(path[-1], fold(leaf, index - left, size - left, path[:-1], join))


def root_over(level: Sequence[Node], join: Callable[[Node, Node], Node]) -> Node:
    """The root over leaves; an odd node is promoted."""
    while len(level) > 1:
        pairs = [join(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = [*pairs, *level[2 * len(pairs) :]]
    return level[0]


def older_and_newer(
    old: int, size: int, path: Sequence[bytes], old_root: bytes | None
) -> tuple[bytes, bytes]:
    """The roots of both trees that a consistency proof leads to (RFC 6962, 2.1.2).

    `old_root` stands for the old tree as long as nothing has been taken from the left of it.
    """
    if old == size:
        require(len(path) == (old_root is None), "a consistency proof does not fit its trees")
        return (old_root, old_root) if old_root else (path[0], path[0])
    require(0 < old < size and path, "a consistency proof does not fit its trees")
    left = split(size)
    if old <= left:
        found_old, found = older_and_newer(old, left, path[:-1], old_root)
        return found_old, node_hash(found, path[-1])
    found_old, found = older_and_newer(old - left, size - left, path[:-1], None)
    return node_hash(path[-1], found_old), node_hash(path[-1], found)
