"""An entry's legs as a Merkle-sum tree: one leg opens without the others, and the sums are whole.

Every node hashes its children's hashes and their sums, so the root commits to all three sums as
much as to the legs (Maxwell and Todd 2013, with the repair of Chalkias et al. 2019: both children's
sums are hashed, not their total). Sums are never negative: a leg that takes would otherwise hide
one that gives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from byline.errors import ProofRefused
from byline.transparency.tree import EMPTY_ROOT

SUM_BYTES = 8
SUM_MAX = 2**63 - 1
NOT_PAID = ("app:", "hold:")  # whose credits give an application its own money back


class Sums(NamedTuple):
    """What leaves accounts, what is credited, and what of that is paid: not given back. In nano."""

    debits: int = 0
    credits: int = 0
    paid: int = 0

    def hashed(self) -> bytes:
        """As they are hashed."""
        return b"".join(part.to_bytes(SUM_BYTES) for part in self)


class SumNode(NamedTuple):
    """One node of the tree; it may have come from outside, so its sums have been looked at."""

    hash: bytes
    sums: Sums


NOTHING = SumNode(EMPTY_ROOT, Sums())


@dataclass(frozen=True, slots=True)
class LegPath:
    """Where one leg stands among its entry's, and its siblings from the leaf up."""

    index: int
    count: int
    siblings: tuple[SumNode, ...]


def sums_of(account: str, nano: int) -> Sums:
    """What one leg adds to the sums."""
    credited = max(nano, 0)
    paid = 0 if account.startswith(NOT_PAID) else credited
    return Sums(max(-nano, 0), credited, paid)


def leg_node(text: bytes, sums: Sums) -> SumNode:
    """A leg's own node; its hash is what the account's next leg names."""
    return SumNode(sha256(b"\x02" + sums.hashed() + text).digest(), sums)


def above(left: SumNode, right: SumNode) -> SumNode:
    """The node above two others. Raises ProofRefused if a sum is negative or grows too large."""
    debits, credited, paid = (a + b for a, b in zip(left.sums, right.sums, strict=True))
    if min(*left.sums, *right.sums) < 0 or max(debits, credited, paid) > SUM_MAX:
        raise ProofRefused("a sum over an entry's legs is negative, or too large to be true")
    hashed = left.hash + left.sums.hashed() + right.hash + right.sums.hashed()
    return SumNode(sha256(b"\x03" + hashed).digest(), Sums(debits, credited, paid))


def root_of_legs(nodes: Sequence[SumNode]) -> SumNode:
    """The root; an odd node is promoted, as in RFC 6962."""
    level = list(nodes) or [NOTHING]
    while len(level) > 1:
        level = _level_above(level)
    return level[0]


def path_of_leg(nodes: Sequence[SumNode], index: int) -> LegPath:
    """What shows one leg and hides the others."""
    assert 0 <= index < len(nodes)
    siblings, level, at = [], list(nodes), index
    while len(level) > 1:
        if at ^ 1 < len(level):
            siblings.append(level[at ^ 1])
        level, at = _level_above(level), at >> 1
    return LegPath(index, len(nodes), tuple(siblings))


def root_by_path(leg: SumNode, path: LegPath) -> SumNode:
    """The root that a leg's path leads to. Raises ProofRefused if it is no path."""
    index, last, found = path.index, path.count - 1, leg
    if not 0 <= index <= last:
        raise ProofRefused(f"among {path.count} legs there is no leg {index}")
    siblings = iter(path.siblings)
    while last > 0:
        if index & 1 or index < last:  # it has a sibling here
            sibling = next(siblings, None)
            if sibling is None:
                raise ProofRefused("the path of the leg is too short")
            found = above(sibling, found) if index & 1 else above(found, sibling)
        index, last = index >> 1, last >> 1
    if next(siblings, None) is not None:
        raise ProofRefused("the path of the leg is too long")
    return found


def _level_above(level: list[SumNode]) -> list[SumNode]:
    pairs = [above(*level[i : i + 2]) for i in range(0, len(level) - 1, 2)]
    return pairs + level[len(pairs) * 2 :]
