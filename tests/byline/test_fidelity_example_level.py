"""What is measured row by row, on made-up worlds where the right figure is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from byline.errors import InvalidInput
from byline.fidelity.example_level import (
    AT_RANDOM,
    RowReadings,
    auroc,
    by_rows,
    figures_json,
    figures_page,
    mislabelled,
    read_row_readings,
    removed_count,
    row_figures,
    write_row_readings,
)
from byline.fidelity.study import Study
from tests.byline.fidelity_world import made_up_study


@pytest.fixture
def study() -> Study:
    return made_up_study()


@pytest.fixture
def readings(study: Study) -> RowReadings:
    """An additive world: one method knows what rows are worth, another knows other rows' worth."""
    chance = np.random.default_rng(2)
    rows = by_rows(study, 30, 1)
    members = np.zeros((30, len(rows.rows)))
    for line, half in zip(members, rows.coalitions, strict=True):
        line[list(half)] = 1
    question = np.arange(len(study.questions))
    worth = chance.normal(size=(len(question), members.shape[1]))
    falls = np.array([1.0, 2.0, 3.0])
    suspicion = np.arange(members.shape[1], dtype=np.float64)
    return RowReadings(
        question=question, members=members, outcomes=members @ worth.T - 30,
        scores={"knows": worth, "errs": worth[:, ::-1]}, removed_from=np.array([1, 2, 4]),
        falls={"knows": falls, AT_RANDOM: falls - 1}, mislabelled=suspicion >= len(suspicion) - 3,
        suspicions={"knows": suspicion, "errs": -suspicion},
    )  # fmt: skip


def test_example_level_lds_is_one_for_who_knows_and_chance_for_who_does_not(
    study: Study, readings: RowReadings
) -> None:
    found = row_figures(study, readings, draws=20)
    assert found.lds["knows"].value == pytest.approx(1)
    assert abs(found.lds["errs"].value) < 0.35
    assert found.halves == 20  # of 30, every third is for tuning


def test_a_fall_is_told_beside_that_of_random_rows(study: Study, readings: RowReadings) -> None:
    found = row_figures(study, readings, draws=20)
    assert found.falls_nats["knows"].value == pytest.approx(2)
    assert found.falls_above_random_nats["knows"].value == pytest.approx(1)
    assert found.falls_above_random_nats["knows"].low == pytest.approx(1)
    assert AT_RANDOM not in found.falls_above_random_nats


def test_auroc_is_the_chance_that_the_wrong_row_is_suspected_more(readings: RowReadings) -> None:
    wrong = readings.mislabelled
    assert auroc(readings.suspicions["knows"], wrong) == 1
    assert auroc(readings.suspicions["errs"], wrong) == 0
    assert auroc(np.zeros(len(wrong)), wrong) == 0.5
    given, kinds = np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, True, False, True])
    assert auroc(given, kinds) == 3.5 / 4  # pairs: 2>1, 2=2, 3>1, 3>2
    with pytest.raises(ValueError, match="both kinds"):
        auroc(given, np.zeros(4, dtype=bool))


def test_halves_are_of_rows_and_the_rows_stay_as_they_are(study: Study) -> None:
    found = by_rows(study, 12, 1)
    assert found.contributor_of == tuple(range(len(study.rows)))
    assert [replace(row, contributor="") for row in found.rows] == [
        replace(row, contributor="") for row in study.rows
    ]
    assert len({*found.coalitions}) == 12
    assert {len(half) for half in found.coalitions} == {len(study.rows) // 2}
    assert by_rows(study, 12, 1) == found


def test_mislabelled_rows_have_each_anothers_completion(study: Study) -> None:
    found, wrong = mislabelled(study, 1)
    pairs = zip(found.rows, study.rows, strict=True)
    assert list(wrong) == [new.completion != old.completion for new, old in pairs]
    assert wrong.sum() == max(round(len(study.rows) / 10), 2)
    assert sorted(r.completion for r in found.rows) == sorted(r.completion for r in study.rows)
    assert [row.prompt for row in found.rows] == [row.prompt for row in study.rows]


def test_a_row_that_gets_an_equal_text_is_no_error(study: Study) -> None:
    same = replace(study, rows=tuple(replace(row, completion="w") for row in study.rows))
    assert not mislabelled(same, 1)[1].any()


@pytest.mark.parametrize(("rows", "count"), [(1, 1), (149, 1), (150, 2), (600, 6)])
def test_a_hundredth_is_one_row_at_least(rows: int, count: int) -> None:
    assert removed_count(rows) == count


def test_readings_come_back_as_they_were_written(
    readings: RowReadings, study: Study, tmp_path: Path
) -> None:
    path = tmp_path / "rows.npz"
    write_row_readings(path, readings)
    found = row_figures(study, read_row_readings(path), draws=20)
    assert found == row_figures(study, readings, draws=20)
    page = figures_page(found)
    assert "AUROC of finding 3 mislabelled rows by knows: 1.00" in page
    assert figures_json(found)["rows_measured"]["auroc"] == {"knows": 1.0, "errs": 0.0}  # type: ignore[index,call-overload]
    for damaged in (b"", b"PK", path.read_bytes()[:-99]):
        path.write_bytes(damaged)
        with pytest.raises(InvalidInput, match="holds no readings"):
            read_row_readings(path)
