"""What the artifact store promises: all or nothing, found by recipe, refused when changed."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from byline.artifacts import Artifact, ArtifactStore
from byline.canonical import Json
from byline.errors import ArtifactError

RECIPE: dict[str, Json] = {"input": "x@000000000000", "code": 1}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def built(store: ArtifactStore, text: str = "hello", **recipe: int) -> Artifact:
    def write(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "inner" / "text").write_text(text)

    return store.made("things", "thing", RECIPE | recipe, write)


def test_what_a_recipe_made_is_found_by_it(store: ArtifactStore) -> None:
    artifact = built(store)
    assert (artifact.path / "inner" / "text").read_text() == "hello"
    assert artifact.recipe == RECIPE
    assert store.open("things", artifact.reference) == artifact


def test_the_same_recipe_writes_nothing_again(store: ArtifactStore) -> None:
    assert built(store, "other bytes").reference == built(store, "hello").reference


def test_what_changes_while_it_is_made_is_refused(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = store._finish

    def meddled(kind: str, name: str, recipe: Mapping[str, Json], partial: Path) -> None:
        finish(kind, name, recipe, partial)
        for text in store.root.glob("things/*/inner/text"):
            text.write_text("changed")

    monkeypatch.setattr(store, "_finish", meddled)
    with pytest.raises(ArtifactError, match="things/thing changed on disk"):
        built(store)


def test_another_recipe_finds_nothing(store: ArtifactStore) -> None:
    built(store)
    assert store.find("things", RECIPE | {"code": 2}) is None
    assert store.find("other things", RECIPE) is None


def test_the_name_is_decided_by_the_bytes_alone(store: ArtifactStore) -> None:
    first, same, other = built(store), built(store, code=2), built(store, "bye", code=3)
    assert first.reference == same.reference != other.reference


def test_a_build_that_raises_leaves_nothing(store: ArtifactStore) -> None:
    def break_off() -> None:
        with store.build("things", "thing", RECIPE) as folder:
            (folder / "text").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk"):
        break_off()
    assert store.find("things", RECIPE) is None
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "damage", ["change", "add_to_description", "remove", "[]", "null", '{"files": [[]]}']
)
def test_a_changed_artifact_is_refused_and_built_again(store: ArtifactStore, damage: str) -> None:
    artifact = built(store)
    file = artifact.path / "inner" / "text"
    if damage == "change":
        file.write_text("hullo")
    elif damage == "remove":
        file.unlink()
    elif damage == "add_to_description":
        description = artifact.path / "artifact.json"
        description.write_text(description.read_text().replace(artifact.sha256, "0" * 64))
    else:
        (artifact.path / "artifact.json").write_text(damage)
    with pytest.raises(ArtifactError):
        store.open("things", artifact.reference)
    assert store.find("things", RECIPE) is None
    assert built(store) == artifact


@pytest.mark.parametrize(
    "reference", ["../../etc@000000000000", "thing", "thing@12", "", "thing@000000000000\n"]
)
def test_a_reference_never_becomes_another_path(store: ArtifactStore, reference: str) -> None:
    with pytest.raises(ArtifactError, match="no artifact reference"):
        store.open("things", reference)


def test_a_missing_artifact_is_named(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactError, match="thing@000000000000"):
        store.open("things", "thing@000000000000")


def test_what_a_killed_builder_left_can_be_removed(store: ArtifactStore) -> None:
    kept = built(store)
    left = store.root / "partial" / "0" / "big"
    left.mkdir(parents=True)
    store.remove_partials()
    store.remove_partials()  # nothing there is fine
    assert not left.exists()
    assert store.find("things", RECIPE) == kept
