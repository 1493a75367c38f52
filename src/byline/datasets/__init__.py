"""The demonstration datasets: real text by recorded contributors, as content-addressed artifacts.

rows.jsonl         one Example a line, in order of id
contributors.json  contributor id -> display name and number of rows
NOTICE             the licences and attributions that go with the texts
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from byline.artifacts import Artifact, ArtifactStore
from byline.canonical import Json, canonical_text
from byline.datasets import compliance, cybersecurity, healthcare
from byline.datasets.copies import Copy, find_copies
from byline.datasets.packages import InstalledPackage, find_package
from byline.datasets.selection import selected, usable
from byline.datasets.source import Contribution, Source
from byline.errors import ArtifactError, NotFound
from byline.limits import DATASET_ROWS_MAX
from byline.records import Example

KIND = "datasets"
CODE = 1  # raise it when a change here changes the bytes of a dataset
SOURCES: Mapping[str, Source] = {
    source.dataset: source
    for source in (healthcare.SOURCE, cybersecurity.SOURCE, compliance.SOURCE)
}
DATASETS = tuple(SOURCES)


@dataclass(frozen=True, slots=True)
class Dataset:
    """The rows of one dataset, and its contributors' names by id."""

    name: str
    examples: tuple[Example, ...]
    contributors: Mapping[str, str]
    copies: tuple[Copy, ...] = ()  # the rows of weight 0, which nobody is trained on or paid for

    @property
    def canonical(self) -> tuple[Example, ...]:
        """The rows that teach, each owned by its contributor: all but the copies."""
        left_out = {copy.id for copy in self.copies}
        return tuple(example for example in self.examples if example.id not in left_out)


def build_dataset(store: ArtifactStore, name: str, *, everything: bool = False) -> Artifact:
    """The dataset `name`, built if this recipe has not been built before.

    By default a small choice that two cores can train on; `everything` keeps every usable row.
    Raises NotFound for an unknown name, StartFailed where the data package is missing.
    """
    if name not in SOURCES:
        known = ", ".join(DATASETS)
        raise NotFound(f"There is no dataset '{name}'; there are {known}.", param="name")
    source = SOURCES[name]
    package = find_package(source.package)
    recipe = _recipe(name, package, everything=everything)

    def write(folder: Path) -> None:
        rows = usable(source.read(package))
        _write(folder, rows if everything else selected(rows), source.notice(package))

    return store.made(KIND, name, recipe, write)


def read_dataset(artifact: Artifact) -> Dataset:
    """The dataset that an artifact holds. Raises ArtifactError if it can't be read as one.

    Which rows are copies is decided by the rows alone, so the artifact's hash fixes that too.
    """
    try:
        lines = (artifact.path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
        named = json.loads((artifact.path / "contributors.json").read_text(encoding="utf-8"))
        examples = tuple(Example(**json.loads(line)) for line in lines)
        contributors = {who: str(entry["name"]) for who, entry in named.items()}
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise ArtifactError(f"{artifact.reference} is no dataset: {problem}") from problem
    return Dataset(artifact.name, examples, contributors, find_copies(examples))


def _recipe(name: str, package: InstalledPackage, *, everything: bool) -> dict[str, Json]:
    return {
        "code": CODE,
        "dataset": name,
        "everything": everything,
        "packages": {package.name: package.version},
        "rows_max": DATASET_ROWS_MAX,
    }


def _write(folder: Path, rows: list[Contribution], notice: str) -> None:
    """The three files. Canonical JSON, so that the same rows are always the same bytes."""
    examples = sorted((row.example for row in rows), key=lambda example: example.id)
    lines = "".join(canonical_text(asdict(example)) + "\n" for example in examples)
    (folder / "rows.jsonl").write_text(lines, encoding="utf-8")
    names = {row.example.contributor: row.display_name for row in reversed(rows)}
    contributors: dict[str, Json] = {
        who: {"name": names[who], "rows": sum(e.contributor == who for e in examples)}
        for who in sorted(names)
    }
    (folder / "contributors.json").write_text(canonical_text(contributors) + "\n", encoding="utf-8")
    (folder / "NOTICE").write_text(notice, encoding="utf-8")
