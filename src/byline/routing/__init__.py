"""The router for `auto`: which adapter a text is for, or none, in well under a millisecond.

A linear classifier over hashed words and over the base model's word vectors, fitted when
a release is prepared. What is stored are arrays and JSON, never a pickle. Where it is not sure
enough the base model answers, and nobody is paid for it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from byline.artifacts import Artifact, ArtifactStore
from byline.canonical import Json, canonical_text
from byline.errors import ArtifactError, InvalidInput
from byline.routing.arrays import RouterArrays
from byline.routing.text import content_words, hashed, hashing

KIND = "router"
NAME = "router"
CODE = 1  # raise it when a change here or in the fitting changes a router


@dataclass(frozen=True, slots=True)
class Route:
    """Where a text goes. `runner_up` is the best adapter that did not get it."""

    adapter: str | None  # None: below the floor, the base model answers
    confidence: float  # probability of the best adapter
    runner_up: str | None


class Router:
    """A fitted router. Holds no state of its own: safe for any number of callers."""

    def __init__(self, arrays: RouterArrays) -> None:
        self.arrays = arrays
        self._places = {str(word): place for place, word in enumerate(arrays.words)}
        self._vectorizer = hashing()

    @classmethod
    def load(cls, artifact: Artifact) -> "Router":
        """The router that an artifact holds. Raises ArtifactError if it can't be read as one."""
        try:
            described = json.loads((artifact.path / "router.json").read_text())
            with np.load(artifact.path / "weights.npz", allow_pickle=False) as stored:
                arrays = RouterArrays(
                    adapters=tuple(described["adapters"]),
                    floor=float(described["floor"]),
                    **{name: stored[name] for name in ("columns", "bias", "words", "word_weights")},
                )
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise ArtifactError(f"{artifact.reference} is no router: {problem}") from problem
        return cls(arrays)

    def route(self, text: str) -> Route:
        """The adapter for `text`, or none."""
        *specialists, general = self.probabilities(text).tolist()
        ranked = sorted(range(len(specialists)), key=lambda place: -specialists[place])
        best, second = (self.arrays.adapters[place] for place in ranked[:2])
        confidence = specialists[ranked[0]]
        # General talk that is likelier than any specialist is also where a text goes of which no
        # word is known: what it says is not known, so nobody may be paid for it.
        if confidence < self.arrays.floor or confidence <= general:
            return Route(None, confidence, best)
        return Route(best, confidence, second)

    def probabilities(self, text: str) -> NDArray[np.float64]:
        """One probability an adapter, then general talk's; they sum to one."""
        row = hashed(self._vectorizer, [text])
        logits = self.arrays.bias + row.data @ self.arrays.columns[row.indices]
        known = [self._places[w] for w in content_words(text) if w in self._places]
        if known:
            logits = logits + self.arrays.word_weights[known].mean(axis=0)
        powers = np.exp(logits.astype(np.float64) - logits.max())
        return np.asarray(powers / powers.sum())


def build_router(
    store: ArtifactStore, datasets: Mapping[str, Artifact], *, base: Artifact | None = None
) -> Artifact:
    """A router over the adapters that `datasets` names, built if it has not been built before.

    `base` is the base model's artifact; without it the router knows only the datasets' words.
    Raises InvalidInput for fewer than two adapters, StartFailed where a package is missing.
    """
    if len(datasets) < 2:
        raise InvalidInput("a router needs two adapters or more to choose from", param="datasets")
    # Fitting needs more of scikit-learn than routing does; a gateway never loads that.
    from byline.routing.background import find_background
    from byline.routing.fit import fit_router

    background = find_background()
    recipe: dict[str, Json] = {
        "background": f"{background.name} {background.version}",
        "base": base.reference if base else None,
        "code": CODE,
        "datasets": {adapter: datasets[adapter].reference for adapter in sorted(datasets)},
    }

    def write(folder: Path) -> None:
        arrays, report = fit_router(datasets, background, base)
        np.savez(
            folder / "weights.npz",
            columns=arrays.columns,
            bias=arrays.bias,
            words=arrays.words,
            word_weights=arrays.word_weights,
        )
        described: dict[str, Json] = {
            "adapters": list(arrays.adapters), "floor": arrays.floor, "cross_validated": report,
        }  # fmt: skip
        (folder / "router.json").write_text(canonical_text(described))

    return store.made(KIND, NAME, recipe, write)
