"""Measures a router on what it was not built from; prints one JSON object as its last line.

    python -m byline.routing.evaluation --home HOME [--questions FILE]

Four kinds of text: completions of the usable rows that the training datasets left out, questions
that a person wrote about each adapter's subject without the datasets' wording, questions that are
nobody's subject, and near misses: questions in an adapter's words about something else. The last
two must reach the base model.
"""

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from byline.artifacts import ArtifactStore
from byline.canonical import Json
from byline.datasets import build_dataset, read_dataset
from byline.home import Home
from byline.registry import read_release
from byline.routing import KIND, Router

QUESTIONS = Path("tests/byline/routing_questions.json")
OUT_OF_DOMAIN = "out_of_domain"
NEAR_MISSES = "near_misses"
BASE = "base"  # in the table of who was sent where
TIMED_WORDS = 100
TIMED_ROUNDS = 2_000


@dataclass(frozen=True, slots=True)
class EvaluationTexts:
    """What a router is asked: texts by the adapter they are for; none for `out_of_domain`.

    `near_misses` stand under the adapter that should not answer them.
    """

    completions: Mapping[str, Sequence[str]]
    questions: Mapping[str, Sequence[str]]
    out_of_domain: Sequence[str]
    near_misses: Mapping[str, Sequence[str]] = field(default_factory=dict)


def share(hits: int, of: int) -> dict[str, Json]:
    """A share with its 95 % interval (Wilson's score interval, z = 1.96)."""
    if not of:  # an adapter that was trained on everything leaves nothing to hold out
        return {"share": None, "of": 0}
    z, p = 1.96, hits / of
    middle = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return {
        "share": round(p, 4), "of": of,
        "low": round(max(0.0, middle - half), 4), "high": round(min(1.0, middle + half), 4),
    }  # fmt: skip


def routed_to(router: Router, adapter: str | None, texts: Sequence[str]) -> dict[str, Json]:
    """The share of `texts` that the router gives to `adapter`."""
    return share(sum(router.route(text).adapter == adapter for text in texts), len(texts))


def outcomes(router: Router, texts: Mapping[str, Sequence[str]]) -> dict[str, Json]:
    """By adapter: the share that reached it, and the share that the base model would answer."""
    return {
        adapter: {
            "right": routed_to(router, adapter, asked),
            "to_base": routed_to(router, None, asked),
        }
        for adapter, asked in sorted(texts.items())
    }


def sent_to(router: Router, texts: Sequence[str]) -> dict[str, Json]:
    """How many of `texts` reached each adapter, and the base model."""
    counts = Counter(router.route(text).adapter or BASE for text in texts)
    return {name: counts[name] for name in sorted(counts)}


def microseconds(router: Router, texts: Sequence[str], rounds: int) -> dict[str, Json]:
    """How long one call takes on texts of TIMED_WORDS words, after a warm-up."""
    words = " ".join(texts).split()
    starts = range(0, max(1, len(words) - TIMED_WORDS + 1), TIMED_WORDS)
    stretches = [" ".join(words[start : start + TIMED_WORDS]) for start in starts]
    taken = []
    for number in range(rounds + 50):
        begun = time.perf_counter()
        router.route(stretches[number % len(stretches)])
        taken.append((time.perf_counter() - begun) * 1e6)
    ranked = sorted(taken[50:])
    return {
        "p50": round(ranked[len(ranked) // 2], 1),
        "p99": round(ranked[int(len(ranked) * 0.99)], 1),
        "words": TIMED_WORDS, "rounds": rounds,
    }  # fmt: skip


def evaluate_router(
    router: Router, texts: EvaluationTexts, *, rounds: int = TIMED_ROUNDS
) -> dict[str, Json]:
    """Every share with its interval, and the time one call takes."""
    timed = [text for asked in texts.completions.values() for text in asked]
    return {
        "floor": round(router.arrays.floor, 4),
        "held_out_completions": outcomes(router, texts.completions),
        "questions": outcomes(router, texts.questions),
        "out_of_domain_to_base": routed_to(router, None, texts.out_of_domain),
        "near_misses_to_base": {
            adapter: routed_to(router, None, asked)
            for adapter, asked in sorted(texts.near_misses.items())
        },
        "sent_to": {
            kind: {adapter: sent_to(router, asked) for adapter, asked in sorted(by_adapter.items())}
            for kind, by_adapter in (
                ("questions", texts.questions),
                (NEAR_MISSES, texts.near_misses),
            )
        },
        "microseconds": microseconds(router, timed, rounds),
    }


def evaluation_texts(
    store: ArtifactStore, trained_on: Mapping[str, str], questions: Path
) -> EvaluationTexts:
    """The texts to ask. `trained_on` maps each adapter to the reference of its dataset."""
    asked = dict(json.loads(questions.read_text(encoding="utf-8")))
    out_of_domain, near_misses = asked.pop(OUT_OF_DOMAIN), asked.pop(NEAR_MISSES)
    completions = {}
    for adapter, reference in trained_on.items():
        seen = {example.id for example in read_dataset(store.open("datasets", reference)).examples}
        everything = read_dataset(build_dataset(store, adapter, everything=True)).examples
        completions[adapter] = [e.completion for e in everything if e.id not in seen]
    return EvaluationTexts(completions, asked, out_of_domain, near_misses)


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate the router of the release in --home."""
    parser = argparse.ArgumentParser(description="Measure the router of a release.")
    parser.add_argument("--home", type=Path, required=True, help="the home folder of `byline up`")
    parser.add_argument("--questions", type=Path, default=QUESTIONS, help="questions by adapter")
    chosen = parser.parse_args(arguments)
    home = Home(chosen.home)
    store = ArtifactStore(home.artifacts)
    release = read_release(home.release)
    trained_on = {adapter.adapter: adapter.dataset for adapter in release.adapters}
    texts = evaluation_texts(store, trained_on, chosen.questions)
    router = Router.load(store.open(KIND, release.router))
    result = {"router": release.router, **evaluate_router(router, texts)}
    print(json.dumps({"result": result}), flush=True)  # noqa: T201 - this is a command


if __name__ == "__main__":
    main()
