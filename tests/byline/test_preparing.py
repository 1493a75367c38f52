"""Trainings and indexes run two at a time, each as the program it would be alone; none is left."""

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from byline.artifacts import Artifact
from byline.command import preparing
from byline.command.preparing import AT_ONCE, Preparation, run_program
from byline.command.progress import Display, Step
from byline.errors import StartFailed
from byline.home import Home
from byline.records import AdapterVersion, Release
from byline.registry import read_release, write_release

BASE = Artifact("base", "tiny", "0" * 64, Path(), {})
DATASETS = {name: Artifact("datasets", name, "1" * 64, Path(), {}) for name in ("a", "b", "c")}
# Says what it is asked, makes progress, and ends only if it may.
PROGRAM = """
import json, sys, time
print(json.dumps({"progress": {"done": 1, "total": 2}}), flush=True)
if "forever" in sys.argv:
    time.sleep(600)
if "broken" in sys.argv:
    sys.exit("no such row")
print(json.dumps({"result": {"arguments": sys.argv[1:], "long": "x" * 200_000}}), flush=True)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home, and a program `made_up_program` that its preparation can run."""
    (tmp_path / "made_up_program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return Home(tmp_path / "home")


class Steps:
    """How far a program said it was."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def advance(self, done: int, total: int) -> None:
        self.seen.append((done, total))


def test_a_programs_progress_is_shown_and_its_result_answered(home: Home) -> None:
    steps = Steps()
    result = run_program(home, "made_up_program", ["quick"], steps)
    assert result["arguments"] == ["--home", str(home.root), "quick"]
    assert len(result["long"]) == 200_000
    assert steps.seen == [(1, 2)]


def test_a_program_that_fails_says_why_in_its_last_words(home: Home) -> None:
    with pytest.raises(StartFailed, match="no such row"):
        run_program(home, "made_up_program", ["broken"], Steps())


def test_a_preparation_that_is_stopped_leaves_no_program(home: Home) -> None:
    class Stopped(Steps):
        def advance(self, done: int, total: int) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)  # as `byline up` does
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_program(home, "made_up_program", ["forever"], Stopped())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert time.monotonic() - began < 60.0
    assert not [child for child in psutil.Process().children() if "forever" in child.cmdline()]


class MadeUpPrograms:
    """Stands for the programs: each takes a turn of the loop; how many ran at once is kept."""

    def __init__(self, broken: str = "") -> None:
        self.began: list[tuple[str, str]] = []
        self.stopped: list[str] = []
        self.at_once = self.at_once_max = 0
        self.threads: set[str] = set()
        self._broken = broken

    async def run(
        self, _home: Home, module: str, arguments: Sequence[str], _step: Step, *, log_name: str
    ) -> dict[str, Any]:
        kind, name = module.removeprefix("serving."), log_name.removeprefix(f"{module}-")
        self.began.append((kind, name))
        if kind == "index_builder":
            self.threads.add(arguments[arguments.index("--threads") + 1])
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        try:
            await asyncio.sleep(0.01 if self._broken in ("", name) else 60.0)
        except asyncio.CancelledError:
            self.stopped.append(name)
            raise
        finally:
            self.at_once -= 1
        if name == self._broken:
            raise StartFailed(f"no rows in {name}")
        return {"reference": f"{name}@{kind}"}


def prepared(
    programs: MadeUpPrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], dict[str, Any], Display]:
    """What the programs made of three datasets: adapters, indexes, and the times."""
    display = Display()
    preparation = Preparation(Home(tmp_path), display, model="tiny", everything=False)
    opened = SimpleNamespace(open=lambda _kind, reference: SimpleNamespace(reference=reference))
    monkeypatch.setattr(preparing, "_run", programs.run)
    monkeypatch.setattr(preparation, "_store", opened)
    adapters, indexes = asyncio.run(preparation._adapters_and_indexes(BASE, DATASETS))
    return adapters, indexes, display


def test_two_run_at_a_time_and_each_index_after_its_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = MadeUpPrograms()
    adapters, indexes, display = prepared(programs, tmp_path, monkeypatch)
    assert {name: made.reference for name, made in adapters.items()} == {
        name: f"{name}@training" for name in DATASETS
    }
    assert {name: made.reference for name, made in indexes.items()} == {
        name: f"{name}@index_builder" for name in DATASETS
    }
    assert programs.at_once_max == AT_ONCE
    for name in DATASETS:
        first, then = programs.began.index(("training", name)), ("index_builder", name)
        assert first < programs.began.index(then)
    assert len(programs.began) == 6
    assert set(display.seconds) == {"training", "indexing"}


def test_one_adapter_by_itself_has_the_same_threads_and_so_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = MadeUpPrograms()
    prepared(programs, tmp_path, monkeypatch)
    together = set(programs.threads)
    preparation = Preparation(Home(tmp_path), Display(), model="tiny", everything=False)
    opened = SimpleNamespace(open=lambda *_: BASE)
    monkeypatch.setattr(preparation, "_store", opened)
    preparation.adapter("a", BASE, DATASETS["a"])
    preparation.index("a", BASE, DATASETS["a"], BASE)
    assert len(programs.began) == 8
    assert len(together) == 1
    assert programs.threads == together


def test_if_one_fails_what_runs_beside_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = MadeUpPrograms(broken="b")
    with pytest.raises(StartFailed, match="no rows in b"):
        prepared(programs, tmp_path, monkeypatch)
    assert "a" in programs.stopped
    assert programs.at_once == 0
    assert not [kind for kind, _ in programs.began if kind == "index_builder"]


def test_an_index_is_taken_into_the_release_of_its_adapter_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    preparation = Preparation(home, Display(), model="tiny", everything=False)
    index = Artifact("indexes", "a", "2" * 64, Path(), {})
    adapter = Artifact("adapters", "a", "3" * 64, Path(), {})
    assert not preparation.take_into_release(adapter, index)
    assert not home.release.exists()
    versions = tuple(
        AdapterVersion(
            adapter=name, version=f"{name}@{digit * 12}", path=f"adapters/{name}", owner=name,
            base_model="tiny", dataset=f"{name}@1", index=f"{name}@old",
        )
        for name, digit in (("a", "3"), ("b", "4"))
    )  # fmt: skip
    release = Release("tiny", "base/tiny", 256, versions, "router@000000000000")
    write_release(home.release, release)
    assert preparation.take_into_release(adapter, index)
    served = {each.adapter: each.index for each in read_release(home.release).adapters}
    assert served == {"a": index.reference, "b": "b@old"}
    other = Artifact("adapters", "a", "5" * 64, Path(), {})
    assert not preparation.take_into_release(other, index)
    assert read_release(home.release).adapters[0].index == index.reference
