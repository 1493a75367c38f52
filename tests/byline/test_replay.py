"""An export alone makes every balance again, and no single change of it goes unseen."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import pytest
from typer.testing import CliRunner

from byline.archive.database import Archive
from byline.command.__main__ import app
from byline.ledger.ledger import Ledger
from byline.notary.exporting import LogExport
from byline.notary.state import State
from byline.statements.freezing import Freezer
from byline.statements.months import Month
from byline.statements.payouts import PayoutRun
from byline.verification.files import Files
from byline.verification.policies import Policy
from byline.verification.program import main
from byline.verification.proof import PARTIES
from byline.verification.replay import replay
from tests.byline.cases import (
    ADAPTER,
    HOLD_MS,
    NOW_MS,
    a_capture,
    a_failure,
    an_attribution,
    captured,
    event_id,
    expired,
    held,
)
from tests.byline.decisions import a_refund, a_release, an_adjustment
from tests.byline.exporting import export
from tests.byline.journals import DAY_MS, FakeJournal
from tests.byline.logs import Log, a_log
from tests.byline.months import ANN, DECEMBER, DOLLAR, OCTOBER, PAYDAY, FakeBank
from tests.byline.paydays import freeze_all, pay
from tests.byline.proof_changes import changed, changed_note
from tests.byline.proof_writer import (
    CENT,
    ZEROS,
    Writer,
    a_written_log,
    attribution,
    opened,
    operation,
    payout,
)

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
    for _ in range(2):
        twice.add(operation(1, "adjust"), {"app:demo": -5, "platform": 5})
    gap = Writer(entry_hand=lambda entry: {**entry, "seq": entry["seq"] + 1})
    gap.add(operation(1, "deposit"), {})
    chain = Writer(leg_hand=lambda leg: {**leg, "n": 2, "prev": "11" * 32})
    chain.add(operation(1, "adjust"), {"platform": 5, "app:demo": -5})
    half, both = 5 * 10**8, {"contrib:a": (500, 5 * 10**8), "contrib:b": (500, 5 * 10**8)}
    of_two = {"a": half, "b": half}
    unused = Writer()
    unused.leaf(type="manifest", key="i/settle/0", manifest=ZEROS)
    return {
        "its event was posted before": twice,
        "it does not follow entry 0": gap,
        "it does not follow line 0 of 'platform'": chain,
        "gives 'contrib:c' another share": settled(
            of_two, {"contrib:a": (500, half), "contrib:c": (500, half)}),
        "gives 'contrib:b' another share": settled(
            {"a": half, "b": half - 1}, both),
        "'contrib:b' has a share, and was paid nothing": settled(
            {"a": 2_505 * 10**5, "c": 2_505 * 10**5, "d": 3_505 * 10**5, "b": 1_485 * 10**5},
            {"contrib:a": (3, 2_505 * 10**5), "contrib:c": (3, 2_505 * 10**5),
             "contrib:d": (4, 3_505 * 10**5)}),
        "leaf 0 is not its manifest": settled(
            of_two, both, Writer(entry_hand=lambda entry: {
                **entry, "manifest_index": entry["manifest_index"] and 0})),
        "nobody was paid by the manifests [0]": unused,
        "entry 4: 'open:i' gives more or less than it has": settled(
            {"a": 10**9}, {"contrib:a": (500, 10**9)}, held=1_000),
        "entry 2: 'hold:i' gives more or less than it has": given_back("void", -4, "app:demo"),
        "entry 2: 'app:mallory' did not hold for its inference":
            given_back("void", -9, "app:mallory"),
        "entry 4: 'app:mallory' did not hold for its inference": refunded("app:mallory"),
        "entry 1: 'unattributed:x' gives what it does not have": only(
            "release", {"unattributed:x": -5, "contrib:a": 5}),
        "entry 1: 'platform' gives what it does not have": only(
            "adjust", {"platform": -5, "contrib:a": 5}),
        "entry 1: it names no manifest": only("adjust", {"app:a": -5, "host": 5}, undecided=True),
        **wrong_payouts(),
        **wrong_statements(),
    }  # fmt: skip


def wrong_payouts() -> dict[str, Writer]:
    """Payouts that pay what they must not; alice earned 7 cents in entry 1."""
    undecided, fraction = earned(), earned()
    undecided.add(operation(2, "payout"), {ALICE: -CENT, "payout": CENT}, undecided=True)
    payout(fraction, 2, ALICE, nano=CENT - 1, statement=f"{ALICE}/2026-10", first_seq=1,
           last_seq=1, opening_nano=0, lines_nano=7 * CENT)  # fmt: skip
    longer = earned()
    longer.add(operation(9, "adjust"), {ALICE: CENT, "funding": -CENT})
    longer.close(ALICE, "2026-10", 1, 1)
    payout(longer, 2, ALICE, nano=CENT, statement=f"{ALICE}/2026-10", first_seq=1, last_seq=2,
           opening_nano=0, lines_nano=8 * CENT)  # fmt: skip
    named = "the statement that the payout names"
    return {
        "entry 3: the payout does not begin where the one before it ended":
            paid((1, 0, 7), (1, 6, 7)),
        "entry 2: the payout does not begin where the one before it ended": paid((1, 5, 7)),
        "the payout cites lines of another sum": paid((1, 0, 8)),
        "entry 2: it names no manifest": undecided,
        "the payout in entry 2: it is of no whole cents": fraction,
        f"entry 2: {named} is not in the log; it comes up to some minutes after the payout":
            paid((1, 0, 7), month="2026-11"),
        f"entry 3: {named} does not end with the lines that it pays": longer,
    }  # fmt: skip


def wrong_statements() -> dict[str, Writer]:
    """Statements of two lines of alice's, of 2 and 3 October."""
    return {
        "is for 'october', which is no month": closed(("october", 1, 1)),
        "is for '0000-10', which is no month": closed(("0000-10", 1, 1)),
        "for 2026-11 does not follow the one for 2026-10":
            closed(("2026-10", 1, 2), ("2026-11", 2, 2)),
        "for 2026-10 does not follow the one for 2026-11":
            closed(("2026-11", 1, 1), ("2026-10", 2, 2)),
        "for 2026-10 is the first, and begins with another line": closed(("2026-10", 2, 2)),
        "for 2026-09: a line of it is later than that month": closed(("2026-09", 1, 1)),
    }  # fmt: skip


def earned() -> Writer:
    """Alice earned 7 cents."""
    log = Writer()
    log.add(operation(1, "adjust"), {"funding": -7 * CENT, ALICE: 7 * CENT})
    return log


def paid(*decided: tuple[int, int, int], month: str = "2026-10") -> Writer:
    """She is paid a cent each time; each payout's first entry, opening and lines' sum in cents."""
    log = earned()
    log.close(ALICE, "2026-10", 1, 1)
    for number, (first, opening, lines) in enumerate(decided, start=2):
        payout(log, number, ALICE, nano=CENT, statement=f"{ALICE}/{month}", first_seq=first,
               last_seq=1, opening_nano=opening * CENT, lines_nano=lines * CENT)  # fmt: skip
    return log


def closed(*statements: tuple[str, int, int]) -> Writer:
    """Two lines of alice's; each statement's month, first and last line."""
    log = Writer()
    for number in (1, 2):
        log.add(operation(number, "adjust"), {"funding": -7, ALICE: 7})
    for month, first, last in statements:
        log.close(ALICE, month, first, last)
    return log


def given_back(kind: str, nano: int, account: str) -> Writer:
    """The application `demo` holds 9; so much of it goes back, to an application's account."""
    log = Writer()
    log.add("i/hold/0", {"app:demo": -9, "hold:i": 9})
    log.add(f"i/{kind}/0", {"hold:i": nano, account: -nano})
    return log


def refunded(account: str) -> Writer:
    log = Writer()
    log.add(operation(1, "deposit"), {"funding": -9, "app:mallory": 9})
    opened(log, "i", 9)
    log.add(operation(2, "refund"), {"platform": -9, account: 9}, inference="i")
    return log


def only(kind: str, legs: dict[str, int], *, undecided: bool = False) -> Writer:
    """One entry of an operator's."""
    log = Writer()
    log.add(operation(1, kind), legs, undecided=undecided)
    return log


def settled(
    manifest: dict[str, int], paid: Mapping[str, tuple[int, int]], log: Writer | None = None,
    held: int = 0,
) -> Writer:  # fmt: skip
    """A pool is shared out: the manifest's shares, and what each account gets, with its share."""
    log, pool = log or Writer(), sum(nano for nano, _ in paid.values())
    log.add(operation(1, "deposit"), {"funding": -9, "app:demo": 9})
    opened(log, "i", held or pool)
    legs = {"open:i": -pool, **{account: nano for account, (nano, _) in paid.items()}}
    shares = {account: ppb for account, (_, ppb) in paid.items()}
    log.add("i/settle/0", legs, manifest=attribution("i", manifest, pool), shares=shares)
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
    both = {"contrib:a": (500, half), "contrib:b": (500, half)}
    late = closed(("2026-11", 1, 2))  # posted late: their own time is October's
    rights = [made, settled({"a": half, "b": half}, both), paid((1, 0, 7), (2, 6, 0)), late,
              given_back("void", -9, "app:demo"), refunded("app:demo"),
              only("adjust", {"contrib:a": -5, "platform": 5})]  # fmt: skip
    for number, log in enumerate(rights):
        folder = written(tmp_path / str(number), log.files())
        assert not replay(folder, Policy(log.policy))[0].failed


def hidden(log: Writer, at: int) -> dict[str, bytes]:
    """An export that lacks the text of what was decided in one of the openings."""
    files = log.files()
    lines = [json.loads(line) for line in files["openings.jsonl"].decode().splitlines()]
    del lines[at]["manifest"]["text"]
    files["openings.jsonl"] = "".join(json.dumps(line) + "\n" for line in lines).encode()
    return files


def test_what_was_decided_and_is_not_shown_is_counted_and_refuses_nobody(tmp_path: Path) -> None:
    log = paid((1, 0, 7), (2, 6, 0))
    found, balances = replay(written(tmp_path, hidden(log, 2)), Policy(log.policy))
    assert not found.failed
    assert balances[ALICE] == 5 * CENT
    assert found.not_shown == ["(not shown: what was decided in 1 entries)"]


def test_behind_a_payout_that_is_not_shown_no_line_is_paid_again(tmp_path: Path) -> None:
    log = paid((1, 0, 7), (2, 6, 0), (1, 0, 7))
    found, _ = replay(written(tmp_path, hidden(log, 3)), Policy(log.policy))
    (failed,) = found.failed
    assert failed.endswith("entry 4: the payout does not begin where the one before it ended")


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
    made = a_log(tmp_path, inferences=2)  # later ones of this history are paid what they don't have
    await made.export()
    await made.notarise()
    found, balances = replayed(made, tmp_path / "export")
    assert not found.failed
    kept = {account: nano for account, nano in balances.items() if nano}
    assert kept == await made.journal.balances()


def replayed(made: Log, folder: Path) -> tuple[Files, dict[str, int]]:
    state = State.read(made.openings)
    assert LogExport(made.folder, state, made.archive).write(folder)
    state.close()
    return replay(folder, Policy("\n".join(key.verifier.text() for key in made.keys.keys)))


@pytest.mark.anyio
async def test_statements_and_payouts_of_this_house_replay(tmp_path: Path) -> None:
    """A month, a line posted late, a month without a line, and a payout for each that has one."""
    bank, archive = FakeBank(), Archive.open(f"sqlite:///{tmp_path}/archive.sqlite")
    for month, nano in ((OCTOBER, 2 * DOLLAR + 7), (DECEMBER, DOLLAR)):
        legs = {ANN: nano, "funding": -nano}
        for time_ms in (month.start_ms, month.start_ms - 1):
            key = f"{event_id(time_ms, bank.rng)}/adjust/0"
            bank.append(key, "adjust", legs, manifest="{}", time_ms=time_ms)
        for frozen in (month, month.next)[: 1 + (month == OCTOBER)]:
            freeze_all(archive, bank, frozen)
        (outcome,) = await pay(archive, bank, month, now_ms=month.end_ms + 20 * DAY_MS)
        assert outcome.paid_nano == 2 * nano // CENT * CENT
    made = Log(tmp_path, bank, archive)
    await made.notarise(entries_max=100)
    found, balances = replayed(made, tmp_path / "export")
    assert not found.failed
    assert balances[ANN] == 14
    assert found.said[-1][1].endswith("0 in all; 3 statements agree")


@pytest.mark.anyio
async def test_all_that_the_real_ledger_posts_replays(ledger: Ledger, tmp_path: Path) -> None:
    """Every kind of entry, with debts, late charges and refunds that payees can't pay any more."""
    inference = await captured(ledger, pools=(300, 0, 200))
    await ledger.settle(an_attribution(inference, 0, pool=300), time_ms=NOW_MS)
    await ledger.settle(a_failure(inference, 2, pool=200), time_ms=NOW_MS)
    await ledger.void(await held(ledger), "demo", time_ms=NOW_MS)
    late = await expired(ledger)
    await ledger.capture(a_capture(late), time_ms=NOW_MS + HOLD_MS)
    month = Month.of(NOW_MS)
    for decided in (
        an_adjustment(contrib__alice=-1_000, funding=1_000),
        an_adjustment(**{f"unattributed__{ADAPTER}": -500, "contrib__bob": 500}),
        an_adjustment(contrib__alice=DOLLAR + 1_000, funding=-DOLLAR - 1_000),
        an_adjustment(**{f"unattributed__{ADAPTER}": 800, "funding": -800}),
    ):
        await ledger.adjust(decided, time_ms=NOW_MS)
    await ledger.release(a_release(contrib__bob=10, app__demo=5), time_ms=NOW_MS)
    await ledger.adjust(an_adjustment(platform=-800, funding=800), time_ms=NOW_MS)
    await ledger.refund(a_refund(inference, 900), time_ms=NOW_MS)
    archive = Archive.open(f"sqlite:///{tmp_path}/archive.sqlite")
    await export(ledger, archive)
    Freezer(archive).freeze_all(month, now_ms=month.end_ms + DAY_MS)
    run = PayoutRun(ledger, archive)
    assert sum(each.paid_nano for each in await run.run(month, now_ms=PAYDAY)) == DOLLAR
    await export(ledger, archive)
    made = Log(tmp_path, cast("FakeJournal", ledger), archive)
    await made.notarise(entries_max=100)
    found, balances = replayed(made, tmp_path / "export")
    assert not found.failed
    kinds = {entry.kind async for entry in ledger.entries()}
    assert kinds == {*PARTIES}
    assert {account: nano for account, nano in balances.items() if nano} == await ledger.balances()


@pytest.mark.anyio
async def test_the_command_exports_what_the_command_replays(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    made = a_log(tmp_path / "home", inferences=2)
    await made.export()
    await made.notarise()
    run, folder = CliRunner(), str(tmp_path / "export")
    home = ["--home", str(tmp_path / "home")]
    exported = run.invoke(app, ["proof", "export", folder, *home, "--json"])
    assert exported.exit_code == 0, exported.output
    key = made.keys.keys[0].verifier.text()
    assert run.invoke(app, ["verify", "--replay", folder, "--key", key]).exit_code == 0
    assert run.invoke(app, ["proof", "export", folder, *home]).exit_code == 1
