"""An export alone makes every balance again, and no single change of it goes unseen."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from byline.command.__main__ import app
from byline.notary.exporting import LogExport
from byline.notary.state import State
from byline.verification.policies import Policy
from byline.verification.program import main
from byline.verification.replay import replay
from tests.byline.logs import a_log
from tests.byline.proof_changes import changed, changed_note
from tests.byline.proof_writer import Writer, a_written_log, operation, payout

ALICE = "contrib:alice"


@pytest.fixture(scope="module")
def log() -> Writer:
    return a_written_log()


def written(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_an_export_makes_every_balance_again(
    log: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, policy = written(tmp_path / "export", log.files()), tmp_path / "policy"
    policy.write_text(log.policy)
    assert main(["--replay", str(folder), "--policy", str(policy), "--json"]) == 0
    balances = json.loads(capsys.readouterr().out.splitlines()[-1])["balances"]
    assert balances == {
        account: str(sum(nano for _, _, nano in chain))
        for account, chain in log.chains.items()
        if not account.startswith(("hold:", "open:"))
    }
    assert len(balances) == 8


def changes(log: Writer) -> Iterator[tuple[str, str, bytes]]:
    """Each change of each file of an export."""
    files = log.files()
    openings = files["openings.jsonl"].decode().splitlines(keepends=True)
    for at, line in enumerate(openings):
        for place, other in changed(json.loads(line)):
            text = json.dumps(other) + "\n"
            changed_lines = "".join([*openings[:at], text, *openings[at + 1 :]])
            yield f"{at}{place}", "openings.jsonl", changed_lines.encode()
        yield f"-{at}", "openings.jsonl", "".join(openings[:at] + openings[at + 1 :]).encode()
    for place, note in changed_note(files["checkpoint"].decode()):
        yield place, "checkpoint", note.encode()
    for name in files:
        if name.startswith("tile/"):
            data = files[name]
            for at in range(0, len(data), 97):
                flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
                yield f"byte {at}", name, flipped
            yield "cut", name, data[:-1]


@pytest.mark.slow
def test_no_change_of_an_export_goes_unseen(tmp_path: Path) -> None:
    """Of some entries, a key leaf and a statement: enumerated."""
    small = Writer(newest_alone=True)
    a_short_log(small)
    folder, policy = written(tmp_path, small.files()), Policy(small.policy)
    assert not replay(folder, policy)[0].failed
    count = 0
    for place, name, data in changes(small):
        original = small.files()[name]
        (folder / name).write_bytes(data)
        if data != original:
            assert replay(folder, policy)[0].failed, f"{name}: {place}"
            count += 1
        (folder / name).write_bytes(original)
    assert count > 500


def a_short_log(log: Writer) -> None:
    from tests.byline.proof_writer import inference

    log.add(operation(1, "deposit"), {"funding": -(10**6), "app:demo": 10**6})
    inference(log, 1, {"alice": 333_333_333, "bob": 250_000_000})
    log.rotate("second")
    log.close("contrib:alice", "2026-10", 1, 1)


def wrong_books() -> dict[str, Writer]:
    """Logs that are rightly signed and whose books are wrong, by what is found."""
    twice = Writer()
    twice.add(operation(1, "adjust"), {"platform": 5, "app:demo": -5})
    twice.add(operation(1, "adjust"), {"platform": 5, "app:demo": -5})
    gap = Writer(entry_hand=lambda entry: {**entry, "seq": entry["seq"] + 1})
    gap.add(operation(1, "deposit"), {})
    nothing = Writer()
    nothing.add(operation(1, "adjust"), {"open:x": -5, "platform": 5})
    chain = Writer(leg_hand=lambda leg: {**leg, "n": 2, "prev": "11" * 32})
    chain.add(operation(1, "adjust"), {"platform": 5, "app:demo": -5})
    half, account = 5 * 10**8, "unattributed:x"
    of_two, of_three = {"a": half, "b": half}, {"a": half, "b": half, account: half}
    return {
        "its event was posted before": twice,
        "it does not follow entry 0": gap,
        "open:x gives what it does not have": nothing,
        "it does not follow line 0 of platform": chain,
        "gives contrib:c another share": settled(of_two, {"contrib:a": half, "contrib:c": half}),
        "gives contrib:b another share": settled(of_two, {"contrib:a": half, "contrib:b": None}),
        "gives contrib:a another share": settled({"a": half}, {"contrib:a": None}),
        "contrib:b has a share, and was paid nothing":
            settled(of_three, {"contrib:a": half, account: half}),
        "leaf 0 is not its manifest": settled(
            of_two, {"contrib:a": half, "contrib:b": half},
            Writer(entry_hand=lambda entry: {
                **entry, "manifest_index": entry["manifest_index"] and 0})),
        "entry 3: the payout does not begin where the one before it ended":
            paid((1, 0, 7), (1, 6, 7)),
        "entry 2: the payout does not begin where the one before it ended": paid((1, 5, 7)),
        "the payout cites lines of another sum": paid((1, 0, 8)),
        "is for 'october', which is no month": closed(("october", 1, 1)),
        "for 2026-11 does not follow the one for 2026-10":
            closed(("2026-10", 1, 2), ("2026-11", 2, 2)),
        "for 2026-10 does not follow the one for 2026-11":
            closed(("2026-11", 1, 1), ("2026-10", 2, 2)),
    }  # fmt: skip


def paid(*decided: tuple[int, int, int]) -> Writer:
    """Alice earned 7; each payout's first entry, opening, and lines' sum."""
    log, number = Writer(), 2
    log.add(operation(1, "adjust"), {"platform": -7, ALICE: 7})
    for first, opening, lines in decided:
        payout(log, number, ALICE, nano=1, statement=f"{ALICE}/2026-10", first_seq=first,
               last_seq=1, opening_nano=opening, lines_nano=lines)  # fmt: skip
        number += 1
    return log


def closed(*statements: tuple[str, int, int]) -> Writer:
    """Two lines of alice's; each statement's month, first and last line."""
    log = Writer()
    for number in (1, 2):
        log.add(operation(number, "adjust"), {"platform": -7, ALICE: 7})
    for month, first, last in statements:
        log.close(ALICE, month, first, last)
    return log


def settled(
    manifest: dict[str, int], paid: dict[str, int | None], log: Writer | None = None
) -> Writer:
    """A pool of 1,000 nano-USD, in halves; the manifest's shares, and those that legs name."""
    log = log or Writer()
    unattributed = manifest.get("unattributed:x", 0)
    shares = [{"contributor": name, "share_ppb": ppb} for name, ppb in manifest.items()]
    text = {"shares": [each for each in shares if each["contributor"] != "unattributed:x"],
            "unattributed_ppb": unattributed, "adapter_version": "x"}  # fmt: skip
    log.add(operation(1, "adjust"), {"platform": -1_000, "open:i": 1_000})
    legs = {"open:i": -1_000, **{account: 1_000 // len(paid) for account in paid}}
    named = {account: ppb for account, ppb in paid.items() if ppb is not None}
    log.add("i/settle/0", legs, manifest=json.dumps(text), shares=named)
    return log


@pytest.mark.parametrize("sentence", wrong_books())
def test_wrong_books_are_found_though_rightly_signed(tmp_path: Path, sentence: str) -> None:
    log = wrong_books()[sentence]
    (failed,) = replay(written(tmp_path, log.files()), Policy(log.policy))[0].failed
    assert failed.endswith(sentence)


def test_right_books_stand(tmp_path: Path) -> None:
    half = 5 * 10**8
    made = Writer()
    made.add(operation(1, "deposit"), {"funding": -5, "app:demo": 5})
    made.close("app:demo", "2026-10", 1, 1)
    shared = settled({"a": half, "b": half}, {"contrib:a": half, "contrib:b": half})
    for number, log in enumerate([made, shared]):
        folder = written(tmp_path / str(number), log.files())
        assert not replay(folder, Policy(log.policy))[0].failed


def test_what_was_decided_and_is_not_shown_is_counted_and_refuses_nobody(tmp_path: Path) -> None:
    log = paid((1, 0, 7), (2, 6, 0))
    files = log.files()
    lines = [json.loads(line) for line in files["openings.jsonl"].decode().splitlines()]
    del lines[1]["manifest"]["text"]  # the first payout's
    files["openings.jsonl"] = "".join(json.dumps(line) + "\n" for line in lines).encode()
    found, balances = replay(written(tmp_path, files), Policy(log.policy))
    assert not found.failed
    assert balances[ALICE] == 5
    assert found.not_shown == ["(not shown: what was decided in 1 entries)"]


def another_log() -> Writer:
    """Written by the same hand, under the same keys."""
    return a_written_log(Writer(entry_hand=lambda entry: {**entry, "policy": "another"}))


def test_an_export_is_held_against_an_older_tree_head(log: Writer, tmp_path: Path) -> None:
    folder, policy = written(tmp_path / "export", log.files()), Policy(log.policy)
    older = tmp_path / "older"

    def failed(checkpoint: str) -> list[str]:
        older.write_text(checkpoint, newline="")
        return replay(folder, policy, older)[0].failed

    for size in range(len(log.leaves) + 1):
        assert not failed(log.head(size, keys=log.keys[:1]))
    other = another_log()
    assert ["A FORK" in each for each in failed(other.head(30, keys=log.keys[:1]))] == [True]
    other.add(operation(99, "adjust"), {"platform": 1, "app:demo": -1})
    assert "leaves, and this" in failed(other.head(keys=log.keys[:1]))[0]
    assert failed("no head at all")


@pytest.mark.parametrize("name", ["checkpoint", "openings.jsonl", "tile"])
def test_what_is_not_there_is_said(log: Writer, tmp_path: Path, name: str) -> None:
    files = {k: v for k, v in log.files().items() if not k.startswith(name)}
    found, balances = replay(written(tmp_path, files), Policy(log.policy))
    assert found.failed
    assert not balances


@pytest.mark.anyio
async def test_an_export_of_this_logs_notary_makes_the_ledgers_balances(tmp_path: Path) -> None:
    made = a_log(tmp_path)
    await made.export()
    await made.notarise()
    state = State.read(made.openings)
    export = LogExport(made.folder, state, made.archive)
    folder = tmp_path / "export"
    assert export.write(folder) > len(made.journal.texts)
    state.close()
    keys = "\n".join(key.verifier.text() for key in made.keys.keys)
    found, balances = replay(folder, Policy(keys))
    assert not found.failed
    kept = {account: nano for account, nano in balances.items() if nano}
    assert kept == await made.journal.balances()


@pytest.mark.anyio
async def test_the_command_exports_what_the_command_replays(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    made = a_log(tmp_path / "home")
    await made.export()
    await made.notarise()
    run, folder = CliRunner(), str(tmp_path / "export")
    home = ["--home", str(tmp_path / "home")]
    exported = run.invoke(app, ["proof", "export", folder, *home, "--json"])
    assert exported.exit_code == 0, exported.output
    key = made.keys.keys[0].verifier.text()
    assert run.invoke(app, ["verify", "--replay", folder, "--key", key]).exit_code == 0
    assert run.invoke(app, ["proof", "export", folder, *home]).exit_code == 1
