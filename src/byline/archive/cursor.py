"""Walks an account's lines newest first, a page at a time, over every ledger that has some.

A cursor says, for each ledger, which lines come next: those with a lower sequence number. Lines
that are added meanwhile have higher ones, so every line there was at the start is on exactly one
page, and none that came later is on any.
"""

import base64
import binascii
import heapq
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from byline.errors import InvalidInput

CURSOR_CHARACTERS_MAX = 4_096
SEQ_MAX = 2**63 - 1


class Line(Protocol):
    """What has its place in a ledger and in time."""

    @property
    def ledger(self) -> str:
        """The ledger's name."""

    @property
    def seq(self) -> int:
        """The entry's number in that ledger."""

    @property
    def time_ms(self) -> int:
        """When the entry was posted."""


AnyLine = TypeVar("AnyLine", bound=Line)
# Up to `limit` lines of one ledger before a sequence number, the highest first.
Fetch = Callable[[str, int, int], Sequence[AnyLine]]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a walk goes on: ledger -> only lines before this sequence number."""

    before: Mapping[str, int]

    def text(self) -> str:
        """The cursor as clients carry it: opaque, and safe in a URL."""
        packed = json.dumps(dict(self.before), separators=(",", ":"), sort_keys=True).encode()
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def cursor_from(text: str) -> Cursor:
    """The cursor that a client gave back. Raises InvalidInput for anything else."""
    problem = InvalidInput("'cursor' is not one that this API gave.", param="cursor")
    if len(text) > CURSOR_CHARACTERS_MAX or not text.isascii():
        raise problem
    try:
        before = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):  # also of bytes that are no UTF-8 and no JSON
        raise problem from None
    if not isinstance(before, dict) or not all(
        type(seq) is int and 0 < seq <= SEQ_MAX for seq in before.values()
    ):
        raise problem
    return Cursor(before)


def newest_first(
    fetch: Fetch[AnyLine], start: Cursor, limit: int
) -> tuple[list[AnyLine], Cursor | None]:
    """One page, and the cursor of the next; None where there is no more.

    Within a ledger the order is the journal's; between ledgers it is time's.
    """
    streams = [fetch(ledger, before, limit + 1) for ledger, before in start.before.items()]
    merged = heapq.merge(*streams, key=lambda line: -line.time_ms)
    lines = [line for line, _ in zip(merged, range(limit), strict=False)]
    if len(lines) == sum(len(stream) for stream in streams):
        return lines, None
    return lines, Cursor({**start.before, **{line.ledger: line.seq for line in lines}})
