"""Which contributions become a dataset: cleaning, near-duplicates, and a fair small choice.

Everything here is a pure function of the contributions in the order in which they come; no choice
depends on the order of a set or a dictionary, or on chance.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from byline.canonical import sha256_hex
from byline.datasets.source import USABLE_WORDS_MAX, USABLE_WORDS_MIN, Contribution
from byline.datasets.text import word_count
from byline.limits import DATASET_CONTRIBUTORS_MAX, DATASET_CONTRIBUTORS_MIN, DATASET_ROWS_MAX

NEAR_DUPLICATE_JACCARD = 0.7
ROWS_PER_CONTRIBUTOR_MIN = 4  # fewer can't be told from noise by any attribution
PREFERRED_WORDS_MAX = 45  # training time grows with length, and two cores must do


def usable(contributions: Iterable[Contribution]) -> list[Contribution]:
    """Contributions of a fit length, one answer a question, no two nearly the same.

    Of several that say the same, the one contributed earliest stays, so that no text can be
    credited to two contributors at once; on the same day, the one that the source yields first.
    """
    fit = filter(_is_fit, contributions)
    earliest_first = sorted(fit, key=lambda c: c.example.contributed_at)  # stable
    prompts: set[str] = set()
    unasked: list[Contribution] = []
    for contribution in earliest_first:
        if contribution.example.prompt not in prompts:
            prompts.add(contribution.example.prompt)
            unasked.append(contribution)
    return without_near_duplicates(unasked)


def _is_fit(contribution: Contribution) -> bool:
    return USABLE_WORDS_MIN <= word_count(contribution.example.completion) <= USABLE_WORDS_MAX


def _shingles(text: str) -> frozenset[tuple[str, ...]]:
    words = re.findall(r"[a-z0-9]+", text.lower())
    return frozenset(tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2)))


def without_near_duplicates(contributions: Iterable[Contribution]) -> list[Contribution]:
    """In order, each whose word-3-gram Jaccard similarity to all kept ones is below the limit."""
    kept: list[Contribution] = []
    sizes: list[int] = []
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for contribution in contributions:
        shingles = _shingles(contribution.example.completion)
        shared = Counter(position for shingle in shingles for position in holders[shingle])
        if any(
            count >= NEAR_DUPLICATE_JACCARD * (len(shingles) + sizes[position] - count)
            for position, count in shared.items()
        ):
            continue
        for shingle in shingles:
            holders[shingle].append(len(kept))
        kept.append(contribution)
        sizes.append(len(shingles))
    return kept


def allotment(available: Mapping[str, int], rows_max: int) -> dict[str, int]:
    """How many rows each contributor gets: at least the minimum, the rest by square root.

    Sainte-Lague's rule on the square roots of what is available: the next row goes to the largest
    sqrt(available) / (2 * allotted + 1), compared as exact squares. Sizes stay unequal, as they
    really are, without one contributor being the whole dataset.
    """
    allotted = {who: min(ROWS_PER_CONTRIBUTOR_MIN, available[who]) for who in sorted(available)}
    while sum(allotted.values()) < rows_max:
        open_to_more = [who for who in allotted if allotted[who] < available[who]]
        if not open_to_more:
            break
        following = max(
            open_to_more,  # sorted: the first of equals wins
            key=lambda who: Fraction(available[who], (2 * allotted[who] + 1) ** 2),
        )
        allotted[following] += 1
    return allotted


def _contributors_with_most(available: Mapping[str, int]) -> dict[str, int]:
    ranked = sorted(available.items(), key=lambda item: (-item[1], item[0]))
    enough = [item for item in ranked if item[1] >= ROWS_PER_CONTRIBUTOR_MIN]
    if len(enough) < DATASET_CONTRIBUTORS_MIN:
        enough = ranked[:DATASET_CONTRIBUTORS_MIN]
    return dict(enough[:DATASET_CONTRIBUTORS_MAX])


def _preference(contribution: Contribution) -> tuple[bool, str]:
    """Short completions first; among those, an order that has nothing to do with the content."""
    example = contribution.example
    too_long = word_count(example.completion) > PREFERRED_WORDS_MAX
    return too_long, sha256_hex(example.id.encode())


def selected(contributions: Sequence[Contribution]) -> list[Contribution]:
    """At most DATASET_ROWS_MAX contributions of the contributors who have most."""
    rows: dict[str, list[Contribution]] = defaultdict(list)
    for contribution in contributions:
        rows[contribution.example.contributor].append(contribution)
    available = _contributors_with_most({who: len(theirs) for who, theirs in rows.items()})
    allotted = allotment(available, DATASET_ROWS_MAX)
    return [
        contribution
        for who, count in allotted.items()
        for contribution in sorted(rows[who], key=_preference)[:count]
    ]
