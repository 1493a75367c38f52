"""Every method that is compared, with its variants, as contributors' scores of all answers.

A method's variant is chosen on the tuning split, each method's alike; see `evaluation`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from enum import StrEnum

import numpy as np

from byline.fidelity.forward import with_coalitions
from byline.fidelity.measures import Array
from byline.fidelity.readings import Readings, membership_of, tuning
from byline.fidelity.study import Study
from byline.fidelity.text_similarity import POOLINGS, bm25, pooled, tf_idf

FORWARD = "forward audit"
FORWARD_FITTED = "forward audit, coalitions too"
ROWS = "rows"
TANGENT = "tangent"
FISHER = "damped fisher"


class Cost(StrEnum):
    """What a method needs; from the cheapest on."""

    COUNTING = "counting"
    SIMILARITY = "similarity"
    GRADIENT = "one backward pass"
    RETRAINING = "one backward pass, retrained vectors"
    AUDIT = "a forward pass for each contributor"
    AUDIT_FITTED = "a forward pass for each contributor and coalition"


COSTS: Mapping[str, Cost] = {
    ROWS: Cost.COUNTING,
    "tokens": Cost.COUNTING,
    "BM25": Cost.SIMILARITY,
    "tf-idf": Cost.SIMILARITY,
    "sentence embeddings": Cost.SIMILARITY,
    "hidden states": Cost.SIMILARITY,
    "gradient dot": Cost.GRADIENT,
    "gradient cosine": Cost.GRADIENT,
    "datainf": Cost.GRADIENT,
    "TrackStar (Bergson)": Cost.GRADIENT,
    FISHER: Cost.GRADIENT,
    "coalition regression": Cost.RETRAINING,
    TANGENT: Cost.RETRAINING,
    FORWARD: Cost.AUDIT,
    FORWARD_FITTED: Cost.AUDIT_FITTED,
}
"""Every method, in the order in which it is shown."""

Variants = Mapping[str, Mapping[str, Array]]
"""Method -> variant -> scores [A, C]."""


def all_variants(study: Study, readings: Readings, texts: Sequence[str]) -> Variants:
    """The scores of every method's every variant. `texts` are the answers' own, in their order."""
    found: dict[str, dict[str, Array]] = defaultdict(dict)
    owners = study.contributor_of
    answers, count = len(readings.question), len(study.contributors)
    every = np.ones((answers, 1))
    found[ROWS]["plain"] = every * np.bincount(owners, minlength=count)
    found["tokens"]["plain"] = every * np.bincount(owners, readings.row_tokens, minlength=count)
    for name, likeness in _likenesses(study, readings, texts).items():
        method, _, kind = name.partition(", ")
        for pooling in POOLINGS:
            variant = f"{kind}, {pooling}" if kind else pooling
            found[method][variant] = pooled(likeness, owners, pooling)
    for name, scores in readings.scores.items():
        method, _, variant = name.partition("/")
        found[method][variant] = scores
    found[FORWARD]["plain"] = readings.effects[0]
    found[FORWARD_FITTED]["plain"] = _fitted(study, readings)
    return {method: found[method] for method in COSTS if method in found}


def _fitted(study: Study, readings: Readings) -> Array:
    """Leave-one-out effects and the tuning split's coalitions; see `forward`."""
    known = tuning(len(readings.coalitions))
    return with_coalitions(
        readings.effects[0],
        readings.coalitions[known].T,
        membership_of(study, readings)[known],
        tuning(len(study.questions))[readings.question] & readings.is_served,
    )


def _likenesses(study: Study, readings: Readings, texts: Sequence[str]) -> dict[str, Array]:
    """Likeness [A, rows] by method: of words, and of the model's states."""
    prompts = [study.questions[place].prompt for place in readings.question]
    queries = [f"{prompt} {text}" for prompt, text in zip(prompts, texts, strict=True)]
    rows = [f"{row.prompt} {row.completion}" for row in study.rows]
    return {
        "BM25": bm25(queries, rows),
        "BM25, the answer alone": bm25(texts, [row.completion for row in study.rows]),
        "tf-idf": tf_idf(queries, rows),
        "tf-idf, the answer alone": tf_idf(texts, [row.completion for row in study.rows]),
        **readings.likeness,
    }
