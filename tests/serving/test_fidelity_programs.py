"""The two programs of a fidelity measurement on a tiny model: trained once, resumed, read off.

What is read off is what the models say: log-probabilities by PEFT itself, the served answer's
tokens, and scores that foretell the effects better than permuted ones.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from byline.canonical import sha256_hex
from byline.errors import StartFailed
from byline.fidelity.evaluation import choose, judge
from byline.fidelity.example_level import read_row_readings, row_figures
from byline.fidelity.measures import effect_correlation, lds
from byline.fidelity.methods import COSTS, TANGENT, all_variants
from byline.fidelity.readings import (
    FRONTIER,
    Readings,
    membership_of,
    read_readings,
    read_scores,
)
from byline.fidelity.study import Profile, Study, design
from byline.home import Home
from serving.checkpoints import load_base_model, load_tokenizer
from serving.counterfactuals import __main__ as training_program
from serving.counterfactuals.plan import Planner
from serving.counterfactuals.pool import train_missing
from serving.counterfactuals.run_files import HASH, WEIGHTS
from serving.counterfactuals.runs import RunStore
from serving.fidelity import __main__ as reading_program
from serving.fidelity import by_row, grouped
from serving.fidelity.__main__ import read_off
from serving.fidelity.answers import COMPLETION_TOKENS_MAX, prompts_of
from serving.fidelity.sentences import packaged_model
from serving.gradients import completion_log_probabilities
from serving.lora import load_lora
from serving.progress import no_report
from serving.rows import Row
from tests.serving.tiny import TinyHome, examples

pytestmark = pytest.mark.slow
PROFILE = Profile(4, 4, 14, 12, 12, 6, 4, 2, 2)


@pytest.fixture(scope="session")
def study() -> Study:
    return design("tiny", examples(4, 5), PROFILE, 1)


@pytest.fixture(scope="session")
def study_file(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "study.json"
    path.write_text(study.text())
    return path


@pytest.fixture(scope="session")
def readings_file(tiny_home: TinyHome, study: Study, study_file: Path) -> Path:
    """Everything trained and read off; the first run was there before."""
    home = tiny_home.home
    store = RunStore(home.counterfactuals)
    plan = Planner(study, tiny_home.base.sha256).plan()
    told: list[tuple[int, int]] = []

    def report(_what: str, done: int, total: int) -> None:
        told.append((done, total))

    trained = train_missing(tiny_home.base, study_file, home.counterfactuals, (1, 3), report)
    assert trained == len(plan)
    assert not store.missing(plan)
    assert told[-1][0] == told[-1][1] > 0
    path = study_file.parent / "readings.npz"
    read_off(tiny_home.base, study_file, home, path, no_report)
    return path


@pytest.fixture
def readings(readings_file: Path) -> Readings:
    return read_readings(readings_file)


def test_what_is_trained_is_not_trained_again(
    tiny_home: TinyHome, study: Study, study_file: Path, readings_file: Path
) -> None:
    root, base = tiny_home.home.counterfactuals, tiny_home.base
    assert train_missing(base, study_file, root, (1, 1), no_report) == 0
    store = RunStore(root)
    run = Planner(study, base.sha256).coalitions()[0]
    before = (store.path(run) / "adapter_model.safetensors").read_bytes()
    (store.path(run) / "run.json").unlink()
    for file in store.path(run).iterdir():
        file.unlink()
    store.path(run).rmdir()
    assert train_missing(base, study_file, root, (2, 1), no_report) == 1
    after = (store.path(run) / "adapter_model.safetensors").read_bytes()
    assert len(before) == len(after)
    assert readings_file.is_file()


def test_log_probabilities_are_those_of_the_stored_adapters(
    tiny_home: TinyHome, study: Study, readings: Readings
) -> None:
    planner, base = Planner(study, tiny_home.base.sha256), tiny_home.base
    store = RunStore(tiny_home.home.counterfactuals)
    tokenizer = load_tokenizer(base.path)
    prompts = prompts_of(study, tokenizer)
    place = int(np.flatnonzero(~readings.is_served)[0])
    row = prompts[readings.question[place]]
    assert readings.repeated is not None
    assert readings.repeated.shape == (1, *readings.coalitions.shape)
    assert not np.array_equal(readings.repeated[0], readings.coalitions), "another order's"
    for run, found in (
        (planner.leave_one_out(study.orders[0])[1], readings.without[0, place, 1]),
        (planner.full(study.orders[1]), readings.full[1, place]),
        (planner.coalitions()[2], readings.coalitions[2, place]),
        (planner.coalitions(study.orders[1])[2], readings.repeated[0, 2, place]),
    ):
        model = load_lora(load_base_model(base.path), store.path(run))
        expected = completion_log_probabilities(model, [row]).item()
        assert found == pytest.approx(expected, abs=0.05)
    with model.disable_adapter():
        plain = completion_log_probabilities(model, [row]).item()
    assert readings.base[place] == pytest.approx(plain, abs=0.05)


def test_rows_are_scored_too_and_add_up_to_their_contributors(
    study: Study, readings: Readings
) -> None:
    assert readings.by_row is not None
    assert readings.by_row.shape == (len(readings.question), len(study.rows))
    members = np.eye(len(study.contributors))[list(study.contributor_of)]
    whole = readings.scores["damped fisher/lambda 0.1"]
    np.testing.assert_allclose(readings.by_row @ members, whole, atol=0.02 * np.abs(whole).max())


def test_served_answers_are_what_the_full_adapter_says(
    tiny_home: TinyHome, study: Study, readings: Readings, readings_file: Path
) -> None:
    planner, base = Planner(study, tiny_home.base.sha256), tiny_home.base
    store = RunStore(tiny_home.home.counterfactuals)
    model = load_lora(load_base_model(base.path), store.path(planner.full(study.orders[0])))
    model.eval()
    prompt = prompts_of(study, load_tokenizer(base.path))[0].prompt
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(COMPLETION_TOKENS_MAX):
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
            ids.append(int(logits.argmax()))
            if ids[-1] == load_tokenizer(base.path).eos_token_id:
                break
    row = Row(prompt, tuple(ids[len(prompt) :]))
    assert readings.tokens[0] == len(row.completion)
    expected = completion_log_probabilities(model, [row]).item()
    assert readings.full[0, 0] == pytest.approx(expected, abs=0.05)
    texts = json.loads(readings_file.with_suffix(".json").read_text())
    assert len(texts) == len(readings.question)
    assert texts[0]["text"] == load_tokenizer(base.path).decode(
        list(row.completion), skip_special_tokens=True
    )


def test_every_method_is_measured_and_the_tangent_foretells_effects(
    study: Study, readings: Readings, readings_file: Path
) -> None:
    texts = [each["text"] for each in json.loads(readings_file.with_suffix(".json").read_text())]
    variants = all_variants(study, readings, texts)
    measured = [name for name in COSTS if name != "sentence embeddings" or packaged_model()]
    assert list(variants) == measured
    tangent = effect_correlation(variants[TANGENT]["all"], readings.effects[0])
    exchanged = effect_correlation(
        np.roll(variants[TANGENT]["all"], 1, axis=1), readings.effects[0]
    )
    assert tangent > 0.8
    assert exchanged < tangent - 0.3
    judged = judge(
        study, readings, variants, choose(study, readings, variants), served=True, draws=20
    )
    assert list(judged.methods) == measured


def test_cheaper_tangents_are_parts_and_estimates_of_the_tangent(readings: Readings) -> None:
    found = {
        tuple(key.split("/")[1:]): scores
        for key, scores in readings.scores.items()
        if key.startswith(FRONTIER)
    }
    by_form = {form: scores for (form, _), scores in found.items()}
    sizes = {form: int(size) for form, size in found}
    whole = readings.scores["tangent/all"]
    np.testing.assert_allclose(by_form["all"], whole)
    np.testing.assert_allclose(by_form["B alone"], readings.scores["tangent/B alone"])
    np.testing.assert_allclose(by_form["A alone"] + by_form["B alone"], whole, atol=1e-6)
    thirds = [form for form in by_form if form.endswith("third of the layers")]
    np.testing.assert_allclose(sum(by_form[form] for form in thirds), whole, atol=1e-6)
    assert sum(sizes[form] for form in thirds) == sizes["all"] == 2 * sizes["all, in 16 bits"]
    near = np.corrcoef(by_form["projected to 65,536 numbers"].ravel(), whole.ravel())[0, 1]
    far = np.corrcoef(by_form["projected to 4,096 numbers"].ravel(), whole.ravel())[0, 1]
    assert near > 0.99
    assert 0.5 < far < near


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_vectors_exchanged_on_disk_drop_fidelity_to_chance(
    tiny_home: TinyHome, study: Study, readings: Readings, readings_file: Path, tmp_path: Path,
    shift: int,
) -> None:  # fmt: skip
    """Adapters without one contributor are what vectors are made of: here each is another's."""
    home = Home(tmp_path)
    shutil.copytree(tiny_home.home.counterfactuals, home.counterfactuals)
    store = RunStore(home.counterfactuals)
    runs = Planner(study, tiny_home.base.sha256).leave_one_out(study.orders[0])
    files = [store.path(run) / WEIGHTS for run in runs]
    weights = [file.read_bytes() for file in files]
    for file, other in zip(files, weights[shift:] + weights[:shift], strict=True):
        file.write_bytes(other)
        file.with_name(HASH).write_text(sha256_hex(other))  # else it is refused, as changed
    path = tmp_path / "readings.npz"
    path_of_study = readings_file.parent / "study.json"
    read_off(tiny_home.base, path_of_study, home, path, no_report)
    real, exchanged = tangent_lds(study, readings), tangent_lds(study, read_readings(path))
    assert real > 0.8
    assert exchanged < 0.2


def tangent_lds(study: Study, readings: Readings) -> float:
    """The tangent's, over all answers and coalitions: this study has few of either."""
    members = membership_of(study, readings)
    return lds(readings.scores["tangent/all"], members, readings.coalitions.T)


def test_a_killed_program_takes_its_workers_with_it_and_is_gone_on_with(
    tiny_home: TinyHome, tmp_path: Path
) -> None:
    study = design("larger", examples(6, 8), Profile(6, 8, 40, 12, 12, 18, 1, 1, 1), 1)
    path = tmp_path / "study.json"
    path.write_text(study.text())
    store = RunStore(tiny_home.home.counterfactuals)
    plan = Planner(study, tiny_home.base.sha256).plan()
    argv = [sys.executable, "-m", "serving.counterfactuals", "--home", str(tiny_home.home.root)]
    argv += ["--base", tiny_home.base.reference, "--study", str(path), "--processes", "1"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as program:
        assert program.stdout is not None
        while len(store.missing(plan)) == len(plan):
            assert program.stdout.readline(), "it ended without a run"
        workers = psutil.Process(program.pid).children(recursive=True)
        assert workers
        program.kill()
    left = len(store.missing(plan))
    assert 1 < left < len(plan)
    assert not psutil.wait_procs(workers, timeout=10)[1]
    assert len(store.missing(plan)) >= left - 1  # nobody went on
    assert train_missing(tiny_home.base, path, store.root, (1, 8), no_report) >= left - 1
    assert not store.missing(plan)


def test_the_two_programs_answer_in_json(
    tiny_home: TinyHome, study_file: Path, readings_file: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    always = ["--home", str(tiny_home.home.root), "--base", tiny_home.base.reference]
    always += ["--study", str(study_file)]
    monkeypatch.setattr(sys, "argv", ["program", *always])
    training_program.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"result": {"trained": 0}}
    target = tmp_path / "readings.npz"
    monkeypatch.setattr(
        sys, "argv", ["program", *always, "--readings", str(target), "--threads", "1"]
    )
    reading_program.main()
    assert "seconds" in json.loads(capsys.readouterr().out.splitlines()[-1])["result"]
    left, right = read_readings(target), read_readings(readings_file)
    np.testing.assert_array_equal(left.coalitions, right.coalitions)


def test_nothing_is_read_off_before_it_is_trained(
    tiny_home: TinyHome, study_file: Path, tmp_path: Path
) -> None:
    home = Home(tmp_path)
    with pytest.raises(StartFailed, match=r"5 runs .* 6 coalitions are not trained"):
        read_off(tiny_home.base, study_file, home, tmp_path / "readings.npz", no_report)


def test_rows_are_measured_by_the_same_runs(
    tiny_home: TinyHome, study: Study, study_file: Path, readings_file: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Halves of rows, top rows left out, mislabelled rows: trained, read off, and judged."""
    target = study_file.parent / "rows.npz"
    arguments = [
        "by_row", "--home", str(tiny_home.home.root), "--base", tiny_home.base.reference,
        "--study", str(study_file), "--readings", str(target), "--halves", "9",
        "--removals", "2", "--processes", "1",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", arguments)
    by_row.main()
    assert "seconds" in json.loads(capsys.readouterr().out.splitlines()[-1])["result"]
    found, whole = read_row_readings(target), read_readings(readings_file)
    rows = len(study.rows)
    assert found.members.shape == (9, rows)
    assert whole.by_row is not None
    served = whole.is_served
    np.testing.assert_allclose(found.scores["damped fisher"], whole.by_row[served], rtol=1e-6)
    summed = (
        found.scores["gradient dot"] @ np.eye(len(study.contributors))[list(study.contributor_of)]
    )
    np.testing.assert_allclose(summed, whole.scores["gradient dot/plain"][served], rtol=1e-5)
    assert all(fall.shape == (2,) and fall.any() for fall in found.falls.values())
    figures = row_figures(study, found, draws=20)
    assert figures.halves == 6
    assert 0 <= figures.auroc["self-influence"] <= 1
    before = target.read_bytes()
    by_row.main()  # nothing is trained again, and the same comes out
    assert json.loads(capsys.readouterr().out.splitlines()[0])["progress"]["what"] == "answers"
    again = read_row_readings(target)
    np.testing.assert_array_equal(again.outcomes, found.outcomes)
    assert len(before) == len(target.read_bytes())


def test_tangents_of_groups_are_read_by_the_same_runs(
    tiny_home: TinyHome, study: Study, study_file: Path, readings_file: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """As many groups of contributors as contributors are the tangent itself, row by row."""
    target = study_file.parent / "groups.npz"
    contributors = len(study.contributors)
    arguments = [
        "grouped", "--home", str(tiny_home.home.root), "--base", tiny_home.base.reference,
        "--study", str(study_file), "--readings", str(target),
        "--groups", str(contributors), "--processes", "1",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", arguments)
    grouped.main()
    assert "seconds" in json.loads(capsys.readouterr().out.splitlines()[-1])["result"]
    found, whole = read_scores(target), read_readings(readings_file)
    by_kind = {name.split(" of ")[-1].split("/")[0]: name for name in found}
    assert set(by_kind) == {"contributors", "rows"}
    assert all(name.startswith(f"{FRONTIER}/tangents of ") for name in found)
    assert all(scores.shape == (len(whole.question), contributors) for scores in found.values())
    assert by_kind["contributors"].startswith(f"{FRONTIER}/tangents of {contributors} groups")
    np.testing.assert_allclose(
        found[by_kind["contributors"]], whole.scores["tangent/all"], atol=1e-5
    )
    assert effect_correlation(found[by_kind["rows"]], whole.effects[0]) > 0.8
    grouped.main()  # nothing is trained again, and the same comes out
    again = read_scores(target)
    assert all(np.array_equal(again[name], scores) for name, scores in found.items())
