"""Copies teach nothing and earn nothing: with them or without, adapter and scores are the same.

The copy attack with 1, 3 and 9 near-copies of every row: the adapter's bytes, the contributors'
vectors and so every share of every answer are those of the honest rows alone. The attacker is not
in the index, and so is paid exactly nothing.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from byline.artifacts import Artifact, ArtifactStore
from byline.records import Example
from serving.index_builder import Ingredients, build_index
from serving.influence import AdapterIndex
from serving.progress import no_report
from serving.training import recipe_of, train
from tests.serving.tiny import WORDS, TinyHome, examples


def honest_rows() -> list[Example]:
    """The made-up rows, their answers long enough to be compared by their words."""
    chance = random.Random(1)
    return [
        replace(row, completion=" ".join([row.completion, *chance.sample(WORDS[20:], 10)]))
        for row in examples()
    ]


def near_copies(rows: Sequence[Example], count: int) -> list[Example]:
    """Of each row so many: other case, a word more, two words swapped."""
    return [
        replace(
            row, id=f"{row.id}-copy-{number}", contributor="mallory",
            contributed_at=f"2026-11-23T00:{number:02}:00Z", prompt=f"w{number} {row.prompt}",
            completion=edited(row.completion.split(), number),
        )
        for row in rows
        for number in range(count)
    ]  # fmt: skip


def edited(words: list[str], number: int) -> str:
    if number % 3 == 0:
        return " ".join(words).upper()
    if number % 3 == 1:
        return " ".join([*words, "w1"])
    return " ".join([words[1], words[0], *words[2:]])


def dataset_of(store: ArtifactStore, rows: Sequence[Example]) -> Artifact:
    recipe = {"rows": [asdict(row) for row in rows]}
    with store.build("datasets", "weather", recipe) as folder:
        (folder / "rows.jsonl").write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
        names = {who: {"name": who} for who in sorted({row.contributor for row in rows})}
        (folder / "contributors.json").write_text(json.dumps(names))
    found = store.find("datasets", recipe)
    assert found is not None
    return found


def taught(store: ArtifactStore, rows: Sequence[Example], base: Artifact) -> tuple[bytes, Artifact]:
    """The adapter's weights and its index."""
    dataset = dataset_of(store, rows)
    adapter = train(store, dataset, base, no_report)
    index = build_index(store, Ingredients(adapter, dataset, base), 1, no_report)
    return (adapter.path / "adapter_model.safetensors").read_bytes(), index


@pytest.mark.parametrize("count", [1, 3, 9])
def test_near_copies_change_no_byte_and_own_nothing(
    tiny_home: TinyHome, tmp_path: Path, count: int
) -> None:
    store, rows = ArtifactStore(tmp_path), honest_rows()
    weights, index = taught(store, rows, tiny_home.base)
    attacked, attacked_index = taught(store, [*rows, *near_copies(rows, count)], tiny_home.base)
    assert attacked == weights
    for file in ("contributors.faiss", "examples.faiss", "verbatim.tokens"):
        assert (attacked_index.path / file).read_bytes() == (index.path / file).read_bytes()
    manifest = AdapterIndex.load(attacked_index).manifest
    assert "mallory" not in manifest.contributors
    assert manifest.examples == tuple(row.id for row in rows)


def test_copies_are_in_the_recipe_and_without_any_it_is_as_it_was(
    tiny_home: TinyHome, tmp_path: Path
) -> None:
    store, rows = ArtifactStore(tmp_path), honest_rows()
    copies = near_copies(rows, 1)
    attacked = recipe_of(dataset_of(store, [*rows, *copies]), tiny_home.base)
    assert attacked["left_out"] == sorted(row.id for row in copies)
    assert "left_out" not in recipe_of(dataset_of(store, rows), tiny_home.base)
