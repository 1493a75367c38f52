"""Theorem: of the files of a log of 50 entries, no single change leaves a proof standing.

All changes are enumerated (proof_changes), none is drawn by chance. The tree heads here are signed
by a rotated-in key alone, whom only the log's own key leaf makes trusted, and by a witness.
"""

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations, permutations
from pathlib import Path
from types import SimpleNamespace as Fields

import pytest

from byline.verification.files import Files
from byline.verification.policies import Policy
from byline.verification.program import check
from byline.verification.proof import Refused
from byline.verification.together import conclude
from tests.byline.proof_changes import (
    changed,
    changed_consistency,
    changed_note,
    changed_proof,
    changed_receipt,
    changed_set,
    changed_table,
)
from tests.byline.proof_writer import (
    ORIGIN,
    Signer,
    Writer,
    a_written_log,
    b64,
    canonical,
    h,
    subproof,
)

pytestmark = pytest.mark.slow

ALICE, BOB = "contrib:alice", "contrib:bob"
FIRST_INFERENCE = "019a0000-0000-7000-8000-000000000001"
Case = tuple[dict[str, str], str, Callable[[str], Iterator[tuple[str, str]]]]


@cache
def log() -> Writer:
    return a_written_log(Writer(newest_alone=True))


@cache
def policy() -> Policy:
    return Policy(log().policy)


@cache
def cases() -> dict[str, Case]:
    """Files that are good together, the one that is changed, and how."""
    made, entries = log(), log().entries
    october, table = made.statement(ALICE, "2026-10")
    capture = made.entry(entries[2], ["platform", "app:demo"])
    settle = made.line(entries[3], BOB, show=True)
    receipt = made.receipt(FIRST_INFERENCE, entries[2], [entries[3]])
    older = made.head(30, keys=(made.keys[0],))
    whole = {"a.receipt": receipt, "capture.tlog-proof": capture, "settle.tlog-proof": settle}
    return {
        "line": ({"one.tlog-proof": settle}, "one.tlog-proof", changed_proof),
        "adjustment": (
            {"one.tlog-proof": made.line(entries[41], ALICE)}, "one.tlog-proof", changed_proof,
        ),
        "entry": ({"one.tlog-proof": capture}, "one.tlog-proof", changed_proof),
        "settled": (
            {"one.tlog-proof": made.entry(entries[3], [ALICE, BOB])}, "one.tlog-proof",
            changed_proof,
        ),
        "payout": (
            {"one.tlog-proof": made.line(entries[49], ALICE, show=True)}, "one.tlog-proof",
            changed_proof,
        ),
        "no legs": (
            {"one.tlog-proof": made.entry(entries[46], [])}, "one.tlog-proof", changed_proof,
        ),
        "statement": ({"s.tlog-proofs": october}, "s.tlog-proofs", changed_set),
        "statement's JSON": (
            {"s.tlog-proofs": october, "s.json": table}, "s.json", changed_table,
        ),
        "receipt": (whole, "a.receipt", changed_receipt),
        "history": (
            {"older": older, "n.consistency": made.consistency(30), "one.tlog-proof": settle},
            "n.consistency", changed_consistency,
        ),
        "older head": (
            {"older": older, "n.consistency": made.consistency(30), "one.tlog-proof": settle},
            "older", changed_note,
        ),
    }  # fmt: skip


def holds(folder: Path, files: dict[str, str]) -> bool:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    paths = [folder / name for name in files if name != "older"]
    against = folder / "older" if "older" in files else None
    return not check(paths, policy(), against).failed


@pytest.mark.parametrize("name", cases())
def test_no_single_change_leaves_a_proof_standing(tmp_path: Path, name: str) -> None:
    files, which, changes = cases()[name]
    assert holds(tmp_path, files)
    count, stands = 0, []
    for place, text in changes(files[which]):
        assert text != files[which], place
        count += 1
        if holds(tmp_path, {**files, which: text}):
            stands.append(place)
    assert not stands
    assert count > 15


def cut(source: str) -> Iterator[str]:
    """Every beginning of a text; of many proofs, those that end near the end of a line."""
    for end in range(len(source) - 1):
        if not source.startswith("{") or "\n" in source[end - 1 : end + 2]:
            yield source[:end]


@pytest.mark.parametrize("name", [name for name in cases() if name != "older head"])
def test_no_file_that_was_cut_off_stands(tmp_path: Path, name: str) -> None:
    files, which, _ = cases()[name]
    for text in cut(files[which]):
        assert not holds(tmp_path, {**files, which: text}), len(text)


def test_no_leaf_stands_at_anothers_place() -> None:
    made = log()
    places = [made.at(index) for index in range(len(made.leaves))]
    checkpoint = made.head(keys=(made.keys[0],))
    for at, other in permutations(range(len(made.leaves)), 2):
        files = Files(policy())
        leaf = Fields(index=at, path=[*map(b64decode, places[at]["path"])], leaf=made.leaves[other])
        with pytest.raises(Refused, match="is not in the log"):
            files.head(checkpoint, [leaf])


def rewritten() -> Iterator[tuple[str, list[str]]]:
    """The log with each of its leaves changed, left out, or exchanged with each later one."""
    leaves = log().leaves
    for at, leaf in enumerate(leaves):
        yield f"-{at}", [*leaves[:at], *leaves[at + 1 :]]
        if at + 1 < len(leaves):  # behind the last one it would be a new leaf
            yield f"+{at}", [*leaves[:at], leaf, *leaves[at:]]
        for place, other in changed(json.loads(leaf)):
            yield f"{at}{place}", [*leaves[:at], canonical(other), *leaves[at + 1 :]]
    for a, b in combinations(range(len(leaves)), 2):
        swapped = list(leaves)
        swapped[a], swapped[b] = leaves[b], leaves[a]
        yield f"{a}<>{b}", swapped


def test_no_rewritten_log_continues_the_old_one(tmp_path: Path) -> None:
    """The operator signs, with the right key, another history that is one leaf longer."""
    size, key = len(log().leaves), log().keys[0]
    older = log().head(keys=(key,))
    hashes, count = log().hashes(), 0
    assert holds(tmp_path, {"older": older, "n.consistency": continued(hashes)})
    for place, leaves in rewritten():
        forged = [h(b"\x00", leaf.encode()) for leaf in leaves]
        proof = continued(forged if len(forged) >= size else [*forged, h(b"")])
        files = Files(policy())
        files.bare.append(("n.consistency", proof))
        files.bare.insert(0, ("older", older))
        conclude(files)
        assert any("FORK" in sentence for sentence in files.failed), place
        count += 1
    assert count > 4_000


def continued(hashes: list[bytes]) -> str:
    """A `.consistency` from the log's size to a longer one with these leaves."""
    size = len(log().leaves)
    grown = Writer()
    longer = [*hashes, h(b"one more")]
    grown.hashes = lambda size=None: longer[:size]  # type: ignore[method-assign]
    grown.leaves = [""] * len(longer)
    path = "".join(f"{b64(each)}\n" for each in subproof(size, longer))
    return f"old {size}\n{path}\n{grown.head()}"


def test_every_truncated_log_is_found(tmp_path: Path) -> None:
    older = log().head(keys=(log().keys[0],))
    for size in range(len(log().leaves)):
        newer = log().head(size, keys=(log().keys[0],))
        assert holds(tmp_path, {"checkpoint": newer})
        assert not holds(tmp_path, {"older": older, "checkpoint": newer}) or size == 0


def test_no_file_stands_that_another_key_signed(tmp_path: Path) -> None:
    evil = Signer(ORIGIN, 1, "evil")
    forged = a_written_log(Writer(newest_alone=True, keys=[evil]))
    ours, files = log().entries, forged.entries
    assert ours[3].texts == files[3].texts
    proofs = {
        "line": forged.line(files[3], BOB), "head": forged.head(),
        "history": forged.consistency(30),
        "statement": forged.statement(ALICE, "2026-10")[0],
    }  # fmt: skip
    forged.receipts = Signer(f"{ORIGIN}/receipts", 1, "evil")
    proofs["receipt"] = forged.receipt(FIRST_INFERENCE, files[2], [files[3]])
    forged = a_written_log(Writer(newest_alone=True, witnesses=[Signer("w.example/1", 4, "evil")]))
    proofs["witness"] = forged.line(forged.entries[3], BOB)
    for name, text in proofs.items():
        assert not holds(tmp_path, {name: text}), name


def test_what_is_left_out_is_not_claimed(tmp_path: Path) -> None:
    """Optional parts show more; a file without them says less."""
    (tmp_path / "one").write_text(log().line(log().entries[3], BOB, show=True), newline="")
    said = "\n".join(s for _, s in check([tmp_path / "one"], policy()).said)
    assert "logged before it was paid on" in said
    assert "what the manifest decides is what was posted" in said
    opening = {**log().line_opening(log().entries[3], BOB), "with": log().further()}
    (tmp_path / "one").write_text(log().proof(log().entries[3].index, opening), newline="")
    found = check([tmp_path / "one"], policy())
    assert not found.failed
    said = "\n".join(s for _, s in found.said)
    assert "paid on" not in said
    assert "what the manifest decides" not in said
    assert "(not here: the leaf of its manifest" in said
