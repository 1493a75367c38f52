"""Asks about contributors' own rows, and about nothing of theirs, and reports who was paid.

    python -m loadtests.asked_about [--home .byline]     against a running `byline up`

For 30 questions an adapter: the mean share of the contributor whose row was asked about, beside
what it would get if pay went by rows, with a 95 % bootstrap interval over questions. For 20
unrelated prompts an adapter: lift over the base model and the part of the pool that was paid. There
is no bar: influence is not similarity. Only retraining can tell what is right; this says what is.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from byline.artifacts import ArtifactStore
from byline.command.asking import ask
from byline.datasets import Dataset, read_dataset
from byline.home import Home
from byline.limits import PPB
from byline.registry import read_release

QUESTIONS_PER_ADAPTER = 30
ANSWER_TOKENS_MAX = 32
CONCURRENT = 6
BOOTSTRAPS = 2_000
UNRELATED = (
    "Write a short poem about autumn leaves.",
    "What is the capital of Portugal?",
    "How do I boil an egg so that the yolk stays soft?",
    "What is 17 times 12?",
    "Suggest a name for a small grey cat.",
    "Tell me a joke about penguins.",
    "Which planet is the largest?",
    "How do I say thank you in Japanese?",
    "Describe the taste of a ripe mango.",
    "Who wrote Pride and Prejudice?",
    "Give me a recipe for pancakes.",
    "What should I pack for a week at the beach?",
    "How do tides work?",
    "Write two sentences about a train journey at night.",
    "What are the primary colours?",
    "How long does it take to walk five kilometres?",
    "Recommend a board game for four people.",
    "Explain what a haiku is.",
    "What sound does an owl make?",
    "How do I water a cactus?",
)


@dataclass(frozen=True, slots=True)
class Target:
    """A running gateway and a key to ask it with."""

    url: str
    api_key: str

    def attributions(self, model: str, questions: Sequence[str]) -> list[dict[str, Any]]:
        """The settled attribution of each question's answer."""

        def one(question: str) -> dict[str, Any]:
            answer = ask(self.url, self.api_key, model, question, max_tokens=ANSWER_TOKENS_MAX)
            found: dict[str, Any] = answer["attribution"]
            return found

        with ThreadPoolExecutor(CONCURRENT) as pool:
            return list(pool.map(one, questions))


def questions_about(dataset: Dataset, count: int) -> list[tuple[str, str]]:
    """(contributor, question) pairs: rows taken round robin over contributors, by hash within."""
    rows: dict[str, list[tuple[str, str]]] = {}
    for example in sorted(
        dataset.examples, key=lambda row: hashlib.sha256(row.id.encode()).digest()
    ):
        rows.setdefault(example.contributor, []).append((example.contributor, example.prompt))
    chosen: list[tuple[str, str]] = []
    while len(chosen) < count and any(rows.values()):
        for contributor in sorted(rows):
            if rows[contributor] and len(chosen) < count:
                chosen.append(rows[contributor].pop(0))
    return chosen


def interval(values: Sequence[float]) -> dict[str, float]:
    """The mean and its 95 % percentile bootstrap interval."""
    sample = np.asarray(values)
    draws = np.random.default_rng(1).integers(0, len(sample), (BOOTSTRAPS, len(sample)))
    low, high = np.percentile(sample[draws].mean(axis=1), [2.5, 97.5])
    return {"mean": round(float(sample.mean()), 4), "low": round(float(low), 4),
            "high": round(float(high), 4)}  # fmt: skip


def about_own_rows(target: Target, adapter: str, dataset: Dataset) -> dict[str, Any]:
    """Asked-about shares of one adapter."""
    asked = questions_about(dataset, QUESTIONS_PER_ADAPTER)
    found = target.attributions(adapter, [question for _, question in asked])
    counts: dict[str, int] = {}
    for example in dataset.examples:
        counts[example.contributor] = counts.get(example.contributor, 0) + 1
    shares = [
        next((s["share_ppb"] for s in a["shares"] if s["contributor"] == contributor), 0) / PPB
        for (contributor, _), a in zip(asked, found, strict=True)
    ]
    by_rows = [counts[contributor] / len(dataset.examples) for contributor, _ in asked]
    return {
        "questions": len(asked),
        "share_of_asked_about": interval(shares),
        "share_by_rows": interval(by_rows),
        "asked_about_is_first": sum(
            bool(a["shares"]) and a["shares"][0]["contributor"] == contributor
            for (contributor, _), a in zip(asked, found, strict=True)
        ),
        **lift_and_pay(found),
    }


def lift_and_pay(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Lift in nats a completion token, and the part of the pool that contributors were paid."""
    lifts = [a["lift_nats"] / a["completion_tokens"] for a in found if a["lift_nats"] is not None]
    paid = [1.0 - a["unattributed_ppb"] / PPB for a in found]
    return {"lift_nats_per_token": interval(lifts), "paid_part_of_pool": interval(paid)}


def report(home: Home, target: Target) -> dict[str, Any]:
    """The whole report, an entry an adapter."""
    store = ArtifactStore(home.artifacts)
    adapters: dict[str, Any] = {}
    for version in read_release(home.release).adapters:
        dataset = read_dataset(store.open("datasets", version.dataset))
        unrelated = target.attributions(version.adapter, UNRELATED)
        adapters[version.adapter] = {
            "own_rows": about_own_rows(target, version.adapter, dataset),
            "unrelated": {"prompts": len(UNRELATED), **lift_and_pay(unrelated)},
        }
        print(f"{version.adapter}: {json.dumps(adapters[version.adapter])}", file=sys.stderr)
    return {"adapters": adapters}


def main() -> None:
    """Report on the running installation; one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".byline"))
    home = Home(parser.parse_args().home)
    keys = json.loads(home.keys.read_text())
    print(json.dumps(report(home, Target(keys["url"], keys["application"]))))


if __name__ == "__main__":
    main()
