"""Leaves of the log, and the legs of an entry: what each says, and what must hold of it."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from types import SimpleNamespace as Fields

from .proof import (
    BOUND,
    ENTRY,
    PPB,
    Convert,
    Refused,
    Sums,
    amount,
    hash64,
    hex32,
    list_of,
    null_or,
    number,
    object_of,
    opened_line,
    parse_json,
    parse_leg,
    require,
    shaped,
    stated,
    sum_node,
    text,
    version,
    word,
)
from .trees import EMPTY_ROOT, root_over


def integer(value: object) -> int:
    """A whole number of either sign."""
    if type(value) is not int or abs(value) >= BOUND:
        raise Refused("a field is no whole number within bounds")
    return value


CENT_NANO = 10_000_000
NO_LEGS = Sums(EMPTY_ROOT, 0, 0, 0)
LEAVES: dict[str, dict[str, Convert]] = {
    "entry": ENTRY,
    "manifest": {"key": word, "manifest": hex32},
    "statement": {"month": text, "commitment": hex32},
    "key": {"origin": text, "old": text, "new": text, "signature": text},
}  # fmt: skip
OPENING: dict[str, Convert] = {
    "account": word, "month": text, "salt": hex32, "first_n": number, "last_n": number,
    "before": hex32, "head": hex32, "opening": amount, "closing": amount, "sha256": text,
}  # fmt: skip
ATTRIBUTION: dict[str, Convert] = {
    "inference": text, "adapter_version": text, "pool_nano": integer, "unattributed_ppb": number,
    "shares": list_of(object_of(contributor=text, share_ppb=number)),
}  # fmt: skip
DECISION: dict[str, Convert] = {
    "account": word, "nano": amount, "statement": text, "first_seq": number, "last_seq": number,
    "opening_nano": amount, "lines_nano": amount, "reference": text,
}  # fmt: skip
TABLE: dict[str, Convert] = {
    "account": word, "month": text, "opening_nano": integer, "closing_nano": integer,
    "lines": list_of(object_of(seq=number, key=text, kind=text, nano=integer)),
}  # fmt: skip
RECEIPT: dict[str, Convert] = {
    "v": version, "inference": word, "application": text, "model": text, "served_by": text,
    "adapter_version": null_or(text), "policy": text, "charge": amount, "state": word,
    "time_ms": number, "capture": object_of(key=word, manifest_sha256=hex32),
    "settles": list_of(object_of(key=word, manifest_sha256=null_or(hex32))),
}  # fmt: skip


def shares_in(manifest: str, settle: Fields) -> dict[str, int]:
    """The shares that an attribution gives, by account, in ppb: this settle's, and all there is."""
    found = shaped(parse_json(manifest), ATTRIBUTION)
    own = settle.key.partition("/")[0], settle.adapter_version, settle.legs.debits
    is_its = (found.inference, found.adapter_version, found.pool_nano) == own
    require(is_its, "the manifest is of another inference, adapter version or pool")
    shares = {f"contrib:{each.contributor}": each.share_ppb for each in found.shares}
    require(len(shares) == len(found.shares), "the manifest names a contributor twice")
    shares[f"unattributed:{found.adapter_version}"] = found.unattributed_ppb
    require(sum(shares.values()) == PPB, "the manifest's shares are not one whole")
    return shares


def parse_part(value: object, entry: Fields) -> Fields:
    """A leg of an entry: opened, or closed, with its node alone."""
    if isinstance(value, dict) and "text" in value:
        return parse_leg(text(value["text"]), entry)
    closed = shaped(value, {"hash": hex32, "debits": amount, "credits": amount, "paid": amount})
    return Fields(node=Sums(closed.hash, closed.debits, closed.credits, closed.paid), n=None)


def opened_legs(opening: object, entry: Fields) -> list[Fields]:
    """The legs that an opening shows, once they are shown to be the entry's."""
    if shaped(opening, {"object": text}).object == "line":
        legs = [opened_line(opening, entry)]
    else:
        parts = shaped(opening, {"legs": list_of(lambda part: parse_part(part, entry))}).legs
        require(len(parts) == entry.legs.count, f"entry {entry.seq} has other legs")
        root = root_over([part.node for part in parts] or [NO_LEGS], sum_node)
        is_its = root == stated(entry)
        require(is_its, f"entry {entry.seq}: its leaf says something else of its legs")
        legs = [part for part in parts if part.n is not None]
    for leg in legs:
        leg.entry, leg.decision = entry, None
    is_once = len({leg.account for leg in legs}) == len(legs)
    require(is_once, f"entry {entry.seq} has two legs of one account")
    shared = sum(leg.ppb or 0 for leg in legs)
    require(shared <= PPB, f"entry {entry.seq} shares out more than all there is")
    return legs


def check_manifest(opening: object, entry: Fields) -> bytes | None:
    """A manifest that is shown must be the entry's, and say of its legs what they are."""
    if not isinstance(opening, dict) or "manifest" not in opening:
        return None
    shown = shaped(opening["manifest"], {"sha256": hex32, "salt": hex32})
    commitment = sha256(b"\x04" + shown.salt + shown.sha256).digest()
    require(commitment == entry.manifest, f"entry {entry.seq} names another manifest")
    entry.said.append(f"its manifest is the one with the SHA-256 {shown.sha256.hex()}")
    if "text" in opening["manifest"]:
        said = text(opening["manifest"]["text"])
        require(sha256(said.encode()).digest() == shown.sha256, "a manifest's text was changed")
        shared = [leg for leg in entry.opened if entry.kind == "settle" and leg.nano > 0]
        shares = shares_in(said, entry) if entry.kind == "settle" else {}
        for leg in shared:
            is_its = shares.get(leg.account) == leg.ppb
            require(is_its, f"the manifest gives '{leg.account}' another share")
        for leg in entry.opened if entry.kind == "payout" else []:
            check_decision(leg, shaped(parse_json(said), DECISION))
        if shared or entry.kind == "payout":
            entry.said.append("what the manifest decides is what was posted")
    return bytes(shown.sha256)


def opened_statement(opening: object, leaf: Fields) -> Fields:
    """What a statement's leaf commits to."""
    source = text(shaped(opening, {"opening": text}).opening)
    found = shaped(parse_json(source), OPENING)
    commitment = sha256(b"\x05" + source.encode()).digest()
    is_its = commitment == leaf.commitment and found.month == leaf.month
    require(is_its, "it is not the statement that the log has")
    is_month = re.fullmatch("[12][0-9]{3}-(0[1-9]|1[0-2])", found.month)
    require(is_month, f"a statement is for '{found.month}', which is no month")
    return found


def require_in_month(statement: Fields, newest_ms: int) -> None:
    """The newest line of a statement is before its month's end, in UTC; it may be older."""
    year, month = int(statement.month[:4]), int(statement.month[5:])
    end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    is_before = newest_ms < int(end.timestamp()) * 1_000
    what = f"the statement of '{statement.account}' for {statement.month}"
    require(is_before, f"{what}: a line of it is later than that month")


def check_decision(leg: Fields, decision: Fields) -> None:
    """A payout must be what was decided."""
    what = f"the payout in entry {leg.entry.seq}: "
    if leg.account == "payout":
        require(leg.nano == decision.nano, f"{what}the decision names another amount")
        return
    is_its = (leg.account, -leg.nano) == (decision.account, decision.nano)
    require(is_its, f"{what}the decision names another account or amount")
    is_own = decision.statement.rpartition("/")[0] == leg.account
    require(is_own, f"{what}it cites somebody else's statement")
    in_order = 1 <= decision.first_seq <= decision.last_seq + 1 <= leg.entry.seq
    require(in_order, f"{what}the lines that it cites can't be")
    require(decision.nano % CENT_NANO == 0, f"{what}it is of no whole cents")
    owed = decision.opening_nano + decision.lines_nano
    require(owed >= decision.nano, f"{what}more is paid than is owed")
    leg.decision = decision


def require_manifest_before(entry: Fields, leaves: Mapping[int, Fields]) -> list[str]:
    """A settle's manifest has its leaf before; says whether that leaf is here."""
    if entry.manifest_index is None:
        return []
    leaf = leaves.get(entry.manifest_index)
    if leaf is None:
        return [f"(not here: the leaf of its manifest, {entry.manifest_index:,})"]
    is_its = leaf.type == "manifest" and leaf.manifest == entry.manifest and leaf.key == entry.key
    require(is_its, f"leaf {entry.manifest_index} is not the manifest of entry {entry.seq}")
    return [f"its manifest is leaf {entry.manifest_index:,}: logged before it was paid on"]


def require_chain(legs: Iterable[Fields]) -> None:
    """Lines of one account, by their numbers: each must name the one before it."""
    for before, leg in pairwise(legs):
        follows = leg.n != before.n + 1 or leg.prev == before.node.hash
        in_order = before.entry.seq < leg.entry.seq
        require(follows and in_order, f"line {leg.n} of '{leg.account}' does not follow {before.n}")


def sentences_of(entry: Fields, index: int) -> list[str]:
    """What has been shown of an entry and its opened legs."""
    charged = f"; the charge is {entry.charge:,}" if entry.charge else ""
    said = [
        f"leaf {index:,} is in the log: entry {entry.seq:,} ({entry.kind}, '{entry.key}')",
        f"it debits {entry.legs.debits:,} nano-USD, credits as much, and pays "
        f"{entry.legs.paid:,} of it{charged}",
    ]
    for leg in entry.opened:
        share = f", {leg.ppb:,} parts per billion of the pool" if leg.ppb is not None else ""
        line = f", its line {leg.n:,}" if leg.n else ""
        said.append(f"{leg.nano:+,} nano-USD for '{leg.account}'{line}{share}")
    if closed := entry.legs.count - len(entry.opened):
        said.append(f"(closed: {closed:,} more of its legs, whose sums are as the leaf states)")
    return said


def further(opening: object) -> list[Fields]:
    """Further leaves of the same tree, which a file brings along."""
    found = opening.get("with", []) if isinstance(opening, dict) else []
    return list_of(object_of(index=number, leaf=text, path=list_of(hash64)))(found)  # type: ignore[no-any-return]
