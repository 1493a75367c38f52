"""Attribution by likeness of words, the baseline that every other method has to surpass.

BM25 as in Robertson and Zaragoza (https://doi.org/10.1561/1500000019), and the cosine of tf-idf
vectors. A contributor's score is its rows' scores put together by one of POOLINGS.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from byline.fidelity.measures import Array

K1, B = 1.2, 0.75

POOLINGS: Mapping[str, Callable[[Array], Array]] = MappingProxyType({
    "sum": lambda found: found.sum(axis=1),
    "mean": lambda found: found.mean(axis=1),
    "max": lambda found: found.max(axis=1),
    "sum of squares": lambda found: (found**2).sum(axis=1),
    "sum of fourth powers": lambda found: (found**4).sum(axis=1),
})  # fmt: skip
"""How [answers, one contributor's rows] becomes [answers]."""


def pooled(likeness: Array, contributor_of: Sequence[int], pooling: str) -> Array:
    """Likeness [A, rows], never negative, as contributors' scores [A, C]."""
    owners = np.array(contributor_of)
    pool = POOLINGS[pooling]
    return np.stack(
        [pool(likeness[:, owners == place]) for place in range(owners.max() + 1)], axis=1
    )


def words(text: str) -> list[str]:
    """The text's words, in lower case."""
    return re.findall(r"[a-z0-9]+", text.lower())


def bm25(queries: Sequence[str], rows: Sequence[str]) -> Array:
    """The BM25 score of every row for every query, [queries, rows]."""
    counted = [Counter(words(row)) for row in rows]
    lengths = np.array([max(sum(count.values()), 1) for count in counted], dtype=np.float64)
    holders = Counter(word for count in counted for word in count)
    found = np.zeros((len(queries), len(rows)))
    for place, query in enumerate(queries):
        for word, times in Counter(words(query)).items():
            if word not in holders:
                continue
            rarity = np.log(1 + (len(rows) - holders[word] + 0.5) / (holders[word] + 0.5))
            often = np.array([count[word] for count in counted], dtype=np.float64)
            bound = often + K1 * (1 - B + B * lengths / lengths.mean())
            found[place] += times * rarity * often * (K1 + 1) / bound
    return found


def tf_idf(queries: Sequence[str], rows: Sequence[str]) -> Array:
    """The cosine of tf-idf vectors of every query and row, [queries, rows]."""
    counted = [Counter(words(row)) for row in rows]
    holders = Counter(word for count in counted for word in count)
    places = {word: place for place, word in enumerate(sorted(holders))}
    rarity = np.array([1 + np.log((1 + len(rows)) / (1 + holders[word])) for word in places])

    def vectors(counts: Sequence[Counter[str]]) -> Array:
        made = np.zeros((len(counts), len(places)))
        for line, count in zip(made, counts, strict=True):
            for word in count.keys() & places.keys():
                line[places[word]] = count[word]
        made *= rarity
        norms = np.linalg.norm(made, axis=1, keepdims=True)
        normed: Array = made / np.where(norms == 0, 1.0, norms)
        return normed

    result: Array = vectors([Counter(words(query)) for query in queries]) @ vectors(counted).T
    return result
