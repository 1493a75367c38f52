"""`byline attacks`: what it starts, writes and prints; a second time nothing is started.

The program beside the model is stood in for by one that writes made-up readings; the real one is
tested with a tiny model in tests/serving.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from byline.attacks.reading_files import reading_path, write_reading
from byline.attacks.worlds import Arena, design_arena
from byline.command import attacks_command
from byline.command.__main__ import app
from byline.fidelity.study import read_study
from byline.home import Home
from byline.records import Example
from tests.byline.attack_world import PROFILE, attacked_rows, made_up_arena, made_up_readings


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "made-up.jsonl"
    path.write_text("".join(json.dumps(asdict(row)) + "\n" for row in attacked_rows()))
    return path


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of trainings that the program was asked for and had not read yet."""
    names: list[str] = []
    readings = made_up_readings(made_up_arena())

    def run(_home: Home, module: str, arguments: Sequence[str], _step: object) -> dict[str, object]:
        assert module == "serving.attacks"
        given = dict(zip(arguments[0::2], arguments[1::2], strict=True))
        study = read_study(Path(given["--study"]))
        for name, rows in json.loads(Path(given["--trainings"]).read_text()).items():
            assert set(rows) <= set(study.contributors)
            path = reading_path(Path(given["--readings"]), name)
            if not path.is_file():
                names.append(name)
                write_reading(path, readings[name])
        return {}

    def preparation(*_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(base=lambda: SimpleNamespace(reference="tiny@000000000000"))

    monkeypatch.setattr(attacks_command, "run_program", run)
    monkeypatch.setattr(attacks_command, "Preparation", preparation)

    def small(name: str, rows: Sequence[Example], seed: int) -> Arena:
        return design_arena(name, rows, seed, PROFILE)

    monkeypatch.setattr(attacks_command, "design_arena", small)
    return names


def attacks(dataset: Path, *more: str) -> tuple[dict[str, Any], str]:
    home = ["--home", str(dataset.parent / "home")]
    result = CliRunner().invoke(app, ["attacks", str(dataset), *home, *more])
    if result.exception is not None:
        raise result.exception
    printed = result.stdout.splitlines()
    assert len(printed) == 1
    return json.loads(printed[0]), result.stderr


def test_it_says_its_plan_trains_and_prints_one_object(dataset: Path, trained: list[str]) -> None:
    found, said = attacks(dataset, "--quick", "--processes", "1")
    assert "30 worlds, 4 different trainings, 4 to do" in said
    assert len(trained) == found["trainings"] == 4
    assert len(found["attacks"]) == 29
    assert found["passed"] is False  # in this made-up world copies that escape are worth much
    assert found["attacks"][0]["gain"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert json.loads((Path(found["folder"]) / "attacks.json").read_text()).items() <= found.items()


def test_the_whole_goes_on_from_the_quick_and_a_second_time_starts_nothing(
    dataset: Path, trained: list[str]
) -> None:
    attacks(dataset, "--quick")
    whole, _ = attacks(dataset)
    assert len(trained) == whole["trainings"] == len(set(trained))
    assert {each["attack"] for each in whole["attacks"]} > {"rows made outliers"}
    again, said = attacks(dataset)
    assert ", 0 to do" in said
    assert len(trained) == whole["trainings"]
    assert again["attacks"] == whole["attacks"]
