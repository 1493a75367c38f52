"""A model card says what the home's artifacts, audits and measurements say, and nothing else."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from byline.artifacts import Artifact, ArtifactStore
from byline.auditing.audit import audit_of
from byline.auditing.store import AuditStore
from byline.command.__main__ import app
from byline.errors import ArtifactError
from byline.home import Home
from byline.records import AdapterVersion, Example, Release
from byline.registry import write_release
from tests.byline.test_auditing import an_audit


def made(store: ArtifactStore, kind: str, files: Mapping[str, str]) -> Artifact:
    with store.build(kind, "weather", {"of": kind}) as folder:
        for name, text in files.items():
            (folder / name).write_text(text)
    found = store.find(kind, {"of": kind})
    assert found is not None
    return found


def row(number: int, contributor: str, text: str) -> Example:
    return Example(f"r{number}", contributor, "CC0", "", "2026-01-01", f"what is {text}?", text)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    store = ArtifactStore(home.artifacts)
    rows = [
        row(0, "ann", "snow is water that fell slowly"),
        row(1, "ann", "hail is rain that went up again"),
        row(2, "bob", "fog is a cloud that has sat down"),
        row(3, "eve", "fog is a cloud that has sat down"),
    ]
    dataset = made(store, "datasets", {
        "rows.jsonl": "".join(json.dumps(asdict(each)) + "\n" for each in rows),
        "contributors.json": json.dumps({who: {"name": who.title()} for who in ("ann", "bob")}),
    })  # fmt: skip
    adapter = made(store, "adapters", {"losses.json": json.dumps([4.0] * 8 + [2.0] * 8)})
    index = made(store, "indexes", {
        "index.json": json.dumps({"method": "tangent", "reliability_ppb": 700_000_000}),
    })  # fmt: skip
    version = AdapterVersion(
        adapter="weather", version=adapter.reference, path=f"adapters/{adapter.reference}",
        owner="the owner", base_model="tiny", dataset=dataset.reference, index=index.reference,
    )  # fmt: skip
    write_release(
        home.release, Release("tiny", "base/tiny", 256, (version,), "router@000000000000")
    )
    return home


def of(home: Home, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["card", "weather", "--home", str(home.root), *arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_a_card_says_who_taught_and_that_nothing_was_measured(home: Home) -> None:
    found = json.loads(of(home, "--json"))
    assert found["rows_by_contributor"] == {"Ann": 2, "Bob": 1}
    assert (found["copies"], found["licences"]) == (1, ["CC0"])
    assert (found["method"], found["reliability"], found["losses"]) == ("tangent", 0.7, [4.0, 2.0])
    assert found["audits"] is None
    assert found["measurements"] == []
    page = of(home)
    assert page.startswith(f"# {found['adapter']}")
    assert "| Ann | 2 |" in page
    assert "reliability under other training orders: 70%" in page
    assert "No answer of this version was audited" in page
    assert "not measured here" in page


def test_a_card_tells_of_its_own_versions_audits_and_its_datasets_measurements(home: Home) -> None:
    version = json.loads(of(home, "--json"))["adapter"]
    store, other = AuditStore(home.audits), an_audit()
    store.write(other)
    paid = replace(other.paid, adapter_version=version, inference=other.paid.inference[:-1] + "7")
    own = audit_of(
        paid, {who: score / 1e9 for who, score in other.audited.scores.items()}, 2.0, other.draw,
        reliability_ppb=None,
    )  # fmt: skip
    store.write(own)
    figure = {"value": 0.74, "low": 0.55, "high": 0.83}
    report = {
        "dataset": "weather-0123", "rows": 100,
        "served": {"methods": {"tangent": {"lds": figure}, "rows": {"lds": figure}}},
    }  # fmt: skip
    folder = home.fidelity / "weather-0123"
    folder.mkdir(parents=True)
    (folder / "fidelity.json").write_text(json.dumps(report))
    (home.fidelity / "elsewhere-0123").mkdir()
    (home.fidelity / "elsewhere-0123" / "fidelity.json").write_text(json.dumps(report))
    found = json.loads(of(home, "--json"))
    assert found["audits"]["audits"] == 1
    (measured,) = found["measurements"]
    assert measured == {
        "study": "weather-0123",
        "rows": 100,
        "lds": {"tangent": [0.74, 0.55, 0.83]},
    }
    page = of(home)
    assert "1 audits" in page
    assert "tangent 0.74 [0.55, 0.83]" in page


def test_the_base_model_has_no_card_and_a_broken_one_is_refused(home: Home) -> None:
    result = CliRunner().invoke(app, ["card", "tiny", "--home", str(home.root)])
    assert "adapters have cards" in str(result.exception)
    next((home.artifacts / "adapters").iterdir()).joinpath("losses.json").write_text("[]")
    with pytest.raises(ArtifactError, match="is not what its hash says"):
        of(home)
