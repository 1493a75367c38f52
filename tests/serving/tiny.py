"""A home folder made from a tiny random model by the same code that makes a real one."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from byline.artifacts import Artifact, ArtifactStore
from byline.home import Home
from byline.records import AdapterVersion, Example, Release
from byline.registry import write_release
from serving.base_model import materialise
from serving.index_builder import Ingredients, build_index
from serving.progress import no_report
from serving.training import train

VOCABULARY = 64
WORDS = [f"w{number}" for number in range(VOCABULARY - 4)]
TEMPLATE = (
    "{% for message in messages %}user {{ message['content'] }} end {% endfor %}"
    "{% if add_generation_prompt %}answer {% endif %}"
)


@dataclass(frozen=True, slots=True)
class TinyHome:
    """A home folder and the artifacts in it."""

    home: Home
    base: Artifact
    dataset: Artifact
    adapter: Artifact
    index: Artifact
    release: Release


def write_model_folder(folder: Path, model: PreTrainedModel) -> None:
    """A model folder as one would download it."""
    specials = ["unknown", "user", "answer", "end"]
    words = {word: number for number, word in enumerate([*specials, *WORDS])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="unknown"))
    tokenizer.pre_tokenizer = Whitespace()
    make: Any = PreTrainedTokenizerFast
    fast = make(
        tokenizer_object=tokenizer, eos_token="end", unk_token="unknown", chat_template=TEMPLATE
    )
    model.save_pretrained(str(folder))
    fast.save_pretrained(str(folder))


def examples(contributors: int = 3, rows: int = 4) -> list[Example]:
    """Rows of recurring words; contributor c's completions repeat word c."""
    return [
        Example(
            id=f"row-{place}",
            contributor=f"contributor-{place % contributors}",
            licence="public domain",
            source="made up",
            contributed_at="2026-11-22",
            prompt=f"w{10 + place} w{20 + place}",
            completion=" ".join([f"w{place % contributors}"] * (2 + place % 3)),
        )
        for place in range(contributors * rows)
    ]


def write_dataset(store: ArtifactStore, name: str) -> Artifact:
    """A dataset artifact of the made-up rows."""
    recipe = {"made": "up"}
    with store.build("datasets", name, recipe) as folder:
        lines = [json.dumps(asdict(example)) for example in examples()]
        (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
        who = {example.contributor for example in examples()}
        names = {contributor: {"name": contributor} for contributor in sorted(who)}
        (folder / "contributors.json").write_text(json.dumps(names))
    found = store.find("datasets", recipe)
    assert found is not None
    return found


def make_home(root: Path, model: PreTrainedModel) -> TinyHome:
    """Everything up to the release file."""
    source = root / "tiny-llama"
    write_model_folder(source, model)
    home = Home(root / "home")
    store = ArtifactStore(home.artifacts)
    base = materialise(store, str(source), no_report)
    dataset = write_dataset(store, "weather")
    adapter = train(store, dataset, base, no_report)
    index = build_index(store, Ingredients(adapter, dataset, base), 1, no_report)
    version = AdapterVersion(
        adapter="weather",
        version=adapter.reference,
        path=str(adapter.path.relative_to(home.artifacts)),
        owner="weather",
        base_model=base.name,
        dataset=dataset.reference,
        index=index.reference,
    )
    base_path = str(base.path.relative_to(home.artifacts))
    release = Release(base.name, base_path, 256, (version,), "router@000000000000")
    write_release(home.release, release)
    return TinyHome(home, base, dataset, adapter, index, release)
