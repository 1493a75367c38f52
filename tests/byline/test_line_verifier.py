"""`proof.py` by itself: what it shows of one line in an empty folder, and what it refuses."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from byline.verification import proof
from byline.verification.proof import Refused, check_line
from tests.byline.proof_changes import changed_proof
from tests.byline.proof_writer import Signer, Writer, a_written_log

ALICE = "contrib:alice"
SETTLE, ADJUST = 3, 41  # entries of the written log that have a line of alice's
NOT_ITS_OWN = (".with", "head -line 5", "head line 5", "head -line 6", "head line 6")


@pytest.fixture(scope="module")
def log() -> Writer:
    return a_written_log()


def alone(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The one file, run in a folder of its own, isolated from this installation's paths."""
    shutil.copy(proof.__file__, folder / "proof.py")
    command = [sys.executable, "-I", "proof.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_one_file_a_line_and_a_key_are_enough(log: Writer, tmp_path: Path) -> None:
    (tmp_path / "one.tlog-proof").write_text(log.line(log.entries[SETTLE], ALICE))
    found = alone(tmp_path, "one.tlog-proof", log.keys[0].vkey)
    assert found.returncode == 0, found.stderr
    said = found.stdout.splitlines()
    assert said[0].endswith("signed the log 'log.example/usd' over 66 leaves")
    assert "entry 4, settle" in said[1]
    assert "4 legs debit 40,040,000 nano-USD, credit as much, and pay 40,040,000" in said[2]
    assert "+13,346,666 nano-USD for 'contrib:alice' (333,333,333 parts per billion" in said[3]
    assert said[4].startswith("(not checked by this file: its other legs, witnesses")
    assert {path.name for path in tmp_path.iterdir()} == {"proof.py", "one.tlog-proof"}


def test_a_captures_line_says_the_charge(log: Writer) -> None:
    captured = log.entries[2]
    said = check_line(log.line(captured, "platform"), log.keys[0].vkey)
    assert said[2].endswith(f"that is the charge of {int(captured.header['charge']):,}")


@pytest.mark.parametrize("place", [SETTLE, ADJUST])
def test_no_single_change_leaves_it_standing(log: Writer, place: int) -> None:
    """All changes are enumerated. What stays is not the line's: leaves and signatures beside it."""
    line, vkey = log.line(log.entries[place], ALICE), log.keys[0].vkey
    assert check_line(line, vkey)
    count = 0
    for name, changed in changed_proof(line):
        if name.startswith(NOT_ITS_OWN):
            continue
        count += 1
        with pytest.raises(Refused):
            pytest.fail(f"{name} stands: {check_line(changed, vkey)}")
    assert count > 200


def test_another_key_or_another_kind_of_proof_is_refused(log: Writer, tmp_path: Path) -> None:
    line = log.line(log.entries[SETTLE], ALICE)
    with pytest.raises(Refused, match="did not sign"):
        check_line(line, Signer("log.example/usd", seed="another").vkey)
    with pytest.raises(Refused, match="did not sign"):
        check_line(line, Signer("log.example/other").vkey)
    with pytest.raises(Refused, match="opens no line"):
        check_line(log.entry(log.entries[SETTLE], [ALICE]), log.keys[0].vkey)
    (tmp_path / "one.tlog-proof").write_text(line.replace("index 4", "index 5"))
    found = alone(tmp_path, "one.tlog-proof", log.keys[0].vkey)
    assert (found.returncode, found.stderr[:7], found.stdout) == (1, "FAILED:", "")
    assert alone(tmp_path, "no-such-file", log.keys[0].vkey).returncode == 1
    usage = alone(tmp_path)
    assert usage.returncode == 1
    assert "python proof.py FILE.tlog-proof VKEY" in usage.stderr


@pytest.mark.parametrize(
    "account",
    ["contrib:a, its line 1, and all the rest is proven", "contrib:a\u00a0b", "contrib:a'(b", ""],
)
def test_an_account_is_a_name_and_no_sentence(account: str) -> None:
    made = Writer()
    entry = made.add("019a0000-0000-7000-8000-000000000001/adjust/0", {account: 5, "platform": -5})
    with pytest.raises(Refused, match="other characters in it than names have"):
        check_line(made.line(entry, account), made.keys[0].vkey)


def test_an_event_is_a_name_and_a_file_begins_as_a_proof_does() -> None:
    made = Writer()
    entry = made.add("x (settle, y)/adjust/0", {"contrib:a": 5, "platform": -5})
    with pytest.raises(Refused, match="other characters in it than names have"):
        check_line(made.line(entry, "platform"), made.keys[0].vkey)
    entry = made.add("x/adjust/0", {"contrib:a": 5, "platform": -5})
    line = made.line(entry, "platform")
    assert check_line(line, made.keys[0].vkey)
    with pytest.raises(Refused, match="no whole"):
        check_line(line.replace("tlog-proof@v1", "tlog-proof@v2", 1), made.keys[0].vkey)


OWN, OTHER = "019a0000-0000-7000-8000-000000000001", "019a0000-0000-7000-8000-000000000002"


@pytest.mark.parametrize(
    ("kind", "legs"),
    [
        ("settle", {"contrib:alice": -9, "contrib:mallory": 9}),  # a contributor pays it
        ("settle", {"platform": 9, f"open:{OWN}": -9}),  # somebody else is paid
        ("settle", {f"open:{OTHER}": -9, "contrib:alice": 9}),  # of another's pool
        ("capture", {"contrib:alice": -9, "platform": 9}),  # a contributor is charged
        ("capture", {f"hold:{OTHER}": -9, "platform": 9}),
        ("void", {"contrib:alice": -9, "app:x": 9}),
    ],
)
def test_a_line_that_its_entry_may_not_have_is_refused(kind: str, legs: dict[str, int]) -> None:
    made = Writer()
    charge = 9 if kind == "capture" else 0
    entry = made.add(f"{OWN}/{kind}/0", legs, charge=charge)
    with pytest.raises(Refused, match=f"a {kind} does not touch this account"):
        check_line(made.line(entry, next(iter(legs))), made.keys[0].vkey)


def test_a_share_that_is_not_stated_is_said_and_a_receipts_key_signs_no_log() -> None:
    made = Writer()
    entry = made.add(f"{OWN}/adjust/0", {"contrib:alice": 1, "platform": -1})
    said = check_line(made.line(entry, "contrib:alice"), made.keys[0].vkey)
    assert said[3].endswith("'contrib:alice' (no share is stated)")
    with pytest.raises(Refused, match="did not sign it as a log's"):
        check_line(made.line(entry, "contrib:alice"), made.receipts.vkey)
