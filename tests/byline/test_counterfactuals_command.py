"""`byline counterfactuals`: the steps in their order, and what it says at the end.

The programs beside the model are tested with a tiny model in tests/serving/test_retraining.py.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from byline.command import __main__ as command
from byline.errors import BylineError
from byline.home import Home

ADAPTER = SimpleNamespace(reference="weather@000000000000")


class MadeUpPreparation:
    """Says what it was asked, in order."""

    def __init__(self, found: dict[str, Any], *, is_released: bool) -> None:
        self.asked: list[str] = []
        self._found, self._is_released = found, is_released

    def dataset(self, name: str) -> str:
        self.asked.append(f"dataset {name}")
        return name

    def base(self) -> str:
        self.asked.append("base")
        return "base"

    def adapter(self, name: str, _base: str, _dataset: str) -> SimpleNamespace:
        self.asked.append(f"adapter {name}")
        return ADAPTER

    def counterfactuals(
        self, _base: str, _dataset: str, adapter: SimpleNamespace, *, orders: int, rate: str,
        groups: int,
    ) -> dict[str, Any]:  # fmt: skip
        self.asked.append(f"runs of {adapter.reference}, {orders} orders, rate {rate}")
        self.groups = groups
        return self._found

    def index(self, *_: object) -> SimpleNamespace:
        self.asked.append("index")  # after the runs: it is made of them
        return SimpleNamespace(reference="weather@111111111111")

    def take_into_release(self, *_: object) -> bool:
        self.asked.append("release")
        return self._is_released


def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, preparation: MadeUpPreparation, *more: str
) -> str:
    display = SimpleNamespace(seconds={"counterfactuals": 1.5})
    monkeypatch.setattr(command, "_preparation", lambda *_: (preparation, display))
    arguments = ["counterfactuals", "weather", "--home", str(tmp_path), *more]
    result = CliRunner().invoke(command.app, arguments)
    assert result.exception is None
    return result.stdout


def test_runs_come_before_the_index_and_the_release_is_last(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = {"runs": 8, "reliability_ppb": 812_345_678, "orders_distance": 0.0712}
    preparation = MadeUpPreparation(found, is_released=True)
    said = run(monkeypatch, tmp_path, preparation, "--orders", "3", "--rate", "1/7")
    assert preparation.asked == [
        "dataset weather", "base", "adapter weather",
        "runs of weather@000000000000, 3 orders, rate 1/7", "index", "release",
    ]  # fmt: skip
    assert "8 runs, reliability 81 %, orders' shares differ by 0.07" in said
    assert "byline up" in said


def test_an_adapter_that_is_not_served_changes_nothing_that_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = {"runs": 4, "reliability_ppb": None, "orders_distance": None}
    preparation = MadeUpPreparation(found, is_released=False)
    said = run(monkeypatch, tmp_path, preparation)
    assert "not measured: one order" in said
    assert "byline up" not in said
    result = json.loads(run(monkeypatch, tmp_path, preparation, "--json"))
    assert result["index"] == "weather@111111111111"
    assert (result["released"], result["runs"]) == (False, 4)


@pytest.mark.parametrize(
    ("more", "plan", "said"),
    [
        (["--rate", "2"], None, "not in (0, 1]"),
        (["--rate", "0"], None, "not in (0, 1]"),
        (["--rate", "often"], None, "no audit rate"),
        ([], '{"rate": "1/20", "adapt', "no plan of audits"),
        ([], '{"rate": "1/20"}', "no plan of audits"),
        ([], "[]", "no plan of audits"),
    ],
)
def test_what_cant_be_done_is_refused_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more: list[str], plan: str | None, said: str
) -> None:
    if plan is not None:
        Home(tmp_path).audit_plan.write_text(plan)
    preparation = MadeUpPreparation({}, is_released=True)
    monkeypatch.setattr(command, "_preparation", lambda *_: (preparation, None))
    arguments = ["counterfactuals", "weather", "--home", str(tmp_path), *more]
    result = CliRunner().invoke(command.app, arguments)
    assert said in str(result.exception)
    assert isinstance(result.exception, BylineError)  # which the command says in one line
    assert preparation.asked == []


@pytest.mark.parametrize("orders", ["0", "-1"])
def test_no_order_is_no_retraining(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, orders: str
) -> None:
    preparation = MadeUpPreparation({}, is_released=True)
    monkeypatch.setattr(command, "_preparation", lambda *_: (preparation, None))
    arguments = ["counterfactuals", "weather", "--home", str(tmp_path), "--orders", orders]
    assert CliRunner().invoke(command.app, arguments).exit_code == 2
    assert preparation.asked == []
