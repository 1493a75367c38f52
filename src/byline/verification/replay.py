"""Computes every account's balance anew from an export: the published log, and its openings.

Nothing is taken from a sum that somebody else made: each tree, chain, balance and statement is made
again from the legs, and every settlement is held against the manifest that decided it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace as Fields
from typing import Any, NamedTuple

from .entries import (
    LEAVES,
    check_manifest,
    opened_legs,
    opened_statement,
    require_in_month,
    shares_in,
)
from .files import Files
from .policies import Policy
from .proof import (
    NO_LEG,
    PPB,
    UNCHAINED,
    Head,
    check_entry,
    node_hash,
    number,
    parse_head,
    parse_json,
    parse_leaf,
    require,
    shaped,
)
from .trees import EMPTY_ROOT, root_over

WIDTH = 256
FILE_BYTES_MAX = 1 << 25  # of a bundle: 256 leaves of 64 KiB, and their lengths
OPENINGS = "openings.jsonl"
LINE_MAX = 1 << 26  # characters: an entry of 2,000 legs, a manifest and a path each


UNDECIDED = ("deposit", "hold", "void", "expire")  # all others name what decided them
OVERDRAWN = ("app:", "funding", "payout", "refund")  # an application's by its credit limit
OWING = ("contrib:", "unattributed:")  # by adjustments: what was paid wrongly


class Line(NamedTuple):
    """A leg in its account's chain, and what the account holds after it."""

    hash: bytes
    balance: int
    seq: int
    time_ms: int


BEFORE_ALL = Line(NO_LEG, 0, 0, 0)


class Replay:
    """The accounts as the log makes them, entry by entry."""

    def __init__(self, folder: Path, policy: Policy) -> None:
        self.folder = folder
        self.files = Files(policy)
        self.seq = 0
        self.keys: set[str] = set()
        self.manifests: dict[int, Fields] = {}  # leaves that no entry has paid by yet
        self.balances: dict[str, int] = {}
        self.payers: dict[str, str] = {}  # of each inference: the application's account
        self.chains: dict[str, list[Line]] = {}
        self.statements: dict[str, list[Fields]] = {}  # of each account, in the log's order
        self.earned: dict[str, list[tuple[int, int]]] = {}  # of each line but payouts: seq, nano
        # The last entry paid for, and what was left; None: that was not shown.
        self.paid: dict[str, tuple[int, int | None]] = {}
        self.payouts: list[Fields] = []  # whose decision is shown
        self.unshown = 0  # decisions whose text nobody has any more

    def run(self, older: Head | None) -> None:
        """Replay the whole export; raises Refused at the first thing that is wrong."""
        head = parse_head(self._bytes(self.folder / "checkpoint", "checkpoint").decode())
        keys = self.files.policy.keys_of(head.origin)
        hashes: list[bytes] = []
        openings = self._openings()
        for index, data in enumerate(self._leaves(head.size)):
            hashes.append(sha256(b"\x00" + data).digest())
            leaf = parse_leaf(data.decode(), LEAVES)
            if leaf.type == "key":
                self.files.rotate(head, leaf, keys)
            elif leaf.type == "manifest":
                self.manifests[index] = leaf
            else:
                opening: dict[str, object] = next(openings, {})
                at = shaped(opening, {"index": number}).index
                require(at == index, f"the openings have leaf {at} where {index} should be")
                (self._entry if leaf.type == "entry" else self._statement)(leaf, index, opening)
        require(next(openings, None) is None, "there are more openings than leaves")
        root = root_over(hashes, node_hash) if hashes else EMPTY_ROOT
        require(root == head.root, "the leaves are not those of the tree head")
        require(not self.manifests, f"nobody was paid by the manifests {[*self.manifests]}")
        for leg in self.payouts:
            self._cited(leg)
        self.files.trust(head, keys)
        self._tiles(hashes)
        if older and older.size:
            require(older.origin == head.origin, f"the older tree head is of {older.origin}")
            is_shorter = older.size <= head.size
            require(is_shorter, f"the older log has {older.size} leaves, and this {head.size}")
            is_beginning = root_over(hashes[: older.size], node_hash) == older.root
            require(is_beginning, "A FORK: the older log is not the beginning")
            self.files.say(f"{head.origin} has one history since {older.size:,} leaves")
        total = sum(self.balances.values())
        require(total == 0, f"all accounts together have {total} nano-USD, not 0")
        self.files.say(
            f"{self.seq:,} entries make the balances of {len(self.balances):,} accounts, 0 in all; "
            f"{sum(map(len, self.statements.values())):,} statements agree"
        )
        if self.unshown:
            self.files.say(f"(not shown: what was decided in {self.unshown:,} entries)")

    def _openings(self) -> Iterator[Any]:
        path = self.folder / OPENINGS
        require(path.is_file(), f"the export lacks {OPENINGS}")
        with path.open(encoding="utf-8", newline="\n") as file:
            while line := file.readline(LINE_MAX + 1):
                require(len(line) <= LINE_MAX, f"a line of {OPENINGS} is too long")
                yield parse_json(line)

    def _bytes(self, path: Path, name: str) -> bytes:
        require(path.is_file(), f"the export lacks {name}")
        require(path.stat().st_size <= FILE_BYTES_MAX, f"{name} is too large")
        return path.read_bytes()

    def _leaves(self, size: int) -> Iterator[bytes]:
        """The leaves' data, out of the entry bundles."""
        for index in range(-(-size // WIDTH)):
            width = min(size - index * WIDTH, WIDTH)
            bundle = self._tile("entries", index, width)
            for _ in range(width):
                end = 2 + int.from_bytes(bundle[:2])
                require(len(bundle) >= max(end, 2), f"entry bundle {index} is too short")
                yield bundle[2:end]
                bundle = bundle[end:]

    def _tile(self, level: str, index: int, width: int) -> bytes:
        """A tile's bytes; a full one stands for a partial one."""
        name = f"{index % 1000:03}"
        rest = index // 1000
        while rest:
            name, rest = f"x{rest % 1000:03}/{name}", rest // 1000
        whole = self.folder / "tile" / level / name
        part = whole.with_name(f"{whole.name}.p") / str(width)
        path = part if width < WIDTH and part.is_file() else whole
        return self._bytes(path, f"tile {level}/{name}")

    def _tiles(self, hashes: list[bytes]) -> None:
        """The published tiles are those of the leaves."""
        level, checked = 0, 0
        while hashes:
            groups = [hashes[i : i + WIDTH] for i in range(0, len(hashes), WIDTH)]
            for index, group in enumerate(groups):
                tile = self._tile(str(level), index, len(group))[: 32 * len(group)]
                require(tile == b"".join(group), f"tile {level}/{index} is wrong")
                checked += 1
            full = [group for group in groups if len(group) == WIDTH]
            hashes, level = [root_over(group, node_hash) for group in full], level + 1
        self.files.say(f"{checked:,} tiles are those of the leaves")

    def _entry(self, entry: Fields, index: int, opening: dict[str, object]) -> None:
        """Post one entry."""
        what = f"entry {entry.seq}: "
        check_entry(entry, index)
        require(entry.seq == self.seq + 1, f"{what}it does not follow entry {self.seq}")
        require(entry.key not in self.keys, f"{what}its event was posted before")
        entry.said = []
        entry.opened = opened_legs({**opening, "object": "entry"}, entry)
        require(len(entry.opened) == entry.legs.count, f"{what}a leg is not open")
        self._settled(entry, opening, what)
        self._payer(entry, what)
        for leg in entry.opened:
            self._post(leg, what)
        self.seq = entry.seq
        self.keys.add(entry.key)

    def _settled(self, entry: Fields, opening: dict[str, object], what: str) -> None:
        """What was decided before is what is paid."""
        if entry.manifest is None:
            require(entry.kind in UNDECIDED, f"{what}it names no manifest")
            return
        shown = shaped(opening, {"manifest": lambda value: value}).manifest
        check_manifest(opening, entry)
        has_text = "text" in shown
        if entry.kind in ("settle", "payout") and not has_text:
            self.unshown += 1
        if entry.kind != "settle":
            return
        leaf = self.manifests.pop(entry.manifest_index, None)
        is_its = leaf and (leaf.key, leaf.manifest) == (entry.key, entry.manifest)
        require(is_its, f"{what}leaf {entry.manifest_index} is not its manifest")
        paid = {leg.account: leg for leg in entry.opened if leg.nano > 0}
        for account, ppb in shares_in(shown["text"], entry).items() if has_text else ():
            is_paid = account in paid or entry.legs.debits * ppb < PPB
            require(is_paid, f"{what}'{account}' has a share, and was paid nothing")

    def _payer(self, entry: Fields, what: str) -> None:
        """What an application held is charged to it, and goes back to it."""
        own = entry.inference if entry.kind == "refund" else entry.key.partition("/")[0]
        for leg in entry.opened if entry.kind not in ("deposit", "adjust", "release") else ():
            if leg.account.startswith("app:"):
                if entry.kind == "hold":
                    self.payers.setdefault(own, leg.account)
                is_payer = self.payers.get(own) == leg.account
                require(is_payer, f"{what}'{leg.account}' did not hold for its inference")

    def _post(self, leg: Fields, what: str) -> None:
        """Add a leg to its account."""
        account = leg.account
        balance = self.balances.get(account, 0) + leg.nano
        self.balances[account] = balance
        if account.startswith(UNCHAINED):
            # Whatever takes from it empties it.
            is_whole = balance == 0 if leg.nano < 0 else balance > 0
            require(is_whole, f"{what}'{account}' gives more or less than it has")
            if balance == 0:
                del self.balances[account]
            return
        may_owe = account.startswith(OWING) if leg.entry.kind == "adjust" else False
        is_covered = leg.nano >= 0 or balance >= 0 or may_owe or account.startswith(OVERDRAWN)
        require(is_covered, f"{what}'{account}' gives what it does not have")
        chain = self.chains.setdefault(account, [])
        follows = (leg.n, leg.prev) == (len(chain) + 1, chain[-1].hash if chain else NO_LEG)
        require(follows, f"{what}it does not follow line {len(chain)} of '{account}'")
        chain.append(Line(leg.node.hash, balance, leg.seq, leg.entry.time_ms))
        if leg.entry.kind != "payout":
            self.earned.setdefault(account, []).append((leg.seq, leg.nano))
        elif account != "payout":
            self._paid(leg, what)

    def _paid(self, payout: Fields, what: str) -> None:
        """A payout pays each line once, and begins where the one before it ended."""
        decided, account = payout.decision, payout.account
        last_seq, left = self.paid.get(account, (0, 0))
        self.paid[account] = last_seq, None
        if decided is None:
            return
        begins = decided.first_seq - 1, decided.opening_nano
        follows = begins == (last_seq, left) if left is not None else begins[0] >= last_seq
        require(follows, f"{what}the payout does not begin where the one before it ended")
        lines = self.earned.get(account, [])
        start = bisect_left(lines, (decided.first_seq,))
        cited = sum(nano for seq, nano in lines[start:] if seq <= decided.last_seq)
        require(cited == decided.lines_nano, f"{what}the payout cites lines of another sum")
        left = decided.opening_nano + decided.lines_nano - decided.nano
        self.paid[account] = (decided.last_seq, left)
        self.payouts.append(payout)

    def _cited(self, payout: Fields) -> None:
        """The statement that a payout names is in the log, and ends with the lines it pays."""
        account, decided = payout.account, payout.decision
        what = f"entry {payout.seq}: the statement that the payout names"
        month = decided.statement.rpartition("/")[2]
        found = [each for each in self.statements.get(account, []) if each.month == month]
        require(found, f"{what} is not in the log; it comes up to some minutes after the payout")
        until = bisect_right(self.chains[account], decided.last_seq, key=lambda line: line.seq)
        require(found[0].last_n == until, f"{what} does not end with the lines that it pays")

    def _statement(self, leaf: Fields, index: int, opening: dict[str, object]) -> None:
        """A statement says what the account had at its beginning and at its end."""
        found = opened_statement(opening, leaf)
        chain = [BEFORE_ALL, *self.chains.get(found.account, [])]
        what = f"leaf {index}: the statement of '{found.account}' for {found.month}"
        is_there = 1 <= found.first_n <= found.last_n + 1 <= len(chain)
        require(is_there, f"{what} has lines that are not there")
        ends = (found.before, found.opening), (found.head, found.closing)
        lines = chain[found.first_n - 1], chain[found.last_n]
        require(ends == tuple(line[:2] for line in lines), f"{what} is wrong")
        earlier = self.statements.setdefault(found.account, [])
        if earlier:
            before = earlier[-1]
            follows = found.month > before.month and found.first_n == before.last_n + 1
            require(follows, f"{what} does not follow the one for {before.month}")
        else:
            require(found.first_n == 1, f"{what} is the first, and begins with another line")
        mine = chain[found.first_n : found.last_n + 1]
        require_in_month(found, max((line.time_ms for line in mine), default=0))
        earlier.append(found)


def replay(
    folder: Path, policy: Policy, against: Path | None = None
) -> tuple[Files, dict[str, int]]:
    """Replay an export; answers what was found, and every account's balance in nano-USD."""
    run = Replay(folder, policy)
    files = run.files
    older = None if against is None else files.attempt(str(against), files.older, against)
    files.attempt(str(folder), run.run, older)
    return run.files, {} if run.files.failed else run.balances
