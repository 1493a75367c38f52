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
    POOL,
    Writer,
    Written,
    a_written_log,
    attribution,
    canonical,
    inference,
    opened,
    operation,
)

ALICE, ONE = "contrib:alice", "019a0000-0000-7000-8000-000000000001"


@dataclass(frozen=True)
class Attack:
    """Files by name, whom the victim trusts, and what must be said."""

    files: dict[str, str]
    policy: str
    sentence: str
    older: str | None = None


def funded() -> Writer:
    log = Writer()
    log.add(operation(1, "deposit"), {"funding": -(10**9), "app:demo": 10**9})
    opened(log, ONE)
    return log


def settled(legs: dict[str, int], manifest: str | None, **more: Any) -> tuple[Writer, Written]:
    log = funded()
    return log, log.add(f"{ONE}/settle/0", legs, manifest=manifest, **more)


def paid_without_share(*, show: bool) -> Attack:
    legs = {f"open:{ONE}": -POOL, "contrib:mallory": POOL - 1, ALICE: 1}
    log, settle = settled(legs, attribution(ONE, {"alice": 9 * 10**8}))
    proof = log.line(settle, ALICE, show=show)
    return Attack({"line": proof}, log.policy,
                  f"the leg of '{ALICE}': 1 of {POOL} is not the share that it states")  # fmt: skip


def paid_from_a_contributor() -> Attack:
    log = funded()
    settle = log.add(f"{ONE}/settle/0", {ALICE: -300, "contrib:bob": 300})
    return Attack({"entry": log.entry(settle, [ALICE])}, log.policy,
                  f"the leg of '{ALICE}': a settle does not touch this account")  # fmt: skip


def without_manifest() -> Attack:
    legs, shares = {f"open:{ONE}": -POOL, "contrib:mallory": POOL}, {"contrib:mallory": 10**9}
    log, settle = settled(legs, None, shares=shares, undecided=True)
    return Attack({"line": log.line(settle, "contrib:mallory")}, log.policy,
                  "its manifest was not logged before it was paid on")  # fmt: skip


def by_a_manifest(manifest: str, sentence: str) -> Attack:
    log, settle = settled({f"open:{ONE}": -POOL, ALICE: POOL}, manifest, shares={ALICE: 10**9})
    return Attack({"line": log.line(settle, ALICE, show=True)}, log.policy, sentence)


def of_another_kind(key: str, kind: str, legs: dict[str, int], what: str) -> Attack:
    log = funded()
    entry = log.add(key, legs, kind=kind)
    return Attack({"line": log.line(entry, min(legs))}, log.policy, what)


def taken(kind: str, legs: dict[str, int], account: str) -> Attack:
    log = funded()
    entry = log.add(f"{ONE}/{kind.removesuffix('_late')}/0", legs, kind=kind,
                    charge=sum(legs.values()) or 5 * (kind == "capture_late"))  # fmt: skip
    return Attack({"line": log.line(entry, account)}, log.policy,
                  f"the leg of '{account}': a {kind} does not touch this account")  # fmt: skip


def two_legs_of_one() -> Attack:
    hand = lambda leg: {**leg, "account": ALICE} if leg["account"] == "contrib:bob" else leg  # noqa: E731
    log = Writer(leg_hand=hand)
    opened(log, ONE)
    half = {ALICE: 5 * 10**8, "contrib:bob": 5 * 10**8}
    legs = {f"open:{ONE}": -POOL, ALICE: POOL // 2, "contrib:bob": POOL // 2}
    settle = log.add(f"{ONE}/settle/0", legs, shares=half)
    return Attack({"entry": log.entry(settle, [*legs], show=False)}, log.policy,
                  "entry 3 has two legs of one account")  # fmt: skip


def a_line_of_the_next_month() -> Attack:
    log = a_written_log()
    log.close("contrib:carol", "2026-10", 1, 6)
    return Attack({"october": log.statement("contrib:carol", "2026-10")[0]}, log.policy,
                  "'contrib:carol' for 2026-10: a line of it is later than that month")  # fmt: skip


def a_receipt_of_a_manifest_that_is_not_named() -> Attack:
    log = Writer()
    kept = opened(log, ONE)
    bare = Writer()
    hold = f"hold:{ONE}"
    bare.add(f"{ONE}/hold/0", {"app:demo": -9, hold: 9})
    capture = bare.add(f"{ONE}/capture/0", {hold: -9, "platform": 9}, charge=9, undecided=True)
    promised = Written(0, capture.header, [], [], [], kept.manifest)
    files = {"receipt": bare.receipt(ONE, promised, []), "entry": bare.entry(capture, [])}
    return Attack(files, bare.policy, "entry 2 has another manifest than was promised")


def receipts_state() -> Attack:
    log = a_written_log()
    text = log.receipt(ONE, log.entries[2], [log.entries[3]]).split("\n")[1]
    text = text.replace('"settled"', '"settled, and all of it is proven"')
    body = f"byline-receipt/v1\n{text}\n"
    return Attack({"receipt": f"{body}\n{log.receipts.line(body)}"}, log.policy,
                  "a name has other characters in it than names have")  # fmt: skip


def another_inferences_pool() -> Attack:
    other = f"open:{ONE[:-1]}9"
    log = funded()
    settle = log.add(f"{ONE}/settle/0", {other: -5, ALICE: 5})
    return Attack({"entry": log.entry(settle, [other])}, log.policy,
                  f"the leg of '{other}': a settle does not touch this account")  # fmt: skip


def another_inferences_hold(kind: str) -> Attack:
    other = f"hold:{ONE[:-1]}9"
    log = funded()
    void = log.add(f"{ONE}/{kind}/0", {other: -5, "app:demo": 5})
    return Attack({"entry": log.entry(void, [other])}, log.policy,
                  f"the leg of '{other}': a {kind} does not touch this account")  # fmt: skip


def a_pool_for_the_host() -> Attack:
    log, settle = settled({f"open:{ONE}": -POOL, "host": POOL}, "{}")
    return Attack({"entry": log.entry(settle, ["host"])}, log.policy,
                  "the leg of 'host': a settle does not touch this account")  # fmt: skip


def named_twice() -> str:
    fields = json.loads(attribution(ONE, {"alice": 2 * 10**8}))
    rows = [{"contributor": "alice", "share_ppb": 10**9}, *fields["shares"]]
    return canonical({**fields, "shares": rows, "unattributed_ppb": 0})


def not_all() -> str:
    fields = json.loads(attribution(ONE, {"alice": 10**9}))
    return canonical({**fields, "unattributed_ppb": 1})


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


ANOTHERS = "the manifest is of another inference, adapter version or pool"
ATTACKS: dict[str, Callable[[], Attack]] = {
    "a settlement without shares": lambda: paid_without_share(show=True),
    "and without its manifest's text": lambda: paid_without_share(show=False),
    "a settlement by no manifest": without_manifest,
    "by another inference's manifest": lambda: by_a_manifest(
        attribution(ONE[:-1] + "9", {"alice": 10**9}), ANOTHERS),
    "by another pool's manifest": lambda: by_a_manifest(
        attribution(ONE, {"alice": 10**9}, POOL - 1), ANOTHERS),
    "by another adapter version's manifest": lambda: by_a_manifest(
        attribution(ONE, {"alice": 10**9}).replace(ADAPTER, "law@0"), ANOTHERS),
    "a manifest that shares out more than all": lambda: by_a_manifest(
        not_all(), "the manifest's shares are not one whole"),
    "a manifest that names somebody twice": lambda: by_a_manifest(
        named_twice(), "the manifest names a contributor twice"),
    "an event of another kind": lambda: of_another_kind(
        f"{ONE}/settle/0", "adjust", {ALICE: -7, "platform": 7}, "its event is no adjust"),
    "a deposit out of a contributor's account": lambda: taken(
        "deposit", {ALICE: -5, "app:mallory": 5}, ALICE),
    "a hold of a contributor's money": lambda: taken("hold", {ALICE: -5, f"hold:{ONE}": 5}, ALICE),
    "a late charge to a contributor": lambda: taken("capture_late", {ALICE: -5, "host": 5}, ALICE),
    "a release out of a contributor's account": lambda: taken(
        "release", {ALICE: -5, "contrib:bob": 5}, ALICE),
    "a release to the platform": lambda: taken(
        "release", {"unattributed:x": -5, "platform": 5}, "platform"),
    "a refund to the host": lambda: taken("refund", {ALICE: -5, "host": 5}, "host"),
    "a payout to the platform": lambda: taken("payout", {ALICE: -5, "platform": 5}, "platform"),
    "an adjustment of a pool": lambda: taken(
        "adjust", {f"open:{ONE}": -5, "host": 5}, f"open:{ONE}"),
    "an account of no kind": lambda: taken("adjust", {"slush": -5, "host": 5}, "slush"),
    "two legs of one account": two_legs_of_one,
    "a line of the next month": a_line_of_the_next_month,
    "a manifest that was promised and is not named": a_receipt_of_a_manifest_that_is_not_named,
    "a receipt whose state is a sentence": receipts_state,
    "a settlement out of a contributor's account": paid_from_a_contributor,
    "a settlement out of another inference's pool": another_inferences_pool,
    "a void of another inference's hold": lambda: another_inferences_hold("void"),
    "an expiry of another inference's hold": lambda: another_inferences_hold("expire"),
    "a pool paid to the host": a_pool_for_the_host,
    "a log that the key for receipts signs": a_log_of_the_receipts_key,
    "a table with a column twice": a_table_for_spreadsheets,
}  # fmt: skip


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
