"""`byline fidelity`: what it starts, what it writes and prints, and what it refuses.

The programs beside the model are stood in for by one that writes made-up readings; the real ones
are tested with a tiny model in tests/serving.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from byline.command import fidelity_command
from byline.command.__main__ import app
from byline.command.progress import Display
from byline.fidelity.readings import write_readings
from byline.fidelity.study import PROFILES, read_study
from byline.home import Home
from tests.byline.fidelity_world import PROFILE, SIZES, made_up_readings, made_up_rows


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.jsonl"
    path.write_text("".join(json.dumps(asdict(row)) + "\n" for row in made_up_rows(SIZES)))
    return path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """The programs that were started, by name and arguments."""
    calls: list[tuple[str, list[str]]] = []

    def run(_home: Home, module: str, arguments: Sequence[str], _step: object) -> dict[str, object]:
        calls.append((module, list(arguments)))
        if "--readings" in arguments:
            path = Path(arguments[arguments.index("--readings") + 1])
            study = read_study(Path(arguments[arguments.index("--study") + 1]))
            readings = made_up_readings(study)
            write_readings(path, readings)
            texts = [{"text": f"w {place}"} for place in readings.question]
            path.with_suffix(".json").write_text(json.dumps(texts))
        return {}

    def preparation(*_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(base=lambda: SimpleNamespace(reference="tiny@000000000000"))

    monkeypatch.setattr(fidelity_command, "run_program", run)
    monkeypatch.setattr(fidelity_command, "Preparation", preparation)
    monkeypatch.setattr(fidelity_command, "PROFILES", {**PROFILES, "quick": PROFILE})
    return calls


def fidelity(dataset: Path, *more: str) -> str:
    home = ["--home", str(dataset.parent / "home")]
    result = CliRunner().invoke(app, ["fidelity", str(dataset), *home, *more])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_it_trains_reads_off_reports_and_ends_with_one_object(
    dataset: Path, started: list[tuple[str, list[str]]]
) -> None:
    printed = fidelity(dataset, "--processes", "1")
    assert [module for module, _ in started] == ["serving.counterfactuals", "serving.fidelity"]
    assert started[0][1][-2:] == ["--processes", "1"]
    found = json.loads(printed.splitlines()[-1])
    assert found["served"]["methods"]["tangent"]["lds"]["value"] == 1.0
    assert found["references"]["answers"] == 4
    assert found["reliability"] == 1.0
    folder = Path(found["folder"])
    assert (folder / "report.md").read_text() in printed
    assert "<svg" in (folder / "picture.svg").read_text()
    assert json.loads((folder / "fidelity.json").read_text()) == found


def test_a_second_time_nothing_is_started(
    dataset: Path, started: list[tuple[str, list[str]]]
) -> None:
    fidelity(dataset)
    begun = len(started)
    printed = fidelity(dataset, "--json", "--methods", "tangent, rows")
    assert len(started) == begun
    assert len(printed.splitlines()) == 1
    assert list(json.loads(printed)["served"]["methods"]) == ["rows", "tangent"]


def test_a_dataset_of_ours_is_measured_by_its_name_without_its_copies(
    tmp_path: Path, started: list[tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = made_up_rows(SIZES)
    copied = replace(rows[6], id="z", contributor="thief", contributed_at="2026-01-01")
    found = SimpleNamespace(examples=(*rows, *[replace(copied, id=f"z{n}") for n in range(9)]))
    monkeypatch.setattr(fidelity_command, "build_dataset", lambda *_, **__: None)
    monkeypatch.setattr(fidelity_command, "read_dataset", lambda _: found)
    monkeypatch.chdir(tmp_path)
    home = ["--home", str(tmp_path / "home"), "--json"]
    result = CliRunner().invoke(app, ["fidelity", "healthcare", *home])
    study = read_study(Path(json.loads(result.stdout)["folder"]) / "study.json")
    assert study.name == "healthcare"
    assert study.contributors == tuple(SIZES)
    assert len(started) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--profile", "huge"], "no profile 'huge'"), (["--methods", "magic"], "no method 'magic'")],
)
def test_what_does_not_exist_is_refused(dataset: Path, options: list[str], said: str) -> None:
    with pytest.raises(Exception, match=said):
        fidelity(dataset, *options)


def test_a_long_step_says_how_long_it_will_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the pace until now: what is found done at the start, or a second part, sets no pace."""
    clock = iter([0.0, 0.0, 10.0, 20.0, 30.0, 40.0, 41.0, 60.0])
    monkeypatch.setattr("byline.command.progress.time.monotonic", lambda: next(clock))
    with Display().step("training", "runs") as step:
        step.advance(50, 100)
        step.advance(60, 100)
        step.advance(61, 1_000)
        step.advance(0, 10)
    said = capsys.readouterr().err.splitlines()
    assert said[:5] == [
        "runs ...", "  runs: 50/100", "  runs: 60/100, 40 s left", "  runs: 61/1000, 28 min left",
        "  runs: 0/10",
    ]  # fmt: skip
