"""Builds an adapter's attribution index: all that the training side of influence needs, once.

    python -m serving.index_builder --home HOME --adapter REF --dataset REF --base REF

The per-row gradients (rows x D, fp32) lie in a memory-mapped file of the half-built artifact and
are gone when it is finished. What they become is in `serving.fisher` and `serving.influence`.
Where the home's audit plan names counterfactual runs of the adapter (`serving.retraining`), the
contributors' vectors are tangents of those instead.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from byline.artifacts import Artifact, ArtifactStore
from byline.auditing.groups import group_of
from byline.auditing.plan import Counterfactuals, read_plan
from byline.canonical import Json
from byline.errors import StartFailed
from byline.home import Home
from serving.progress import Report, json_lines
from serving.recipes import IndexSettings, cores, library_versions, share_cores

INDEXING = 4  # raise when the code's result changes and nothing in the recipe says so
GRADIENTS_FILE = "gradients.float32"


@dataclass(frozen=True, slots=True)
class Ingredients:
    """The artifacts that an index is made of, and counterfactual runs of the adapter, if any."""

    adapter: Artifact
    dataset: Artifact
    base: Artifact
    counterfactuals: Counterfactuals | None = None
    runs: Path = Path()  # the folder that those lie in


def recipe_of(ingredients: Ingredients, threads: int) -> Mapping[str, Json]:
    """Everything that decides the index's bytes on one kind of machine."""
    return {
        "adapter": ingredients.adapter.sha256,
        "dataset": ingredients.dataset.sha256,
        "base": ingredients.base.sha256,
        "indexing": INDEXING,
        "settings": asdict(IndexSettings()),
        "threads": threads,
        "libraries": library_versions(),
        **_retraining(ingredients.counterfactuals),
    }


def _retraining(counterfactuals: Counterfactuals | None) -> dict[str, Json]:
    if counterfactuals is None:
        return {}
    orders: list[Json] = [asdict(order) for order in counterfactuals.orders]
    groups: dict[str, Json] = {}
    if counterfactuals.groups is not None:
        groups["groups"] = {name: dict(each) for name, each in counterfactuals.groups.items()}
    return {"orders": orders, "reliability_ppb": counterfactuals.reliability_ppb, **groups}


def build_index(
    store: ArtifactStore, ingredients: Ingredients, threads: int, report: Report
) -> Artifact:
    """The index's artifact, built unless its recipe was followed before."""
    return store.made(
        "indexes",
        ingredients.adapter.name,
        recipe_of(ingredients, threads),
        lambda folder: _build_into(folder, ingredients, threads, report),
    )


def _build_into(folder: Path, ingredients: Ingredients, threads: int, report: Report) -> None:
    from byline.datasets import read_dataset
    from serving.checkpoints import load_base_model, load_tokenizer
    from serving.example_index import dimensions_for
    from serving.fine_tuning import be_deterministic
    from serving.influence import TANGENT, Manifest, write_index
    from serving.lora import load_lora, lora_size
    from serving.projection import ProjectionShape
    from serving.rows import encode
    from serving.verbatim import write_verbatim

    be_deterministic(threads)
    settings = IndexSettings()
    base = ingredients.base
    examples = read_dataset(ingredients.dataset).canonical
    model = load_lora(load_base_model(base.path), ingredients.adapter.path)
    rows = encode(load_tokenizer(base.path), examples)
    contributors = sorted({example.contributor for example in examples})
    contributor_of = [contributors.index(example.contributor) for example in examples]
    shape = ProjectionShape(
        inputs=lora_size(model),
        outputs=dimensions_for(len(rows)),
        nonzeros=settings.projection_nonzeros,
        seed=settings.projection_seed,
    )
    method, vectors = _fisher_vectors(folder, model, rows, contributor_of, shape, report)
    counterfactuals, contributor_vectors = ingredients.counterfactuals, vectors.contributors
    if counterfactuals is not None:
        contributor_vectors = _tangents(ingredients, counterfactuals, contributors, model)
    groups, places = _groups(counterfactuals, contributors)
    manifest = Manifest(
        adapter=ingredients.adapter.reference,
        dataset=ingredients.dataset.reference,
        base=base.reference,
        dimensions=shape.inputs,
        damping=vectors.damping,
        projection=shape,
        contributors=tuple(contributors),
        rows=rows_per_contributor(contributor_of),
        examples=tuple(example.id for example in examples),
        contributor_of=tuple(contributor_of),
        method=TANGENT if counterfactuals else method,
        reliability_ppb=counterfactuals.reliability_ppb if counterfactuals else None,
        groups=groups,
        group_of=places,
    )
    write_index(folder, manifest, contributor_vectors, vectors.examples)
    write_verbatim(folder, [row.completion[:-1] for row in rows])  # without the end of turn
    del vectors
    (folder / GRADIENTS_FILE).unlink()


def _fisher_vectors(
    folder: Path,
    model: Any,  # noqa: ANN401 - their types would load the model libraries
    rows: Sequence[Any],
    contributor_of: Sequence[int],
    shape: Any,  # noqa: ANN401
    report: Report,
) -> tuple[str, Any]:
    """The method that so many rows allow, and the index's vectors by it."""
    from serving.fisher import GRAM_ROWS_MAX
    from serving.index_vectors import gradients_of, index_vectors, projected_vectors
    from serving.influence import DAMPED_FISHER, PROJECTED_FISHER
    from serving.projection import Projection

    damping, projection, file = IndexSettings().damping, Projection(shape), folder / GRADIENTS_FILE
    if len(rows) > GRAM_ROWS_MAX:
        projected = gradients_of(model, rows, file, report, projection)
        return PROJECTED_FISHER, projected_vectors(projected, contributor_of, damping)
    whole = gradients_of(model, rows, file, report)
    return DAMPED_FISHER, index_vectors(whole, contributor_of, projection, damping, report)


def _tangents(
    ingredients: Ingredients, counterfactuals: Counterfactuals, contributors: Sequence[str],
    model: Any,  # noqa: ANN401 - its type would load the model libraries
) -> Any:  # fmt: skip  # noqa: ANN401
    """The mean over training orders of every contributor's, or group's, tangent, [C, D] float32."""
    import torch

    from serving.counterfactuals.runs import weights_in
    from serving.counterfactuals.vectors import tangents_of

    orders, groups = counterfactuals.orders, counterfactuals.groups
    left_out = set(group_of(groups)) if groups else orders[0].without.keys()
    if left_out != set(contributors):
        raise StartFailed(
            f"the counterfactual runs of {ingredients.adapter.reference} leave out others than its "
            f"contributors: make them again with `byline counterfactuals`"
        )

    def weights(run: str) -> Any:  # noqa: ANN401
        return weights_in(ingredients.runs / run, model)

    units = sorted(groups) if groups else contributors
    return torch.stack([*tangents_of(orders, units, weights)]).mean(dim=0).numpy()


def _groups(
    counterfactuals: Counterfactuals | None, contributors: Sequence[str]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The groups that contributors were left out in, and each one's by place; else nothing."""
    if counterfactuals is None or counterfactuals.groups is None:
        return (), ()
    names, whose = sorted(counterfactuals.groups), group_of(counterfactuals.groups)
    return tuple(names), tuple(names.index(whose[who]) for who in contributors)


def rows_per_contributor(contributor_of: Sequence[int]) -> tuple[int, ...]:
    """How many rows each contributor has, by its place."""
    return tuple(contributor_of.count(place) for place in range(max(contributor_of) + 1))


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Build one adapter's attribution index.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--adapter", required=True, help="reference of an adapters artifact")
    parser.add_argument("--dataset", required=True, help="reference of a datasets artifact")
    parser.add_argument("--base", required=True, help="reference of a base artifact")
    parser.add_argument("--threads", type=int, default=cores(), help="torch threads")
    arguments = parser.parse_args()
    share_cores()
    home = Home(arguments.home)
    store = ArtifactStore(home.artifacts)
    with json_lines() as lines:
        plan = read_plan(home.audit_plan)
        ingredients = Ingredients(
            adapter=store.open("adapters", arguments.adapter),
            dataset=store.open("datasets", arguments.dataset),
            base=store.open("base", arguments.base),
            counterfactuals=plan.adapters.get(arguments.adapter) if plan else None,
            runs=home.counterfactuals,
        )
        index = build_index(store, ingredients, arguments.threads, lines.progress)
        lines.result({"reference": index.reference})


if __name__ == "__main__":
    main()
