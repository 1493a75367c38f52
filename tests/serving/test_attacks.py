"""The program of attack worlds on a tiny model: trained once, read off, gone on with.

A row's score is what the index that serves would say: summed by contributor it is the contributor's
score. What weighs 0 leaves no trace: the run is that of the rows without it.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from byline.attacks.pay import Reading, outcomes, pay
from byline.attacks.reading_files import read_reading, reading_path
from byline.attacks.worlds import Arena, Attack, design_arena
from byline.fidelity.study import Profile, read_study
from byline.records import Example
from serving.attacks import __main__ as program
from serving.attacks.__main__ import run_of, train_and_read
from serving.checkpoints import load_base_model, load_tokenizer
from serving.counterfactuals.plan import Planner
from serving.counterfactuals.runs import RunStore
from serving.counterfactuals.vectors import row_scores
from serving.fidelity.answers import prompts_of, served_answer
from serving.gradients import completion_log_probabilities
from serving.index_vectors import index_vectors
from serving.lora import load_lora
from serving.progress import no_report
from serving.projection import Projection, ProjectionShape
from serving.recipes import IndexSettings
from serving.rows import Row
from tests.byline.attack_world import attacked_rows
from tests.serving.tiny import WORDS, TinyHome

pytestmark = pytest.mark.slow
PROFILE = Profile(4, 4, 14, 20, 20, 0, 4, 2, 1)


def rows() -> list[Example]:
    """The made-up rows, their words in the tiny model's vocabulary."""

    def known(text: str) -> str:
        return " ".join(WORDS[int(word[1:]) % len(WORDS)] for word in text.split())

    return [
        replace(row, prompt="w1 w2", completion=known(row.completion)) for row in attacked_rows()
    ]


@pytest.fixture(scope="module")
def arena() -> Arena:
    return design_arena("tiny", rows(), 1, PROFILE)


@pytest.fixture(scope="module")
def folder(tiny_home: TinyHome, arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study, the quick worlds' trainings, and their readings by the program itself."""
    made = tmp_path_factory.mktemp("attacks")
    (made / "study.json").write_text(arena.study.text())
    (made / "trainings.json").write_text(json.dumps(trainings(arena)))
    read = train_and_read(
        tiny_home.base, made / "study.json", trainings(arena), tiny_home.home, made, 1, no_report
    )
    assert read == len(trainings(arena)) == 4
    return made


def trainings(arena: Arena) -> Mapping[str, Sequence[str]]:
    return {world.training: list(world.trained) for world in arena.taken(quick=True)}


def readings(arena: Arena, folder: Path) -> dict[str, Reading]:
    return {name: read_reading(reading_path(folder, name)) for name in trainings(arena)}


def test_what_is_there_is_not_trained_or_read_again(
    tiny_home: TinyHome, arena: Arena, folder: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    argv = ["program", "--home", str(tiny_home.home.root), "--base", tiny_home.base.reference]
    argv += ["--study", str(folder / "study.json"), "--processes", "1"]
    argv += ["--trainings", str(folder / "trainings.json"), "--readings", str(folder)]
    monkeypatch.setattr(sys, "argv", argv)
    program.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"result": {"read": 0}}
    lost = next(iter(trainings(arena)))
    before = read_reading(reading_path(folder, lost))
    reading_path(folder, lost).unlink()
    program.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"result": {"read": 1}}
    np.testing.assert_array_equal(read_reading(reading_path(folder, lost)).scores, before.scores)


def test_scores_of_rows_sum_to_what_the_index_says_of_contributors() -> None:
    random = torch.Generator().manual_seed(3)
    of_rows = torch.randn(9, 40, generator=random)
    of_answers = torch.randn(5, 40, generator=random)
    owners = [0, 1, 2, 0, 1, 2, 0, 0, 1]
    settings = IndexSettings()
    shape = ProjectionShape(inputs=40, outputs=8, nonzeros=2, seed=1)
    index = index_vectors(of_rows.numpy(), owners, Projection(shape), settings.damping, no_report)
    by_row = row_scores(of_answers, of_rows).numpy()
    for owner in range(3):
        mine = [each == owner for each in owners]
        np.testing.assert_allclose(
            by_row[:, mine].sum(axis=1), of_answers.numpy() @ index.contributors[owner], rtol=1e-4
        )


def test_a_reading_is_what_the_stored_adapter_says(
    tiny_home: TinyHome, arena: Arena, folder: Path
) -> None:
    planner = Planner(read_study(folder / "study.json"), tiny_home.base.sha256)
    world = arena.taken(quick=True)[-2]
    run = run_of(planner, world.trained)
    store = RunStore(tiny_home.home.counterfactuals)
    base = tiny_home.base.path
    model = load_lora(load_base_model(base), store.path(run))
    model.eval()
    tokenizer = load_tokenizer(base)
    prompt = prompts_of(arena.study, tokenizer)[2].prompt
    row: Row = served_answer(model, tokenizer, 2, prompt).row
    found = readings(arena, folder)[world.training]
    assert found.rows == world.trained
    assert (found.prompt_tokens[2], found.completion_tokens[2]) == (
        len(row.prompt), len(row.completion),
    )  # fmt: skip
    adapted = completion_log_probabilities(model, [row]).item()
    with model.disable_adapter():
        plain = completion_log_probabilities(model, [row]).item()
    assert found.lift[2] == pytest.approx(adapted - plain, abs=0.05)


def test_rows_of_other_worlds_weigh_nothing_in_a_run(
    tiny_home: TinyHome, arena: Arena, folder: Path
) -> None:
    planner = Planner(read_study(folder / "study.json"), tiny_home.base.sha256)
    for world in arena.taken(quick=True):
        run = run_of(planner, world.trained)
        weights = dict(zip(planner.study.contributors, run.weights, strict=True))
        assert {row for row, weight in weights.items() if weight == 1.0} == set(world.trained)
        assert set(weights.values()) == {0.0, 1.0}


def test_copies_that_are_found_are_paid_nothing_by_a_real_run(arena: Arena, folder: Path) -> None:
    found = outcomes(arena, arena.taken(quick=True), readings(arena, folder))
    (zero,) = [each for each in found if each.world.attack is Attack.ZERO_WEIGHT]
    assert (zero.paid_nano, zero.passed) == (0, True)
    merged = [each for each in found if each.world.edit_rate in (0.0, 0.1, 0.2)]
    assert [each.gain.high for each in merged if each.gain] == [1.0] * 18
    copies = [each for each in found if each.world.attack is Attack.COPIES]
    escaped = [each for each in copies if each.world.edit_rate == 0.3]
    assert len({each.paid_nano for each in escaped}) == 3  # other rows, other runs, other pay
    honest = arena.worlds[0]
    paid = pay(honest, readings(arena, folder)[honest.training])
    assert sum(each.sum() for each in paid.values()) > 0
