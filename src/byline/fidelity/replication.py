"""How much of an effect comes again under another training order, and how far pay moves with it.

Effects are differenced inside one order (everybody minus without one), never across orders: two
full runs of different orders differ by as much as an effect.
"""

from itertools import combinations

import numpy as np

from byline.fidelity.measures import Array, correlations, shares


def reliability(effects: Array) -> float:
    """Mean correlation of effects [orders, A, C] between two orders, all answers taken together.

    Needs two orders at least; between 0 and 1 (a negative mean says that nothing replicates).
    """
    orders = effects.reshape(len(effects), -1)
    pairs = [(i, j) for i in range(len(orders)) for j in range(i)]
    each = [correlations(orders[None, i], orders[None, j])[0] for i, j in pairs]
    return float(min(max(np.mean(each), 0.0), 1.0))


def of_the_mean(single: float, orders: int) -> float:
    """The reliability of a mean over several orders (Spearman and Brown's formula)."""
    return orders * single / (1 + (orders - 1) * single)


def orders_distance(effects: Array) -> float:
    """How far the mean shares by one half of the orders lie from those by another, at most.

    Half the L1 distance, the largest over all pairs of disjoint halves of effects [orders, A, C]
    (of an odd number one is left out). Needs two orders at least; between 0 and 1.
    """
    size = len(effects) // 2
    halves = [set(half) for half in combinations(range(len(effects)), size)]
    paid = [shares(effects[sorted(half)].mean(axis=0)) for half in halves]
    pairs = combinations(range(len(halves)), 2)
    return max(half_distance(paid[i], paid[j]) for i, j in pairs if not halves[i] & halves[j])


def half_distance(left: Array, right: Array) -> float:
    """Half the L1 distance of two mean shares, each of [A, C]."""
    return float(np.abs(left.mean(axis=0) - right.mean(axis=0)).sum() / 2)
