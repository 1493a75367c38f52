"""`byline attribution replay`: a record replays from its JSON alone, and a changed one does not.

Status 0 and one sentence a check where all is well; 1 and the sentence that says what differs.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from byline.attribution import Measurement, attribute, failed
from byline.canonical import canonical_text, digest
from byline.command.__main__ import app
from byline.command.attribution_commands import attribution_app
from byline.records import AttributionJob, ServedTokens
from byline.records_json import attribution_fields
from byline.served import served_bytes, write_served
from tests.byline.test_attribution import JOB

runner = CliRunner()
SCORES = {"alice": 0.75, "bob": 0.25, "carol": -0.125}
Change = Callable[[dict[str, Any]], object]


def record(
    job: AttributionJob = JOB,
    reliability: int | None = None,
    rows: Sequence[tuple[str, float]] | None = None,
) -> dict[str, Any]:
    measurement = Measurement(
        lift_nats=2.0, scores=SCORES, examples=(), reliability_ppb=reliability, row_scores=rows
    )
    fields: dict[str, Any] = json.loads(
        canonical_text(attribution_fields(attribute(job, measurement)))
    )
    return fields


def replay(tmp_path: Path, found: Mapping[str, Any], *more: str) -> tuple[int, dict[str, Any], str]:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(found))
    arguments = ["replay", "--record", str(path), *more]
    as_json = runner.invoke(attribution_app, [*arguments, "--json"])
    text = runner.invoke(attribution_app, arguments)
    assert as_json.exit_code == text.exit_code
    return as_json.exit_code, json.loads(as_json.stdout.splitlines()[-1]), text.stdout


def failing(facts: Mapping[str, Any]) -> list[str]:
    return [check["check"] for check in facts["checks"] if not check["passed"]]


@pytest.mark.parametrize("reliability", [None, 400_000_000, 0])
def test_a_record_replays_anywhere(tmp_path: Path, reliability: int | None) -> None:
    given = record(reliability=reliability)
    status, facts, text = replay(tmp_path, given)
    assert (status, failing(facts), facts["replayed"]) == (0, [], True)
    assert facts["records"] == [digest(given)]
    assert "NOT" not in text
    assert "recomputed from the scores" in text


def test_what_the_api_answers_replays_choice_by_choice(tmp_path: Path) -> None:
    choices = [record(), record(replace(JOB, ordinal=1, pool_nano=7))]
    whole = {"object": "attribution", "id": JOB.inference, "choices": choices}
    for found in (whole, {"id": "chatcmpl", "choices": [{"message": {}}], "byline": whole}):
        status, facts, _ = replay(tmp_path, found)
        assert status == 0
        assert {check["choice"] for check in facts["checks"]} == {0, 1}


def test_a_failure_replays_to_a_pool_that_is_unattributed(tmp_path: Path) -> None:
    fields = dict(attribution_fields(failed(JOB, "given up")))
    assert replay(tmp_path, fields)[0] == 0
    status, facts, _ = replay(tmp_path, {**fields, "unattributed_nano": 1})
    assert (status, failing(facts)) == (1, ["unattributed"])


def move(field: str, more: int) -> Change:
    def change(fields: dict[str, Any]) -> None:
        fields["shares"][0][field] += more
        fields["shares"][1][field] -= more

    return change


def swap(fields: dict[str, Any]) -> None:
    fields["shares"].reverse()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (move("share_ppb", 1), ["shares"]),
        (move("nano", 1), ["money"]),
        (lambda f: f["scores"].update(alice=750_000_100), ["shares", "shown_scores"]),
        (lambda f: f["scores"].update(carol=1), ["shares", "money", "shown_scores"]),
        (lambda f: f["scores"].pop("bob"), ["shares", "money", "shown_scores"]),
        (lambda f: f["scores"].update(alice=0.75), ["scores", "shares", "money", "shown_scores"]),
        (lambda f: f.update(lift_nats=-1.0), ["reason", "shares", "money", "unattributed",
                                              "shown_scores"]),
        (lambda f: f.update(reliability_ppb=600_000_000), ["shares", "money", "unattributed"]),
        (lambda f: f.update(pool_nano=12_346), ["money"]),
        (lambda f: f.update(reason="because"), ["reason"]),
        (lambda f: f.update(pool_nano=-1), ["replayable"]),
        (lambda f: f.update(v=1), ["replayable"]),
        (lambda f: f.update(v=4), ["replayable"]),
        (lambda f: f.update(claims={"alice": 3, "bob": 1}), ["shown_scores"]),
        (lambda f: f.update(claims={"alice": 1, "bob": 3}), ["shares", "money", "shown_scores"]),
        (lambda f: f.update(claims={"alice": 2.75, "bob": 1}), ["scores", "shown_scores"]),
        (lambda f: f.update(state="pending"), ["replayable"]),
        (swap, ["shares", "money", "shown_scores"]),
    ],
)  # fmt: skip
def test_a_record_that_was_changed_does_not_replay(
    tmp_path: Path, change: Change, found: Sequence[str]
) -> None:
    fields = record()
    change(fields)
    status, facts, text = replay(tmp_path, fields)
    assert status == 1
    assert failing(facts) == list(found)
    assert text.count("NOT ") == len(found)


def test_a_difference_is_said_with_both_numbers(tmp_path: Path) -> None:
    fields = record()
    move("nano", 5)(fields)
    _, _, text = replay(tmp_path, fields)
    nano = fields["shares"][0]["nano"]
    assert f"recorded for alice: {nano} nano-USD, recomputed {nano - 5}" in text


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "{}",
        '{"choices": []}',
        '{"choices": 4}',
        '{"scores": {}}',
        '{"scores": {"a": 90071992547409930}}',
    ],
)
def test_what_is_no_record_is_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    found = runner.invoke(attribution_app, ["replay", "--record", str(path)])
    assert found.exit_code == 1
    assert type(found.exception).__name__ == "InvalidInput"


def test_an_id_or_a_record_and_not_both() -> None:
    for arguments in (["replay"], ["replay", "ID", "--record", "x"]):
        found = runner.invoke(attribution_app, arguments)
        assert type(found.exception).__name__ == "InvalidInput"


def test_an_id_without_a_word_before_it_is_shown(tmp_path: Path) -> None:
    for arguments in (["ID"], ["--json", "ID"], ["show", "ID"]):
        found = runner.invoke(app, ["attribution", *arguments, "--home", str(tmp_path)])
        assert "nothing runs in" in str(found.exception)


SERVED = ServedTokens(JOB.inference, (1, 2), ((3, 4),), salt="ab" * 16)


def with_tokens(
    tmp_path: Path, rows: Sequence[tuple[str, float]] | None = None
) -> tuple[dict[str, Any], Path]:
    job = replace(JOB, tokens_sha256=write_served(tmp_path, SERVED))
    (segment,) = tmp_path.glob("*.tokens")
    return record(job, rows=rows), segment


def test_token_ids_with_another_hash_are_refused(tmp_path: Path) -> None:
    fields, _ = with_tokens(tmp_path)
    other = tmp_path / "other.json"
    other.write_bytes(served_bytes(replace(SERVED, choices=((3, 5),))))
    status, facts, text = replay(tmp_path, fields, "--tokens", str(other))
    assert (status, failing(facts)) == (1, ["tokens"])
    assert "do NOT have the recorded hash" in text


@pytest.mark.parametrize(
    ("again", "status"),
    [
        (SCORES, 0),
        ({**SCORES, "bob": 0.2507}, 0),
        ({**SCORES, "bob": 0.2508}, 1),
        ({"alice": 0.75, "bob": 0.25}, 1),
    ],
)
def test_scores_are_computed_again_within_a_thousandth_of_the_largest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: Mapping[str, float], status: int
) -> None:
    asked: list[Any] = []

    def run(home: object, module: str, arguments: Sequence[str], step: object) -> dict[str, Any]:
        asked.append((module, list(arguments)))
        return {"scores": dict(again), "lift_nats": 2.0}

    monkeypatch.setattr("byline.command.preparing.run_program", run)
    fields, tokens = with_tokens(tmp_path)
    found, facts, _ = replay(tmp_path, fields, "--tokens", str(tokens))
    assert (found, failing(facts)) == (status, ["rescored"] if status else [])
    module, arguments = asked[0]
    assert module == "serving.rescoring"
    assert arguments == [
        "--tokens", str(tokens), "--sha256", fields["tokens_sha256"], "--choice", "0",
        "--adapter", JOB.adapter_version, "--index", JOB.index,
    ]  # fmt: skip


ROWS = (("alice", 1.0), ("alice", -0.25), ("bob", 0.25), ("carol", 0.25), ("carol", -0.375))


def test_a_record_of_rows_replays_by_its_claims(tmp_path: Path) -> None:
    """Carol's score is negative, and one of her rows is not."""
    given = record(rows=ROWS)
    status, facts, text = replay(tmp_path, given)
    assert (status, failing(facts)) == (0, [])
    assert "3 shares recomputed from the claims" in text
    given["claims"]["carol"] *= 2
    status, facts, _ = replay(tmp_path, given)
    assert (status, failing(facts)) == (1, ["shares", "money", "shown_scores"])


@pytest.mark.parametrize(
    ("again", "fails"),
    [
        ({}, False),
        ({"bob": 250_999_999}, False),
        ({"bob": 251_000_001}, True),
        ({"dan": 999_999}, False),
        ({"dan": 1_000_001}, True),
        (None, True),
    ],
)
def test_claims_are_computed_again_within_a_thousandth_of_the_largest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: dict[str, int] | None, fails: bool
) -> None:
    fields, tokens = with_tokens(tmp_path, ROWS)
    claims = None if again is None else {**fields["claims"], **again}

    def run(*_: object) -> dict[str, Any]:
        return {"scores": dict(SCORES), "claims": claims, "lift_nats": 2.0}

    monkeypatch.setattr("byline.command.preparing.run_program", run)
    status, facts, _ = replay(tmp_path, fields, "--tokens", str(tokens))
    assert (status, failing(facts)) == ((1, ["reclaimed"]) if fails else (0, []))


def test_token_ids_that_are_not_there_are_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(record()))
    arguments = ["replay", "--record", str(path), "--tokens", str(tmp_path / "none")]
    found = runner.invoke(attribution_app, arguments)
    assert type(found.exception).__name__ == "InvalidInput"


def test_the_salt_is_in_what_is_hashed() -> None:
    assert served_bytes(SERVED) != served_bytes(replace(SERVED, salt="cd" * 16))
