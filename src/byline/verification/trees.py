"""Merkle trees (RFC 6962, 2.1): the root over all leaves; one log as the beginning of another."""

from collections.abc import Callable, Sequence
from hashlib import sha256

from .proof import Node, node_hash, require

EMPTY_ROOT = sha256(b"").digest()


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
    left = 1 << ((size - 1).bit_length() - 1)
    if old <= left:
        found_old, found = older_and_newer(old, left, path[:-1], old_root)
        return found_old, node_hash(found, path[-1])
    found_old, found = older_and_newer(old - left, size - left, path[:-1], None)
    return node_hash(path[-1], found_old), node_hash(path[-1], found)
