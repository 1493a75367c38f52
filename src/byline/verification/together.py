"""What several files show together: one history, chains, payouts and their lines, receipts kept."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from types import SimpleNamespace as Fields

from .entries import TABLE, require_chain
from .files import Files
from .proof import Head, hash64, parse_json, require, shaped
from .trees import older_and_newer


def conclude(files: Files, older: Head | None = None) -> None:
    """Hold all that was read against each other, and against an older tree head."""
    for name, source in files.bare:
        is_history = source.startswith("old ")
        files.attempt(name, _history if is_history else Files.head, files, source)
    for origin in sorted({origin for origin, _ in files.heads}):
        files.attempt(origin, _one_history, files, origin, older)
    for (_, account), chain in sorted(files.chains.items()):
        files.attempt(f"'{account}'", _chain, files, account, [chain[n] for n in sorted(chain)])
    for name, source in files.tables:
        files.attempt(name, _table, files, source)
    for origin, account in sorted({key[:2] for key in files.statements}):
        mine = [each for key, each in files.statements.items() if key[:2] == (origin, account)]
        files.attempt(f"'{account}'", _successive, files, mine)
    for origin, receipt in files.receipts:
        files.attempt(f"the receipt of '{receipt.inference}'", _promised, files, origin, receipt)


def _history(files: Files, source: str) -> None:
    """A consistency proof: an older tree head's log is the newer one's beginning."""
    proof, _, checkpoint = source.partition("\n\n")
    lines, head = proof.split("\n"), files.head(checkpoint)[0]
    require(re.fullmatch("old (0|[1-9][0-9]{0,18})", lines[0]), "the older size can't be read")
    old, path = int(lines[0][4:]), [*map(hash64, lines[1:])]
    if old == 0:
        require(not path, "from nothing there is nothing to compare")
        return
    older = files.heads.get((head.origin, old))
    require(older, f"the tree head over {old} leaves, with which it begins, is not here")
    assert older is not None
    roots = older_and_newer(old, head.size, path, older.root)
    require(roots == (older.root, head.root), "A FORK: the older log is not the beginning")
    files.linked.add((head.origin, old, head.size))
    files.say(f"the log over {head.size:,} leaves begins with the one over {old:,} leaves")


def _one_history(files: Files, origin: str, older: Head | None) -> None:
    """All tree heads of a log are of one history, as far as the files show it."""
    seqs = [seq for key, (_, seq) in sorted(files.leaves.items()) if key[0] == origin and seq]
    in_order = all(a < b for a, b in pairwise(seqs))
    require(in_order, "the log does not have its entries in the journal's order")
    sizes = sorted(size for name, size in files.heads if name == origin)
    if older:
        require(older.origin == origin, f"the older tree head is of {older.origin}")
    first = older.size if older and older.size else sizes[-1]
    known = {first}
    for _ in sizes:
        known |= {size for link in files.linked if link[0] == origin and {*link[1:]} & known
                  for size in link[1:]}  # fmt: skip
    rest = [size for size in sizes if size not in known and size]
    if older and older.size:
        apart = ", ".join(map(str, rest))
        require(not rest, f"no .consistency file leads from {first} leaves to {apart}")
        if sizes[-1] > first:
            files.say(f"{origin} has one history since {first:,} leaves")
        else:
            files.say(f"(not compared: no tree head here is newer than {first:,} leaves)")
        return
    if older:
        files.say("(not compared: the older tree head is of an empty log)")
    if rest:
        apart = ", ".join(str(size) for size in sizes if size)
        files.say(f"(not shown: whether the logs over {apart} leaves are one history)")


def _chain(files: Files, account: str, legs: Sequence[Fields]) -> None:
    """Lines of one account, and the payouts among them."""
    require_chain(legs)
    if len(legs) > 1:
        gaps = sum(leg.n != before.n + 1 for before, leg in pairwise(legs))
        left_out = (
            f"with {gaps} gaps: lines in between are not here"
            if gaps
            else "none left out between them"
        )
        files.say(
            f"{len(legs):,} lines of '{account}', {legs[0].n:,} to {legs[-1].n:,}: {left_out}"
        )
    payouts = [leg for leg in legs if leg.decision]
    for before, leg in pairwise(payouts):
        twice = leg.decision.first_seq <= before.decision.last_seq
        require(not twice, f"the payout in entry {leg.entry.seq} pays lines a second time")
    seqs = [leg.entry.seq for leg in legs]
    for leg in payouts:
        start = bisect_left(seqs, leg.decision.first_seq)
        _paid(files, leg, legs, start, bisect_right(seqs, leg.decision.last_seq))


def _paid(files: Files, payout: Fields, legs: Sequence[Fields], start: int, end: int) -> None:
    """A payout's lines sum to what its decision says, if the files have all of them.

    They have where the lines before and after those that it cites are here too.
    """
    around = legs[max(start - 1, 0) : end + 1]
    is_whole = all(after.n == before.n + 1 for before, after in pairwise(around))
    what = f"the payout in entry {payout.entry.seq}"
    if not is_whole or (start == 0 and legs[0].n > 1):
        files.say(f"(not all here: the lines that {what} pays)")
        return
    paid = sum(leg.nano for leg in legs[start:end] if leg.entry.kind != "payout")
    require(paid == payout.decision.lines_nano, f"{what} cites lines of another sum")
    files.say(f"the lines that {what} cites sum to {paid:,} nano-USD, as decided")


def _table(files: Files, source: str) -> None:
    """A statement as it was handed out says what its proof says."""
    table = shaped(parse_json(source), TABLE)
    sha = sha256(source.encode()).hexdigest()
    found = [each for each in files.statements.values() if each.sha256 == sha]
    require(found, "no statement that is proven here has this text")
    stated = (table.account, table.month, table.opening_nano, table.closing_nano)
    is_its = all((s.account, s.month, s.opening, s.closing) == stated for s in found)
    require(is_its, "its account, month or balances are not those of the proof")
    rows = [(row.seq, row.key, row.kind, row.nano) for row in table.lines]
    for each in found:
        lines = [(leg.entry.seq, leg.entry.key, leg.entry.kind, leg.nano)
                 for leg in each.lines or []]  # fmt: skip
        is_its = each.lines is not None and lines == rows
        require(is_its, "its lines are not those of a statement that is proven here")
        files.say(f"{len(rows):,} lines of the statement of '{each.account}' for {each.month} "
                 "are those that are proven")  # fmt: skip


def _successive(files: Files, statements: list[Fields]) -> None:
    """Statements of one account follow each other."""
    for before, after in pairwise(sorted(statements, key=lambda each: str(each.month))):
        what = f"the statements for {before.month} and {after.month} "
        require(after.first_n > before.last_n, f"{what}share lines")
        if after.first_n == before.last_n + 1:
            follows = (after.before, after.opening) == (before.head, before.closing)
            require(follows, f"{what}do not follow each other")
            files.say(f"{what}follow each other: nothing lies between")


def _promised(files: Files, origin: str, receipt: Fields) -> None:
    """What the log says of an inference is what its receipt promised."""
    captured = {"charge": receipt.charge, "policy": receipt.policy}
    for each, further_claims in [
        (receipt.capture, captured),
        *((s, {}) for s in receipt.settles),
    ]:
        entry = files.entries.get((origin, each.key))
        if entry is None:
            files.say(f"(not here: the proof of '{each.key}', which the receipt promises)")
            continue
        claims = {"inference": receipt.inference, "adapter_version": receipt.adapter_version,
                  **further_claims}  # fmt: skip
        for name, promised in claims.items():
            is_kept = getattr(entry, name) == promised
            require(is_kept, f"{name} is {getattr(entry, name)}, and {promised} was promised")
        is_named = each.manifest_sha256 is None or entry.manifest is not None
        is_kept = is_named and entry.shown in (None, each.manifest_sha256)
        require(is_kept, f"entry {entry.seq} has another manifest than was promised")
        files.say(f"entry {entry.seq:,} of the log keeps what the receipt promised of '{each.key}'")
        if entry.shown is None and each.manifest_sha256 is not None:
            files.say(
                f"(not shown: the manifest of entry {entry.seq:,}, which the receipt promises)"
            )
