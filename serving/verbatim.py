"""Words of an answer that stand in an adapter's rows: evidence to show, never part of any pay.

At index build time the completions of all rows become one array of tokens with a separator after
each, and its suffix array: all places sorted by what follows them. The longest piece of the rows
that an answer repeats from some token on is then next to where the answer itself would be sorted
in: one binary search a token (Manber and Myers, 1993; OLMoTrace, https://arxiv.org/abs/2504.07096).

    verbatim.tokens    big-endian tokens, raised by one; 0 separates rows
    verbatim.suffixes  int32: the suffix array of the places that are no separators

A span is shown if no longer one holds it, it has VERBATIM_WORDS_MIN words, and it begins and ends
where words do, in the answer and in the row; the rarest first, by its tokens' frequency in the
rows, so many that VERBATIM_DENSITY of the answer's tokens have one. The search looks for the same
tokens: words that the tokenizer cut otherwise, as at an answer's first word, are not found.
"""

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from byline.errors import ArtifactError
from byline.limits import (
    VERBATIM_DENSITY,
    VERBATIM_ROWS_SHOWN,
    VERBATIM_TOKENS_MAX,
    VERBATIM_WORDS_MIN,
)
from byline.records import VerbatimRow, VerbatimSpan
from serving.token_texts import TokenTexts

TOKENS = "verbatim.tokens"
SUFFIXES = "verbatim.suffixes"
NARROW_MAX = 65_534  # the largest raised token of two bytes; the next one stands for all others


@dataclass(frozen=True, slots=True)
class Found:
    """A span before it is drawn up: tokens [start, end) of the answer, places in the rows."""

    start: int
    end: int
    places: NDArray[np.int64]
    rarity_nats: float


def write_verbatim(folder: Path, completions: Sequence[Sequence[int]]) -> None:
    """Write the rows' tokens and their suffix array. Sizes: 6 bytes a token, 8 for wide tokens."""
    from pydivsufsort import divsufsort

    raised = [token + 1 for row in completions for token in (*row, -1)]
    dtype = ">u2" if max(raised) <= NARROW_MAX else ">u4"
    tokens = np.array(raised, dtype=dtype)
    # Sorting the bytes of big-endian numbers from their first bytes on sorts the numbers.
    by_byte = divsufsort(tokens.view(np.uint8))
    places = by_byte[by_byte % tokens.itemsize == 0] // tokens.itemsize
    suffixes = places[tokens[places] != 0].astype(np.int32)
    (folder / TOKENS).write_bytes(bytes([tokens.itemsize]) + tokens.tobytes())
    (folder / SUFFIXES).write_bytes(suffixes.tobytes())


class VerbatimIndex:
    """The rows of one adapter, to be searched for pieces of an answer."""

    def __init__(self, folder: Path, rows: Sequence[tuple[str, str]], texts: TokenTexts) -> None:
        """`rows` are id and contributor of each. Raises ArtifactError if files and rows differ."""
        stored = (folder / TOKENS).read_bytes()
        self._width = stored[0]
        self._data = stored[1:]
        self._tokens = np.frombuffer(self._data, dtype=f">u{self._width}").astype(np.int64)
        self._suffixes = np.fromfile(folder / SUFFIXES, dtype=np.int32)
        self._ends = np.flatnonzero(self._tokens == 0)  # each row's separator
        if len(self._ends) != len(rows) or len(self._suffixes) + len(rows) != len(self._tokens):
            raise ArtifactError(f"{folder.name}: its verbatim files are of other rows")
        self._rows = rows
        self._texts = texts
        counts = np.bincount(self._tokens[self._tokens > 0])
        self._rarity: Mapping[int, float] = {
            int(token): math.log(len(self._suffixes) / counts[token])
            for token in np.flatnonzero(counts)
        }

    def spans(self, answer: Sequence[int]) -> tuple[VerbatimSpan, ...]:
        """The answer's verbatim spans, the rarest first."""
        found = self._maximal([token + 1 for token in answer])
        found.sort(key=lambda span: (-span.rarity_nats, span.start))
        shown = found[: math.ceil(VERBATIM_DENSITY * len(answer))]
        if not shown:
            return ()
        text, offsets = self._texts.offsets(answer)
        return tuple(self._drawn_up(span, text, offsets) for span in shown)

    def _maximal(self, answer: Sequence[int]) -> list[Found]:
        """The spans that no longer one holds, in their order in the answer."""
        starts = [place for place in range(len(answer)) if self._breaks(answer, place)]
        found: list[Found] = []
        reached = 0
        for start in starts:
            longest = start + self._longest(answer[start : start + VERBATIM_TOKENS_MAX])
            ends = [end for end in (*starts, len(answer)) if max(start, reached) < end <= longest]
            span = self._widest(answer, start, ends)
            if span is not None:
                reached = span.end
                found.append(span)
        return found

    def _widest(self, answer: Sequence[int], start: int, ends: Sequence[int]) -> Found | None:
        """The longest span from `start` to one of `ends` whose words are whole in some row."""
        for end in reversed(ends):
            piece = answer[start:end]
            if self._texts.words([token - 1 for token in piece]) < VERBATIM_WORDS_MIN:
                return None
            places = self._places(piece)
            whole = [
                int(place)
                for place in places
                if self._row_breaks(int(place)) and self._row_breaks(int(place) + end - start)
            ]
            if whole:
                rarity = sum(self._rarity[token] for token in piece)
                return Found(start, end, np.array(sorted(whole)), rarity)
        return None

    def _longest(self, piece: Sequence[int]) -> int:
        """How many tokens of the piece's beginning stand together in some row."""
        wanted = self._bytes(piece)
        rank = bisect.bisect_left(
            range(len(self._suffixes)), wanted, key=lambda at: self._suffix(at, len(wanted))
        )
        beside = [at for at in (rank - 1, rank) if 0 <= at < len(self._suffixes)]
        return max(
            (_common(wanted, self._suffix(at, len(wanted))) for at in beside), default=0
        ) // (self._width)

    def _places(self, piece: Sequence[int]) -> NDArray[np.int32]:
        """Where the rows hold the whole piece."""
        wanted = self._bytes(piece)
        ranks = range(len(self._suffixes))

        def beginning(rank: int) -> bytes:
            return self._suffix(rank, len(wanted))

        first = bisect.bisect_left(ranks, wanted, key=beginning)
        last = bisect.bisect_right(ranks, wanted, lo=first, key=beginning)
        return self._suffixes[first:last]

    def _suffix(self, rank: int, size: int) -> bytes:
        start = int(self._suffixes[rank]) * self._width
        return self._data[start : start + size]

    def _bytes(self, piece: Sequence[int]) -> bytes:
        highest = 256**self._width - 1  # a token that no row has, where two bytes don't hold it
        return np.array([min(token, highest) for token in piece], f">u{self._width}").tobytes()

    def _breaks(self, answer: Sequence[int], place: int) -> bool:
        return place == 0 or self._texts.breaks(answer[place - 1] - 1, answer[place] - 1)

    def _row_breaks(self, place: int) -> bool:
        """Whether a word begins or ends before this place of the rows."""
        before = int(self._tokens[place - 1]) if place else 0
        after = int(self._tokens[place])
        return not before or not after or self._texts.breaks(before - 1, after - 1)

    def _drawn_up(self, span: Found, text: str, offsets: Sequence[int]) -> VerbatimSpan:
        size = span.end - span.start
        return VerbatimSpan(
            characters=self._texts.trimmed(text, offsets[span.start], offsets[span.end]),
            tokens=(span.start, span.end),
            rarity_nats=round(span.rarity_nats, 3),
            occurrences=len(span.places),
            rows=tuple(self._row(int(at), size) for at in span.places[:VERBATIM_ROWS_SHOWN]),
        )

    def _row(self, place: int, size: int) -> VerbatimRow:
        row = int(np.searchsorted(self._ends, place))
        first = int(self._ends[row - 1]) + 1 if row else 0
        tokens = [int(token) - 1 for token in self._tokens[first : self._ends[row]]]
        text, offsets = self._texts.offsets(tokens)
        start = place - first
        characters = self._texts.trimmed(text, offsets[start], offsets[start + size])
        name, contributor = self._rows[row]
        return VerbatimRow(name, contributor, characters, (start, start + size))


def _common(one: bytes, other: bytes) -> int:
    """How many bytes two beginnings share."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))
