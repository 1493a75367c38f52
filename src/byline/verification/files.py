"""Reads proof files one after the other, and checks each by itself."""

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace as Fields
from typing import Any, TextIO

from .entries import (
    LEAVES,
    RECEIPT,
    check_manifest,
    further,
    opened_legs,
    opened_statement,
    require_chain,
    require_in_month,
    require_manifest_before,
    sentences_of,
)
from .policies import Policy
from .proof import (
    NO_LEG,
    Head,
    Key,
    Refused,
    base64,
    check_entry,
    fold,
    hash64,
    list_of,
    node_hash,
    number,
    parse_head,
    parse_json,
    parse_key,
    parse_leaf,
    parse_note,
    parse_proof,
    printable,
    require,
    shaped,
    text,
    version,
)
from .trees import EMPTY_ROOT

FILE_BYTES_MAX = 1 << 30  # of many proofs: a statement of 500,000 lines
TEXT_MAX = 1 << 27  # characters of what is read at once
LINE_MAX = 1 << 20  # characters of one proof among many
HOLDS, FAILED = "ok", "FAILED"
RECEIPTS = "/receipts"  # ends the name of a key that signs receipts


class Files:
    """What has been read, and what was found."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.said: list[tuple[str, str]] = []  # a mark, and a sentence
        self.heads: dict[tuple[str, int], Head] = {}  # by origin and size
        self.trusted: dict[tuple[str, int], list[Key]] = {}  # by that head
        self.leaves: dict[tuple[str, int], tuple[bytes, int]] = {}  # by origin and index: hash, seq
        self.entries: dict[tuple[str, str], Fields] = {}  # by origin and event key
        self.chains: dict[tuple[str, str], dict[int, Fields]] = {}  # by origin and account, by n
        self.statements: dict[tuple[str, str, str], Fields] = {}  # by origin, account and month
        self.receipts: list[tuple[str, Fields]] = []  # origin, receipt
        self.tables: list[tuple[str, str]] = []  # file and text of a statement as it is handed out
        self.bare: list[tuple[str, str]] = []  # file and text of a .consistency or a tree head
        self.linked: set[tuple[str, int, int]] = set()  # origin and two sizes of one history

    def say(self, sentence: str, mark: str = HOLDS) -> None:
        """Tell of a check that held; in brackets stands what was not checked."""
        self.said.append(("" if sentence.startswith("(") else mark, printable(sentence)))

    @property
    def not_shown(self) -> list[str]:
        """The sentences of what the files don't show."""
        return [sentence for mark, sentence in self.said if sentence.startswith("(") and not mark]

    @property
    def failed(self) -> list[str]:
        """The sentences of what did not hold."""
        return [sentence for mark, sentence in self.said if mark == FAILED]

    def attempt(self, name: str, check: Callable[..., object], *of: object) -> Any:  # noqa: ANN401
        """Run a check; where it fails that is told, and the next one goes on."""
        try:
            return check(*of)
        except Refused as refused:
            self.say(f"{name}: {refused}", FAILED)
        except (OSError, UnicodeError, MemoryError):
            self.say(f"{name}: it can't be read", FAILED)

    def read(self, path: Path) -> None:
        """Check one file by itself."""
        require(path.is_file(), "there is no such file")
        require(path.stat().st_size <= FILE_BYTES_MAX, "the file is too large")
        self.say(f"{path}:", "")
        with path.open(encoding="utf-8", newline="\n") as file:
            first, rest = _beginning(file)
            value = parse_json(first) if first.startswith("{") else {}
            if value.get("object") == "proofs":
                self._set(value, file)
                return
            whole = first + rest()
        if first == "c2sp.org/tlog-proof@v1\n":
            self._proof(whole)
        elif first == "byline-receipt/v1\n":
            self._receipt(whole)
        elif value.get("object") == "statement":
            self.tables.append((str(path), whole))
        else:
            is_table = first.startswith("row,seq,time")
            require(not is_table, "a statement's CSV is not checked: check its JSON")
            self.bare.append((str(path), whole))

    def older(self, path: Path) -> Head:
        """The tree head in a file, whatever else is in it."""
        require(path.is_file() and path.stat().st_size <= FILE_BYTES_MAX, "there is no such file")
        with path.open(encoding="utf-8", newline="\n") as file:
            first, rest = _beginning(file)
            if first.startswith("{"):
                value = parse_json(first)
                return self.head(shaped(value, {"checkpoint": text}).checkpoint, further(value))[0]
            whole = first + rest()
        if first == "c2sp.org/tlog-proof@v1\n":
            return self._proof(whole)
        is_history = first.startswith("old ")
        return self.head(whole.partition("\n\n")[2] if is_history else whole)[0]

    def head(
        self, checkpoint: str, leaves: Sequence[Fields] = ()
    ) -> tuple[Head, dict[int, Fields]]:
        """A tree head that the policy trusts, and leaves of its tree: key leaves hand trust on."""
        head = parse_head(checkpoint)
        require(not head.origin.endswith(RECEIPTS), "a key for receipts signs no log")
        known = self.heads.get((head.origin, head.size), head)
        keys = self.policy.keys_of(head.origin)
        handed_on = self.trusted.get((head.origin, head.size), [])
        keys += [key for key in handed_on if key not in keys and known.root == head.root]
        found = {}
        for each in sorted(leaves, key=lambda leaf: int(leaf.index)):
            found[each.index] = self._included(head, each)
            if found[each.index].type == "key":
                self.rotate(head, found[each.index], keys)
        self.trust(head, keys)
        return head, found

    def trust(self, head: Head, keys: list[Key]) -> None:
        """One of the keys and the quorum must have signed a head that contradicts no other."""
        known = self.heads.get((head.origin, head.size), head)
        signers = head.note.signers(keys)
        require(signers, f"no trusted key of '{head.origin}' signed the tree head")
        if known.root != head.root:
            for line in f"{known.note.text}\n{head.note.text}".split("\n"):
                self.say(f"    {line}", "")
            raise Refused(f"A FORK: two signed tree heads of {head.origin} over {head.size} leaves")
        require(head.size > 0 or head.root == EMPTY_ROOT, "an empty log's root is wrong")
        self.heads[head.origin, head.size] = head
        self.trusted[head.origin, head.size] = [*keys]
        cosigners = ", ".join(self.policy.require_quorum(head))
        self.say(
            f"the tree head of {head.origin} over {head.size:,} leaves is signed by key "
            f"{', '.join(key.id.hex() for key in signers)}, "
            f"{'cosigned by ' + cosigners if cosigners else 'without a witness'}"
        )

    def _included(self, head: Head, at: Fields) -> Fields:
        """What a leaf says, once it is shown to be in the tree."""
        hashed = sha256(b"\x00" + at.leaf.encode()).digest()
        root = fold(hashed, at.index, head.size, at.path, node_hash)
        require(root == head.root, f"leaf {at.index} is not in the log of this tree head")
        leaf = parse_leaf(at.leaf, LEAVES)
        seq = leaf.seq if leaf.type == "entry" else 0
        same = self.leaves.setdefault((head.origin, at.index), (hashed, seq))[0] == hashed
        require(same, f"A FORK: leaf {at.index} is another one in another file")
        return leaf

    def rotate(self, head: Head, leaf: Fields, keys: list[Key]) -> None:
        """A key leaf: a trusted key makes the next one trusted."""
        old, new = parse_key(leaf.old), parse_key(leaf.new)
        is_ours = {leaf.origin, old.name, new.name} == {head.origin}
        require(is_ours, "a key leaf is of another log")
        message = f"byline-key/v1\n{leaf.origin}\n{leaf.new}\n".encode()
        old.require_signed(message, base64(leaf.signature, 64))
        if old in keys and new not in keys:
            keys.append(new)
            self.say(f"key {old.id.hex()} announces key {new.id.hex()} as the next, in the log")

    def _proof(self, source: str) -> Head:
        """One leaf of the log, opened."""
        at, opening, checkpoint = parse_proof(source)
        head, leaves = self.head(checkpoint, [*further(opening), at])
        for sentence in self._opened(head, at, opening, leaves).said:
            self.say(sentence)
        return head

    def _set(self, first: object, file: Iterable[str]) -> Head:
        """Many proofs under one head: a statement and its lines, or lines alone."""
        checkpoint = shaped(first, {"v": version, "checkpoint": text}).checkpoint
        head, shared = self.head(checkpoint, further(first))
        shape = {"index": number, "path": list_of(hash64), "opening": lambda value: value}
        statement, legs, count = None, [], 0
        for count, line in enumerate(file, start=1):
            require(len(line) <= LINE_MAX, f"proof {count} is too long")
            at = shaped(parse_json(line), shape)
            at.leaf = shaped(at.opening, {"leaf": text}).leaf
            own = {each.index: self._included(head, each) for each in further(at.opening)}
            leaf = self._opened(head, at, at.opening, ChainMap(own, shared))
            if leaf.type == "statement":
                require(count == 1, "a statement stands among lines")
                statement = leaf.opening
                self.say(leaf.said[0])
            else:
                is_line = at.opening["object"] == "line"
                require(is_line, "it has something else than a statement and lines")
                legs += leaf.opened
        require(count, "it has no proof in it")
        self.say(
            f"{len(legs):,} lines are in the log: in each one's entry what is credited is what is "
            "debited, and the line is the part of it that it says"
        )
        if statement:
            self._statement(statement, legs)
        return head

    def _opened(
        self, head: Head, at: Fields, opening: object, leaves: Mapping[int, Fields]
    ) -> Fields:
        """A leaf with what is `opened` of it, and what is `said` about it."""
        name = shaped(opening, {"v": version, "object": text}).object
        leaf = self._included(head, at)
        types = {"line": ["entry"], "leaf": ["manifest", "key"]}.get(name, [name])
        require(leaf.type in types, f"a leaf of type '{leaf.type}' is opened as '{name}'")
        leaf.said = [f"leaf {at.index:,} is in the log: a {leaf.type} leaf"]
        if leaf.type == "statement":
            leaf.opening = opened_statement(opening, leaf)
            leaf.said[0] += f", '{leaf.opening.account}' for {leaf.month}"
            key = (head.origin, leaf.opening.account, leaf.month)
            leaf.opening.lines, leaf.opening.commitment = (
                None,
                leaf.commitment,
            )  # no line is here yet
            known = self.statements.setdefault(key, leaf.opening)
            require(known.commitment == leaf.commitment, "a month has two statements")
            leaf.opening = known
        elif leaf.type == "entry":
            check_entry(leaf, at.index)
            leaf.opened = opened_legs(opening, leaf)
            leaf.said = sentences_of(leaf, at.index) + require_manifest_before(leaf, leaves)
            leaf.shown = check_manifest(opening, leaf)
            self._remember(head.origin, leaf)
        return leaf

    def _remember(self, origin: str, entry: Fields) -> None:
        """Keep what other files may be held against."""
        known = self.entries.setdefault((origin, entry.key), entry)
        require(known.seq == entry.seq, f"the event '{entry.key}' was posted twice")
        known.shown = known.shown or entry.shown
        for leg in entry.opened:
            if leg.n:
                chain = self.chains.setdefault((origin, leg.account), {})
                first = chain.setdefault(leg.n, leg)
                same = first.node == leg.node
                require(same, f"A FORK: line {leg.n} of '{leg.account}' is another one elsewhere")
                first.decision = first.decision or leg.decision

    def _statement(self, statement: Fields, legs: Sequence[Fields]) -> None:
        """The lines are all of the statement's, and lead from its opening to its closing."""
        what = f"the statement of '{statement.account}' for {statement.month}: "
        first, last = statement.first_n, statement.last_n
        numbers = [leg.n for leg in legs]
        require(1 <= first <= last + 1, f"{what}its numbers can't be")
        require(len(legs) == last + 1 - first, f"{what}it has {last + 1 - first} lines, and "
                f"{len(legs)} are here")  # fmt: skip
        require(numbers == [*range(first, last + 1)], f"{what}its lines are not {first} to {last}")
        is_own = all(leg.account == statement.account for leg in legs)
        require(is_own, f"{what}a line is another account's")
        begins = legs[0].prev if legs else statement.head
        require(begins == statement.before, f"{what}it begins after another line than it says")
        require_chain(legs)
        ends = legs[-1].node.hash if legs else statement.before
        require(ends == statement.head, f"{what}it ends at another line than it says")
        require((statement.before == NO_LEG) == (first == 1), f"{what}the line before it can't be")
        require(first > 1 or statement.opening == 0, f"{what}it opens with money from nowhere")
        require_in_month(statement, max((leg.entry.time_ms for leg in legs), default=0))
        total = sum(leg.nano for leg in legs)
        require(statement.opening + total == statement.closing, f"{what}it does not add up")
        statement.lines = legs
        self.say(
            f"{what}lines {first:,} to {last:,}, none left out, and {statement.opening:,} + "
            f"{total:,} = {statement.closing:,} nano-USD"
        )

    def _receipt(self, source: str) -> None:
        note = parse_note(source)
        keys = [key for key in self.policy.logs if key.name.endswith(RECEIPTS)]
        signers = note.signers(keys)
        require(signers, "no trusted key for receipts signed it")
        lines = note.text.split("\n")
        require(len(lines) == 3, "it is no receipt")
        receipt = shaped(parse_json(lines[1]), RECEIPT)
        for operation, each in [
            ("capture", receipt.capture),
            *(("settle", s) for s in receipt.settles),
        ]:
            is_own = each.key.startswith(f"{receipt.inference}/{operation}/")
            require(is_own, "the receipt names another inference's entries")
        self.receipts += [(key.name.removesuffix(RECEIPTS), receipt) for key in signers]
        self.say(
            f"the receipt is signed by {signers[0].name}: inference '{receipt.inference}', charge "
            f"{receipt.charge:,} nano-USD, {receipt.state}"
        )


def _beginning(file: TextIO) -> tuple[str, Callable[[], str]]:
    """A file's first line, and what reads the rest of it; both of a bounded length."""

    def bounded(found: str) -> str:
        require(len(found) <= TEXT_MAX, "the file is too large")
        return found

    return bounded(file.readline(TEXT_MAX + 1)), lambda: bounded(file.read(TEXT_MAX + 1))
