"""What an outsider's check finds: honest files hold, a dishonest operator's don't, hostile ones end
in a sentence; and all that in a folder without Byline."""

import json
import os
import shutil
import subprocess
import sys
import venv
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cryptography
import pytest
from typer.testing import CliRunner

import byline.verification
from byline.command.__main__ import app
from byline.verification.policies import Policy
from byline.verification.program import check, main
from tests.byline.proof_writer import (
    ADAPTER,
    CENT,
    ORIGIN,
    Signer,
    Writer,
    Written,
    a_written_log,
    inference,
    operation,
    payout,
)

ALICE = "contrib:alice"
FIRST_INFERENCE = "019a0000-0000-7000-8000-000000000001"


@pytest.fixture(scope="module")
def log() -> Writer:
    return a_written_log()


def write(folder: Path, **files: str) -> list[str]:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    return [str(folder / name) for name in files]


def test_everything_that_an_honest_log_hands_out_holds(
    log: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = log.entries
    october, table = log.statement(ALICE, "2026-10")
    files = write(
        tmp_path, october=october, october_json=table, november=log.statement(ALICE, "2026-11")[0],
        paid=log.line(entries[22], ALICE, show=True),
        paid_again=log.line(entries[49], ALICE, show=True),
        capture=log.entry(entries[2], ["platform"]), settle=log.line(entries[3], ALICE),
        receipt=log.receipt(FIRST_INFERENCE, entries[2], [entries[3]]),
        history=log.consistency(30),
    )  # fmt: skip
    policy, older = write(tmp_path, policy=log.policy, older=log.head(30, keys=log.keys[:1]))
    assert main([*files, "--policy", policy, "--against", older, "--json"]) == 0
    printed = capsys.readouterr().out
    for sentence in (
        "lines 1 to 7, none left out, and 0 + 93,426,662 = 93,426,662 nano-USD",
        "the lines that the payout in entry 23 cites sum to 93,426,662 nano-USD, as decided",
        "7 lines of the statement of 'contrib:alice' for 2026-10 are those that are proven",
        "the statements for 2026-10 and 2026-11 follow each other",
        "(not shown: the manifest of entry 4, which the receipt promises)",
        "(closed: 3 more of its legs, whose sums are as the leaf states)",
        "All of it holds; in brackets, 5 not shown.",
        "the log over 66 leaves begins with the one over 30 leaves",
        "keeps what the receipt promised",
        "What no proof shows",
    ):
        assert sentence in printed
    facts = json.loads(printed.splitlines()[-1])
    assert (facts["verified"], len(facts["not_shown"])) == (True, 5)


def each_line(log: Writer) -> list[str]:
    return [
        log.line(written, account)
        for written in log.entries
        for account in written.accounts
        if not account.startswith(("hold:", "open:"))
    ]


def test_every_line_of_every_account_holds_and_all_together_are_chains(
    log: Writer, tmp_path: Path
) -> None:
    files = write(tmp_path, **{str(n): text for n, text in enumerate(each_line(log))})
    found = check([Path(each) for each in files], Policy(log.policy))
    assert not found.failed
    assert len(found.chains) == 8


Hand = Callable[[dict[str, Any]], dict[str, Any]]


def in_leg(at: int, **fields: Any) -> tuple[Hand | None, Hand | None]:
    def hand(leg: dict[str, Any]) -> dict[str, Any]:
        is_his = leg["seq"] == at and leg["account"] == ALICE
        return {**leg, **fields} if is_his else leg

    return hand, None


def in_entry(at: int, legs: dict[str, Any] | None = None, **fields: Any) -> Any:
    def hand(entry: dict[str, Any]) -> dict[str, Any]:
        if entry["seq"] != at:
            return entry
        return {**entry, **fields, "legs": {**entry["legs"], **(legs or {})}}

    return None, hand


DISHONEST = {
    "a leg without its number": in_leg(4, n=0),
    "a number twice": in_leg(7, n=1, prev="00" * 32),
    "a number left out": in_leg(7, n=3),
    "another leg before it": in_leg(7, prev="11" * 32),
    "a share that was not paid": in_leg(4, ppb=340_000_000),
    "a share of more than all": in_leg(4, ppb=10**9 + 1),
    "another entry's leg": in_leg(4, seq=7),
    "another's leg": in_leg(4, account="contrib:bob"),
    "more in the leaf than in the legs": in_entry(
        4, legs={"debits": "40040001", "credits": "40040001"}
    ),
    "credits that nobody was debited": in_entry(4, legs={"credits": "40040001"}),
    "not the whole pool": in_entry(4, legs={"paid": "40039999"}),
    "more legs than there are": in_entry(4, legs={"count": 5}),
    "a charge outside a capture": in_entry(4, charge="1"),
    "a manifest after the fact": in_entry(4, manifest_index=5),
    "no manifest before it": in_entry(4, manifest_index=None),
    "another kind": in_entry(4, kind="hold"),
    "no kind": in_entry(4, kind="gift"),
    "seq 0": in_entry(4, seq=0),
    "another version": in_entry(4, v=2),
}


@pytest.mark.parametrize("name", DISHONEST)
def test_what_a_dishonest_operator_signs_is_refused(tmp_path: Path, name: str) -> None:
    """The whole log is his, and rightly signed; the rules are what he breaks."""
    leg_hand, entry_hand = DISHONEST[name]
    honest: Hand = lambda fields: fields  # noqa: E731
    forged = a_written_log(Writer(leg_hand=leg_hand or honest, entry_hand=entry_hand or honest))
    proofs = {"october": forged.statement(ALICE, "2026-10")[0]}
    files = [Path(each) for each in write(tmp_path, **proofs)]
    assert check(files, Policy(forged.policy)).failed


@pytest.mark.parametrize("legs", [{"platform": 5, "app:demo": -4}, {"platform": 2**63}])
def test_an_entry_that_creates_money_is_refused(tmp_path: Path, legs: dict[str, int]) -> None:
    log = Writer()
    written = log.add(operation(1, "adjust"), legs)
    files = write(tmp_path, proof=log.line(written, "platform"))
    assert check([Path(files[0])], Policy(log.policy)).failed


@pytest.mark.parametrize(
    ("key", "legs", "charge"),
    [
        ("hold", {"app:demo": -5, "platform": 5}, 0),
        ("gift", {"platform": -5, "host": 5}, 0),
        ("deposit", {"funding": -5, "contrib:bob": 5}, 0),
        ("capture", {"hold:x": -5, "app:demo": 1, "platform": 4}, 5),
    ],
)
def test_a_kind_that_pays_what_it_must_not_is_refused(
    tmp_path: Path, key: str, legs: dict[str, int], charge: int
) -> None:
    log = Writer()
    written = log.add(operation(1, key), legs, charge=charge)
    files = write(tmp_path, proof=log.entry(written, []))
    assert check([Path(files[0])], Policy(log.policy)).failed


@pytest.mark.parametrize(
    "decided",
    [
        {"nano": 2 * CENT},
        {"nano": CENT - 1},
        {"lines_nano": 13_346_665},
        {"statement": "contrib:bob/2026-10"},
        {"first_seq": 9},
    ],
)
def test_a_payout_that_is_not_its_lines_is_refused(tmp_path: Path, decided: dict[str, Any]) -> None:
    def paid(**changes: Any) -> bool:
        log = Writer()
        _, settle = inference(log, 1, {"alice": 333_333_333})
        fields = {"statement": f"{ALICE}/2026-10", "first_seq": 1, "last_seq": 3,
                  "opening_nano": 0, "lines_nano": 13_346_666, "nano": CENT}  # fmt: skip
        written = payout(log, 2, ALICE, **{**fields, **changes})
        files = write(tmp_path, line=log.line(settle, ALICE),
                      paid=log.line(written, ALICE, show=True))  # fmt: skip
        return not check([Path(each) for each in files], Policy(log.policy)).failed

    assert paid()
    assert not paid(**decided)


def test_statements_that_do_not_follow_each_other_are_refused(tmp_path: Path) -> None:
    def good(second: tuple[int, int], **off: int) -> bool:
        log = Writer()
        for number in range(1, 5):
            inference(log, number, {"alice": 333_333_333})
        log.close(ALICE, "2026-10", 1, 2)
        log.close(ALICE, "2026-11", *second, **off)
        proofs, table = log.statement(ALICE, "2026-11")
        files = write(tmp_path, one=log.statement(ALICE, "2026-10")[0], two=proofs, json=table)
        return not check([Path(each) for each in files], Policy(log.policy)).failed

    assert good((3, 4))
    assert not good((3, 4), off=1)  # it opens with more than the one before closed with
    assert not good((2, 4))  # a line is in both
    assert not good((3, 4), table_off=1)  # what was handed out closes otherwise
    assert not good((1, 0), off=1)  # money from nowhere


def test_a_receipt_that_promised_something_else_is_shown(log: Writer, tmp_path: Path) -> None:
    capture, other = log.entries[2], log.entries[5]
    assert capture.manifest is not None
    fields = {"charge": "2003", "adapter_version": "law@another"}
    for name, promised in fields.items():
        changed = Written(0, {**capture.header, name: promised}, [], [], [], capture.manifest)
        receipt = log.receipt(FIRST_INFERENCE, changed, [])
        if name == "adapter_version":
            text = receipt.split("\n")[1].replace(ADAPTER, promised)
            body = f"byline-receipt/v1\n{text}\n"
            receipt = f"{body}\n{log.receipts.line(body)}"
        files = write(tmp_path, proof=log.entry(capture, []), receipt=receipt)
        (failed,) = check([Path(each) for each in files], Policy(log.policy)).failed
        assert f"{promised} was promised" in failed or "2003 was promised" in failed
    changed = Written(0, capture.header, [], [], [], other.manifest)
    files = write(tmp_path, proof=log.entry(capture, []),
                  receipt=log.receipt(FIRST_INFERENCE, changed, []))  # fmt: skip
    (failed,) = check([Path(each) for each in files], Policy(log.policy)).failed
    assert "another manifest than was promised" in failed


SIGNED = ["", "{}", "[]", '{"v":1,"type":"gift"}', '{"v":1,"type":["key"]}', "\x00" * 9,
          '{"v":1,"type":"manifest","key":"k","manifest":"%s"}' % ("0" * 64) + " " * 65_535,
          '{"v":1,"type":"key","origin":"o","old":"a+b+c","new":"","signature":""}']  # fmt: skip


@pytest.mark.parametrize("leaf", SIGNED)
def test_a_leaf_that_is_none_is_refused_though_it_is_in_the_log(tmp_path: Path, leaf: str) -> None:
    log = Writer(leaves=[leaf])
    (proof,) = write(tmp_path, proof=log.proof(0, log.opening("leaf", 0)))
    assert check([Path(proof)], Policy(log.policy)).failed


def test_no_line_is_paid_twice(tmp_path: Path) -> None:
    log = Writer()
    _, settle = inference(log, 1, {"alice": 333_333_333})
    fields = {"statement": f"{ALICE}/2026-10", "first_seq": 1, "last_seq": 3,
              "opening_nano": 0, "lines_nano": 13_346_666, "nano": CENT}  # fmt: skip
    paid = [payout(log, number, ALICE, **fields) for number in (2, 3)]
    proofs = [log.line(each, ALICE, show=True) for each in paid]
    files = write(tmp_path, one=proofs[0], two=proofs[1])
    assert not check([Path(files[0])], Policy(log.policy)).failed
    assert check([Path(each) for each in files], Policy(log.policy)).failed
    assert settle


def test_a_log_that_is_not_in_the_journals_order_is_refused(tmp_path: Path) -> None:
    def swapped(fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "seq": {1: 2, 2: 1}[fields["seq"]]}

    log = Writer(leg_hand=swapped, entry_hand=swapped)
    one = log.add(operation(1, "deposit"), {"funding": -5, "app:demo": 5})
    two = log.add(operation(2, "adjust"), {"platform": -5, "host": 5})
    files = [Path(each) for each in write(tmp_path, one=log.line(one, "app:demo"),
                                          two=log.line(two, "host"))]  # fmt: skip
    assert not any(check([each], Policy(log.policy)).failed for each in files)
    assert check(files, Policy(log.policy)).failed


def test_another_logs_tree_head_is_nothing_to_compare_with(log: Writer, tmp_path: Path) -> None:
    key, size = Signer("other.example"), len(log.leaves)
    root = log.head().split("\n")[2]
    body = f"other.example\n{size}\n{root}\n"
    other = f"{body}\n{key.line(body)}"
    head, older, newer = write(tmp_path, head=log.head(), older=other, newer=log.consistency(0))
    policy = Policy("\n".join(each.vkey for each in (*log.keys, key)))
    assert not check([Path(head), Path(older)], policy).failed
    assert check([Path(head)], policy, Path(older)).failed
    assert not check([Path(newer)], policy).failed
    with_path = log.consistency(30).replace("old 30", "old 0")
    (newer,) = write(tmp_path, newer=with_path)
    assert check([Path(newer)], policy).failed


def test_a_fork_is_shown_with_both_tree_heads(
    log: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Writer()
    other.leaves = ["{}", *log.leaves[1:]]
    files = write(tmp_path, one=log.head(), two=other.head(keys=log.keys), policy=log.policy)
    assert main([*files[:2], "--policy", files[2], "--json"]) == 1
    printed = capsys.readouterr().out
    assert "A FORK" in json.loads(printed.splitlines()[-1])["failed"][0]
    for head in (log.head(), other.head()):
        assert all(f"    {line}\n" in printed for line in head.split("\n")[:3])


def test_two_tree_heads_of_one_log_are_not_taken_for_one_history(
    log: Writer, tmp_path: Path
) -> None:
    older, newer = write(tmp_path, older=log.head(30, keys=log.keys), newer=log.head())
    policy = Policy(log.policy)
    assert check([Path(newer)], policy, Path(older)).failed
    nothing = Path(*write(tmp_path, empty=log.head(0)))
    for against in (None, nothing):  # files that were fetched at two times are under two heads
        found = check([Path(newer), Path(older)], policy, against)
        assert not found.failed
        assert (
            found.not_shown[-1]
            == "(not shown: whether the logs over 30, 66 leaves are one history)"
        )
        assert not any("one history since" in said for _, said in found.said)
    (failed,) = check([Path(newer), Path(older)], policy, Path(newer)).failed
    assert failed == f"{ORIGIN}: no .consistency file leads from 66 leaves to 30"
    (history,) = write(tmp_path, history=log.consistency(30))
    found = check([Path(newer), Path(older), Path(history)], policy, Path(newer))
    assert not found.failed
    assert not check([Path(newer), Path(older), Path(history)], policy).not_shown


def test_a_key_that_only_the_old_one_announces_is_trusted_in_that_tree_alone(
    log: Writer, tmp_path: Path
) -> None:
    made = a_written_log(Writer(newest_alone=True))
    proof, bare = write(tmp_path, proof=made.line(made.entries[3], ALICE), bare=made.head())
    assert not check([Path(proof), Path(bare)], Policy(made.policy)).failed
    assert check([Path(bare)], Policy(made.policy)).failed
    stranger = made.policy.replace(made.keys[0].vkey, Signer(ORIGIN, 1, "stranger").vkey)
    assert check([Path(proof)], Policy(stranger)).failed


QUORUMS = [("any", 1, True), ("2", 1, False), ("2", 2, True), ("all", 2, False), ("all", 3, True)]


@pytest.mark.parametrize(("needed", "signed", "is_good"), QUORUMS)
def test_a_tree_head_needs_the_witnesses_that_the_policy_asks_for(
    tmp_path: Path, needed: str, signed: int, is_good: bool
) -> None:
    witnesses = [Signer(f"w.example/{n}", 4) for n in range(3)]
    log = a_written_log(Writer(witnesses=witnesses[:signed]))
    lines = [f"witness w{n} {witness.vkey}" for n, witness in enumerate(witnesses)]
    policy = [f"log {log.keys[0].vkey}", *lines, f"group g {needed} w0 w1 w2", "quorum g"]
    (head,) = write(tmp_path, head=log.head())
    assert (not check([Path(head)], Policy("\n".join(policy))).failed) is is_good


HOSTILE_POLICIES = [
    "", "log x", "quorum none", "log {log}\nquorum w", "log {log}\nlog {log}\nquorum none",
    "log {log}\nquorum none\nquorum none", "log {log}\nwitness w {log}\nquorum w",
    "log {log}\nwitness none {witness}\nquorum none",
    "log {log}\nwitness a {witness}\nwitness b {witness}\ngroup g 2 a b\nquorum g",
    "log {log}\nwitness a {witness}\ngroup g 2 a a\nquorum g",
    "log {log}\nwitness a {witness}\ngroup g 0 a\nquorum g",
    "log {log}\nwitness a {witness}\ngroup g 9999999999 a\nquorum g",
    "log {log}\ngroup g any g\nquorum g", "log {log}+x\nquorum none",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE_POLICIES)
def test_a_policy_that_is_not_clear_ends_the_program(
    log: Writer, tmp_path: Path, text: str
) -> None:
    policy = text.format(log=log.keys[0].vkey, witness=log.witnesses[0].vkey)
    head, path = write(tmp_path, head=log.head(), policy=policy)
    with pytest.raises(SystemExit) as ended:
        main([head, "--policy", path])
    assert ended.value.code == 2


def hostile(log: Writer) -> dict[str, bytes]:
    proof = log.line(log.entries[3], ALICE)
    first, _, rest = proof.partition("\nextra ")
    _, _, after = rest.partition("\n")
    opening = json.loads(b64decode(rest.partition("\n")[0]))

    def extra(text: str | bytes) -> bytes:
        raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        return f"{first}\nextra {b64encode(raw).decode()}\n{after}".encode()

    def leaf(text: object) -> bytes:
        return extra(json.dumps({**opening, "leaf": text}))

    return {
        "nothing": b"", "zeros": b"\0" * 1000, "no UTF-8": b"\xff\xfe{", "a brace": b"{",
        "deep": b"[" * 100_000, "deep object": b'{"object":' * 100_000,
        "long number": b'{"v":' + b"9" * 10_000 + b"}", "a list": b"[1]",
        "proofs alone": b'{"v":1,"object":"proofs"}\n',
        "proofs of numbers": b'{"v":1,"object":"proofs","checkpoint":7}\n',
        "list as object": b'{"object":["proofs"]}', "terminal": b"\x1b[2J\x1b]0;x\x07\n\n\n",
        "statement of nothing": b'{"object":"statement"}', "csv": b"row,seq,time\r\nline,x\r\n",
        "receipt": b"byline-receipt/v1\n{}\n\n" + "— a b\n".encode(),
        "old": b"old 99999999999999999999999\n\n" + log.head().encode(),
        "no opening": proof.encode()[:40], "twice": extra('{"v":1,"v":1}'),
        "opening of text": extra("7"), "opening without UTF-8": extra(b"\xff"),
        "deep opening": extra('{"leaf":' * 50_000), "surrogate": extra('{"leaf":"\\ud800"}'),
        "true for 1": extra(json.dumps({**opening, "v": True})),
        "no leaf": leaf(None), "long leaf": leaf("{" + " " * 70_000 + "}"), "empty leaf": leaf(""),
        "with": extra(json.dumps({**opening, "with": 7})),
        "with of": extra(json.dumps({**opening, "with": [7]})),
        "object": extra(json.dumps({**opening, "object": []})),
        "manifest": extra(json.dumps({**opening, "manifest": "x"})),
        "leg": extra(json.dumps({**opening, "leg": [1]})),
        "long path": extra(json.dumps({**opening, "leg": {**opening["leg"], "path": [1] * 9}})),
        "huge size": proof.replace("\n66\n", "\n" + "9" * 19 + "\n").encode(),
        "wide digits": proof.replace("\n66\n", "\n\uff16\uff16\n").encode(),
        "signatures": log.head().encode() + "— a AAAAAAA=\n".encode() * 100,
    }  # fmt: skip


def test_a_hostile_file_ends_in_a_sentence(
    log: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, raw in hostile(log).items():
        path = tmp_path / "hostile"
        path.write_bytes(raw)
        assert main([str(path), "--key", log.keys[0].vkey, "--json"]) == 1, name
        printed = capsys.readouterr().out
        assert json.loads(printed.splitlines()[-1])["failed"], name
        assert "\x1b" not in printed
    assert main([str(tmp_path), str(tmp_path / "none"), "--key", log.keys[0].vkey, "--json"]) == 1


def test_nothing_in_a_file_begins_a_line_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Writer()
    written = log.add(operation(1, "adjust"), {"platform": -1, "x\nok     forged \u202e": 1})
    line = log.line(written, "x\nok     forged \u202e")
    (proof,) = write(tmp_path, **{"a\nok     forged \u202e": line})
    assert main([proof, "--key", log.keys[0].vkey]) == 1  # names of accounts are words
    printed = capsys.readouterr().out
    assert "\nok     forged" not in printed
    assert "\u202e" not in printed


def test_a_statement_that_was_handed_out_otherwise_is_refused(log: Writer, tmp_path: Path) -> None:
    proofs, table = log.statement(ALICE, "2026-10")
    for one, other in [
        ("13346666", "13346667"),
        ("settle", "refund"),
        ("93426662", "93426663"),
        ("2026-10", "2026-11"),
    ]:
        assert one in table
        files = write(tmp_path, proofs=proofs, table=table.replace(one, other, 1))
        assert check([Path(each) for each in files], Policy(log.policy)).failed


def outside(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the verifier as somebody who has nothing else, in an environment with nothing else."""
    builder = venv.EnvBuilder(symlinks=True, with_pip=False)
    builder.create(folder / "env")
    site = next((folder / "env").glob("lib/python*/site-packages"))
    packages = Path(cryptography.__file__).parent.parent
    for name in ("cryptography", "cffi", "_cffi_backend*", "pycparser"):
        for found in packages.glob(name):
            (site / found.name).symlink_to(found)
    source = Path(byline.verification.__file__).parent
    shutil.copytree(source, folder / "verify", ignore=shutil.ignore_patterns("__pycache__"))
    python = folder / "env" / "bin" / "python"
    return subprocess.run(
        [python, "-I", "-W", "error", "verify", *arguments], cwd=folder, text=True,
        capture_output=True, check=False, env={"PATH": os.defpath}, timeout=60,
    )  # fmt: skip


def test_an_outsider_needs_the_verifier_a_proof_and_a_key_and_nothing_else(
    log: Writer, tmp_path: Path
) -> None:
    write(tmp_path, **{"line.tlog-proof": log.line(log.entries[3], ALICE)})
    found = outside(tmp_path, "line.tlog-proof", "--key", log.keys[0].vkey, "--json")
    assert found.returncode == 0, found.stderr
    assert "+13,346,666 nano-USD for 'contrib:alice'" in found.stdout
    assert json.loads(found.stdout.splitlines()[-1])["verified"] is True


def test_the_verifier_imports_nothing_but_python_and_cryptography() -> None:
    code = (
        "import sys; before = set(sys.modules); import byline.verification.program;"
        "print(*(set(sys.modules) - before))"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    own = {name for name in found if name.startswith("byline.")}
    assert not [name for name in own if not name.startswith("byline.verification")]
    allowed = {"byline", "cryptography", *sys.stdlib_module_names}
    tops = {name.partition(".")[0] for name in found}
    assert not {name for name in tops - allowed if not name.startswith("_")}


def test_the_command_checks_as_the_folder_does(log: Writer, tmp_path: Path) -> None:
    (proof,) = write(tmp_path, **{"line.tlog-proof": log.line(log.entries[3], ALICE)})
    run = CliRunner()
    key = ["--key", log.keys[0].vkey]
    good = run.invoke(app, ["verify", proof, *key, "--json"])
    assert good.exit_code == 0
    assert json.loads(good.stdout.splitlines()[-1])["verified"] is True
    assert run.invoke(app, ["verify", proof, *key, proof]).exit_code == 0  # in any order
    assert "--replay EXPORT" in run.invoke(app, ["verify", "--help"]).stdout
    other = ["--key", Signer(ORIGIN, 1, "other").vkey]
    assert run.invoke(app, ["verify", proof, *other]).exit_code == 1
    assert run.invoke(app, ["verify", "--replay", str(tmp_path), *key]).exit_code == 1
    for words in ([proof], [*key], [proof, "--key", "x"], [proof, *key, "--replay", "."]):
        assert run.invoke(app, ["verify", *words]).exit_code == 2
