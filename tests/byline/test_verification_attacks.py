"""What a dishonest operator could once get past the verifier, each with the sentence it meets now.

He has the log's keys: everything here is rightly signed. The page must find the same.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from byline.verification.policies import Policy
from byline.verification.program import check, main
from tests.byline.proof_writer import (
    ADAPTER,
    ORIGIN,
    Writer,
    Written,
    a_written_log,
    canonical,
    inference,
    operation,
)

ALICE, ONE = "contrib:alice", "019a0000-0000-7000-8000-000000000001"
POOL = 1_001


@dataclass(frozen=True)
class Attack:
    """Files by name, whom the victim trusts, and what must be said."""

    files: dict[str, str]
    policy: str
    sentence: str
    older: str | None = None


def funded() -> Writer:
    log = Writer()
    log.add(operation(1, "deposit"), {"funding": -(10**6), "app:demo": 10**6})
    hold, opened = f"hold:{ONE}", f"open:{ONE}"
    log.add(f"{ONE}/hold/0", {"app:demo": -5_000, hold: 5_000})
    log.add(f"{ONE}/capture/0", {hold: -5_000, "app:demo": 2_998, "platform": 1_001, opened: POOL},
            charge=2_002, manifest=canonical({"inference": ONE}))  # fmt: skip
    return log


def decided(**shares: int) -> str:
    rows = [{"contributor": name, "share_ppb": ppb} for name, ppb in shares.items()]
    rest = 10**9 - sum(shares.values())
    return canonical({"shares": rows, "unattributed_ppb": rest, "adapter_version": ADAPTER})


def settled(legs: dict[str, int], manifest: str, **more: Any) -> tuple[Writer, Written]:
    log = funded()
    return log, log.add(f"{ONE}/settle/0", legs, manifest=manifest, **more)


def paid_without_share() -> Attack:
    log, settle = settled(
        {f"open:{ONE}": -POOL, "contrib:mallory": POOL - 1, ALICE: 1}, decided(alice=9 * 10**8)
    )
    proof = log.line(settle, ALICE, show=True)
    return Attack({"line": proof}, log.policy, f"the manifest gives {ALICE} another share")


def paid_from_a_contributor() -> Attack:
    log = funded()
    settle = log.add(f"{ONE}/settle/0", {ALICE: -300, "contrib:bob": 300}, manifest=decided())
    return Attack({"entry": log.entry(settle, [ALICE])}, log.policy,
                  f"the leg of {ALICE}: a settle does not touch this account")  # fmt: skip


def another_inferences_pool() -> Attack:
    other = f"open:{ONE[:-1]}9"
    log = funded()
    settle = log.add(f"{ONE}/settle/0", {other: -5, ALICE: 5}, manifest=decided(alice=10**9))
    return Attack({"entry": log.entry(settle, [other])}, log.policy,
                  f"the leg of {other}: a settle does not touch this account")  # fmt: skip


def another_inferences_hold(kind: str) -> Attack:
    other = f"hold:{ONE[:-1]}9"
    log = funded()
    void = log.add(f"{ONE}/{kind}/0", {other: -5, "app:demo": 5})
    return Attack({"entry": log.entry(void, [other])}, log.policy,
                  f"the leg of {other}: a {kind} does not touch this account")  # fmt: skip


def a_pool_for_the_host() -> Attack:
    log, settle = settled({f"open:{ONE}": -POOL, "host": POOL}, decided(alice=10**9))
    return Attack({"entry": log.entry(settle, ["host"])}, log.policy,
                  "the leg of host: a settle does not touch this account")  # fmt: skip


def named_twice() -> Attack:
    rows = [{"contributor": "alice", "share_ppb": ppb} for ppb in (2 * 10**8, 10**9)]
    manifest = canonical({"shares": rows, "unattributed_ppb": 0, "adapter_version": ADAPTER})
    log, settle = settled({f"open:{ONE}": -POOL, ALICE: POOL}, manifest, shares={ALICE: 10**9})
    return Attack({"line": log.line(settle, ALICE, show=True)}, log.policy,
                  "the manifest names a contributor twice")  # fmt: skip


def a_log_of_the_receipts_key() -> Attack:
    log = a_written_log()
    name = f"{ORIGIN}/receipts"
    body = f"{name}\n1\n{'A' * 43}=\n"
    head = f"{body}\n{log.receipts.line(body)}"
    policy = f"{log.keys[0].vkey}\n{log.receipts.vkey}\n"
    return Attack({"head": head}, policy, "a key for receipts signs no log")


def a_table_for_spreadsheets() -> Attack:
    log = a_written_log()
    table = "row,seq,time,kind,key,nano,nano\r\nline,4,,settle,x,999999999,333\r\n"
    return Attack({"october": log.statement(ALICE, "2026-10")[0], "table": table}, log.policy,
                  "a statement's CSV is not checked: check its JSON")  # fmt: skip


ATTACKS: dict[str, Callable[[], Attack]] = {
    "a settlement without shares": paid_without_share,
    "a settlement out of a contributor's account": paid_from_a_contributor,
    "a settlement out of another inference's pool": another_inferences_pool,
    "a void of another inference's hold": lambda: another_inferences_hold("void"),
    "an expiry of another inference's hold": lambda: another_inferences_hold("expire"),
    "a pool paid to the host": a_pool_for_the_host,
    "a manifest that names somebody twice": named_twice,
    "a log that the key for receipts signs": a_log_of_the_receipts_key,
    "a table with a column twice": a_table_for_spreadsheets,
}


def checked(folder: Path, attack: Attack) -> list[tuple[str, str]]:
    paths = []
    for name, text in attack.files.items():
        paths.append(folder / name)
        paths[-1].write_text(text, encoding="utf-8", newline="")
    older = None
    if attack.older is not None:
        older = folder / "older"
        older.write_text(attack.older, encoding="utf-8", newline="")
    return check(paths, Policy(attack.policy), older).said


@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_rightly_signed_and_wrong_is_refused(tmp_path: Path, name: str) -> None:
    attack = ATTACKS[name]()
    failed = [sentence for mark, sentence in checked(tmp_path, attack) if mark == "FAILED"]
    assert len(failed) == 1
    assert failed[0].endswith(attack.sentence)


def test_the_honest_settlement_holds(tmp_path: Path) -> None:
    """Else the attacks above might be refused for another reason than theirs."""
    log = funded()
    _, settle = inference(log, 2, {"alice": 333_333_333, "bob": 250_000_000})
    attack = Attack({"entry": log.entry(settle, [*settle.accounts])}, log.policy, "")
    assert not [said for mark, said in checked(tmp_path, attack) if mark == "FAILED"]


@pytest.mark.parametrize(
    ("older", "sentence"),
    [
        (66, "(not compared: no tree head here is newer than 66 leaves)"),
        (0, "(not compared: the older tree head is of an empty log)"),
    ],
)
def test_what_was_not_compared_is_not_called_one_history(
    tmp_path: Path, older: int, sentence: str
) -> None:
    log = a_written_log()
    assert len(log.leaves) == 66
    receipt = log.receipt(ONE, log.entries[2], [log.entries[3]])
    head = log.head(older, keys=log.keys if older else log.keys[:1])
    said = [each for _, each in checked(tmp_path, Attack({"r": receipt}, log.policy, "", head))]
    assert sentence in said
    assert not any("one history since" in each for each in said)


def test_the_facts_name_what_is_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = a_written_log()
    (tmp_path / "policy").write_text(log.policy)
    (tmp_path / "line").write_text(log.line(log.entries[3], ALICE))
    assert main([str(tmp_path / "line"), "--policy", str(tmp_path / "policy"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["not_shown"] == ["(closed: 3 more of its legs, whose sums are as the leaf states)"]
