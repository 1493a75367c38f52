"""The artifact store: folders named by what is in them, written aside and renamed into place.

    <root>/<kind>/<name>@<12 digits of the content hash>/   the artifact, with artifact.json
    <root>/recipes/<hash of the recipe>.json                which artifact a recipe made
    <root>/partial/<random>/                                being built; emptied at the next build

A *recipe* is everything that decides an artifact's bytes (inputs' references, settings, the code's
version). Asking for the same recipe again finds the artifact instead of building it. The store does
not know what any artifact means.
"""

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from byline.canonical import Json, canonical_text, digest
from byline.errors import ArtifactError

REFERENCE = re.compile(r"^[a-z0-9][a-z0-9._-]{0,63}@[0-9a-f]{12}\Z")
DESCRIPTION = "artifact.json"


@dataclass(frozen=True, slots=True)
class Artifact:
    """One finished artifact: where it lies, its content hash (64 digits), what made it."""

    kind: str
    name: str
    sha256: str
    path: Path
    recipe: Mapping[str, Json]

    @property
    def reference(self) -> str:
        """`name@` and 12 digits of the content hash."""
        return f"{self.name}@{self.sha256[:12]}"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ArtifactStore:
    """A folder of artifacts. Safe for one builder and any number of readers."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, kind: str, recipe: Mapping[str, Json]) -> Artifact | None:
        """The artifact that this recipe made, its bytes checked, or None."""
        note = self._recipe_note(kind, recipe)
        if not note.is_file():
            return None
        reference = str(json.loads(note.read_text())["reference"])
        try:
            return self.open(kind, reference)
        except ArtifactError:
            return None  # gone or changed since: build it again

    def made(
        self, kind: str, name: str, recipe: Mapping[str, Json], write: Callable[[Path], None]
    ) -> Artifact:
        """The artifact that this recipe makes: found, or else written by `write` as in `build`.

        Raises ArtifactError where its bytes change on disk meanwhile.
        """
        found = self.find(kind, recipe)
        if found is None:
            with self.build(kind, name, recipe) as folder:
                write(folder)
            found = self.find(kind, recipe)
        if found is None:
            raise ArtifactError(f"{kind}/{name} changed on disk while it was being made")
        return found

    def open(self, kind: str, reference: str) -> Artifact:
        """The artifact named `reference`. Raises ArtifactError if it is missing or has changed."""
        if not REFERENCE.match(reference):
            raise ArtifactError(f"'{reference}' is no artifact reference (name@12 hex digits)")
        folder = self.root / kind / reference
        try:
            described = json.loads((folder / DESCRIPTION).read_text())
            files = {name: file_sha256(folder / name) for name in described["files"]}
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise ArtifactError(f"{kind} {reference} can't be read: {problem}") from problem
        if files != described["files"] or digest(files) != described["sha256"]:
            raise ArtifactError(f"{kind} {reference} is not what its hash says: delete {folder}")
        return Artifact(kind, described["name"], described["sha256"], folder, described["recipe"])

    @contextmanager
    def build(self, kind: str, name: str, recipe: Mapping[str, Json]) -> Iterator[Path]:
        """An empty folder to write the artifact's files into.

        When the block ends well the folder is hashed, described and renamed into place; when it
        raises, nothing of it stays.
        """
        partial = self.root / "partial" / uuid.uuid4().hex
        partial.mkdir(parents=True)
        try:
            yield partial
            self._finish(kind, name, recipe, partial)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def remove_partials(self) -> None:
        """Delete what a killed builder left half-built. Call when no builder runs."""
        shutil.rmtree(self.root / "partial", ignore_errors=True)

    def _finish(self, kind: str, name: str, recipe: Mapping[str, Json], partial: Path) -> None:
        files: dict[str, Json] = {
            str(path.relative_to(partial)): file_sha256(path)
            for path in sorted(partial.rglob("*"))
            if path.is_file()
        }
        sha256 = digest(files)
        described: dict[str, Json] = {
            "kind": kind, "name": name, "sha256": sha256, "recipe": recipe, "files": files,
        }  # fmt: skip
        (partial / DESCRIPTION).write_text(canonical_text(described))
        target = self.root / kind / f"{name}@{sha256[:12]}"
        if target.exists():  # the same bytes from another recipe, or a changed copy: ours is right
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.rename(target)
        note = self._recipe_note(kind, recipe)
        note.parent.mkdir(parents=True, exist_ok=True)
        aside = note.with_suffix(f".{uuid.uuid4().hex}")
        aside.write_text(canonical_text({"reference": target.name}))
        os.replace(aside, note)

    def _recipe_note(self, kind: str, recipe: Mapping[str, Json]) -> Path:
        return self.root / "recipes" / f"{digest({'kind': kind, 'recipe': recipe})}.json"
