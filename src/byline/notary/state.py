"""What the notary has decided: which leaf stands where. One SQLite file a log, never published.

Gateways read it to make proofs: it has each entry's own secret, and nothing that opens later ones.

A leaf's place is decided by the transaction that puts it here, together with the chains that it
lengthens; so whatever dies afterwards, there is one history. A leaf's data is kept here until its
entry bundle is full and published. After that the bundle has it; it can be made again, byte for
byte, from its place here and the archive's text (`byline.notary.remaking`).
"""

import fcntl
import sqlite3
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from byline.errors import LogMismatch, NotFound, NotProven, StartFailed
from byline.transparency.heads import TreeHead
from byline.transparency.leaves import ChainHead, EntrySalts, Place
from byline.transparency.tree import EMPTY_ROOT, HASH_BYTES

N_BYTES, PPB_BYTES = 8, 4
PLACE_BYTES = N_BYTES + HASH_BYTES + PPB_BYTES
NO_PPB = 2**32 - 1
ACCOUNTS_PER_QUERY = 500
WAIT_SECONDS = 10.0
STATE = "state.sqlite"
PRIVATE = 0o700  # of a folder: what the notary keeps to itself
FOR_GROUP = 0o750  # what gateways read, who are in its group: the state names accounts

TABLES = """
CREATE TABLE IF NOT EXISTS log (
    one INTEGER PRIMARY KEY CHECK (one = 1), origin TEXT NOT NULL, size INTEGER NOT NULL,
    seq INTEGER NOT NULL, entry_sha256 TEXT NOT NULL, key TEXT NOT NULL,
    published INTEGER NOT NULL, root BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS entries (
    seq INTEGER PRIMARY KEY, leaf INTEGER NOT NULL, places BLOB NOT NULL, secret BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS unpublished (
    leaf INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS chains (
    account TEXT PRIMARY KEY, n INTEGER NOT NULL, hash BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS statements (
    account TEXT NOT NULL, month TEXT NOT NULL, leaf INTEGER NOT NULL, opening TEXT NOT NULL,
    PRIMARY KEY (account, month)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (
    leaf INTEGER PRIMARY KEY, data BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class NewLeaf:
    """One leaf to add; an entry's brings its number, its legs' places and its own secret."""

    data: bytes
    seq: int | None = None
    places: tuple[Place, ...] = ()
    secret: bytes = field(default=b"", repr=False)


class EntryPlace(NamedTuple):
    """Where an entry's leaf stands, its legs' places in their chains, and what opens it."""

    leaf: int
    places: tuple[Place, ...]
    salts: EntrySalts


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the log is."""

    origin: str
    size: int
    seq: int  # the newest entry with a leaf
    entry_sha256: str  # of that entry's text; empty where there is none
    key: str  # vkey of the newest announced key; empty before the first


@dataclass(slots=True)
class Addition:
    """What one transaction adds, beginning at leaf `size`."""

    size: int
    leaves: list[NewLeaf] = field(default_factory=list)
    chains: dict[str, ChainHead] = field(default_factory=dict)
    seq: int | None = None
    entry_sha256: str | None = None

    @property
    def next_leaf(self) -> int:
        """Where the next leaf will stand."""
        return self.size + len(self.leaves)


class State:
    """The notary's own memory of one log."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    def open(cls, folder: Path, origin: str) -> "State":
        """The log's state, begun if there is none. LogMismatch if it is of another origin."""
        folder.mkdir(parents=True, exist_ok=True, mode=FOR_GROUP)
        state = cls(_connect((folder / STATE).as_posix()))
        connection = state._connection
        # Not WAL: gateways read this from other machines too, over a shared volume, read-only.
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(TABLES)
        connection.execute(
            "INSERT OR IGNORE INTO log VALUES (1, ?, 0, 0, '', '', 0, ?)", (origin, EMPTY_ROOT)
        )
        found = state.standing().origin
        if found != origin:
            raise LogMismatch(
                f"the log in {folder} is '{found}', not '{origin}': name it as it was"
            )
        return state

    @classmethod
    def read(cls, folder: Path) -> "State":
        """The same for readers, who never write. NotFound where there is none."""
        try:
            return cls(_connect(f"file:{folder / STATE}?mode=ro", uri=True))
        except sqlite3.OperationalError as problem:
            raise NotFound(
                f"no log in {folder}: the notary has not begun one, or this user may not read it"
            ) from problem

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def standing(self) -> Standing:
        """How far the log is."""
        asked = "SELECT origin, size, seq, entry_sha256, key FROM log"
        return Standing(*self._connection.execute(asked).fetchone())

    def add(
        self,
        addition: Addition,
        *,
        statements: Iterable[tuple[str, str, int, str]] = (),
        key: str | None = None,
    ) -> None:
        """Give the leaves their places, all or none. LogMismatch if another process was first.

        `statements` are account, month, leaf and opening; `key` is what a key leaf announces.
        """
        leaves = list(enumerate(addition.leaves, start=addition.size))
        with self._writing() as connection:
            if self.standing().size != addition.size:
                raise LogMismatch("another notary writes this log: stop one of them")
            connection.executemany(
                "INSERT INTO unpublished VALUES (?, ?)", [(leaf, new.data) for leaf, new in leaves]
            )
            connection.executemany(
                "INSERT INTO entries VALUES (?, ?, ?, ?)",
                [
                    (new.seq, leaf, packed(new.places), new.secret)
                    for leaf, new in leaves
                    if new.seq
                ],
            )
            connection.executemany(
                "INSERT INTO chains VALUES (?, ?, ?) ON CONFLICT (account) "
                "DO UPDATE SET n = excluded.n, hash = excluded.hash",
                [(account, *head) for account, head in addition.chains.items()],
            )
            connection.executemany("INSERT INTO statements VALUES (?, ?, ?, ?)", statements)
            if key is not None:
                connection.execute(
                    "INSERT INTO keys VALUES (?, ?)", (addition.size, addition.leaves[0].data)
                )
            connection.execute(
                "UPDATE log SET size = ?, seq = coalesce(?, seq), "
                "entry_sha256 = coalesce(?, entry_sha256), key = coalesce(?, key)",
                (addition.next_leaf, addition.seq, addition.entry_sha256, key),
            )

    def trust(self, vkey: str) -> None:
        """The log's first key: it needs no announcement."""
        with self._writing() as connection:
            connection.execute("UPDATE log SET key = ? WHERE key = ''", (vkey,))

    def chains(self, accounts: Sequence[str]) -> dict[str, ChainHead]:
        """The newest leg of each of these accounts that has one."""
        found: dict[str, ChainHead] = {}
        for start in range(0, len(accounts), ACCOUNTS_PER_QUERY):
            some = accounts[start : start + ACCOUNTS_PER_QUERY]
            marks = ",".join("?" * len(some))
            query = f"SELECT account, n, hash FROM chains WHERE account IN ({marks})"  # noqa: S608 - only marks
            rows = self._connection.execute(query, some)
            found.update({account: ChainHead(n, hash_) for account, n, hash_ in rows})
        return found

    def unpublished(self, start: int, end: int) -> list[bytes] | None:
        """The data of leaves [start, end); None where some of it is only in published bundles."""
        query = "SELECT data FROM unpublished WHERE leaf >= ? AND leaf < ? ORDER BY leaf"
        found = [data for (data,) in self._connection.execute(query, (start, end))]
        return found if len(found) == end - start else None

    def forget(self, leaf: int, head: TreeHead) -> None:
        """Drop the data of leaves before this one: full bundles under a published head have it."""
        with self._writing() as connection:
            connection.execute("DELETE FROM unpublished WHERE leaf < ?", (leaf,))
            connection.execute("UPDATE log SET published = ?, root = ?", (head.size, head.root))

    def published(self) -> TreeHead:
        """The head under which data was forgotten last: what is made again must have its root."""
        asked = "SELECT origin, published, root FROM log"
        return TreeHead(*self._connection.execute(asked).fetchone())

    def entry(self, seq: int) -> EntryPlace:
        """Where an entry's leaf stands, and what makes it again. NotProven while it has none."""
        row = self._connection.execute(
            "SELECT leaf, places, secret FROM entries WHERE seq = ?", (seq,)
        ).fetchone()
        if row is None:
            raise NotProven(
                f"journal entry {seq} is not in the log yet: ask again in a few seconds"
            )
        return EntryPlace(row[0], unpacked(row[1]), EntrySalts(row[2]))

    def seqs_between(self, start: int, end: int) -> range:
        """The entries whose leaves are among [start, end)."""
        every = range(1, self.standing().seq + 1)  # their leaves grow with their numbers
        first, last = (
            bisect_left(every, leaf, key=lambda seq: self.entry(seq).leaf) for leaf in (start, end)
        )
        return every[first:last]

    def statement(self, account: str, month: str) -> tuple[int, str]:
        """Leaf and opening of a statement. NotProven while it has none."""
        query = "SELECT leaf, opening FROM statements WHERE account = ? AND month = ?"
        row = self._connection.execute(query, (account, month)).fetchone()
        if row is None:
            raise NotProven(f"the statement of {account} for {month} is not in the log yet")
        return row[0], row[1]

    def logged_statements(self) -> set[tuple[str, str]]:
        """Account and month of all that have a leaf."""
        return set(self._connection.execute("SELECT account, month FROM statements"))

    def statements_between(self, start: int, end: int) -> list[tuple[int, str, str]]:
        """Leaf, month and opening of the statements whose leaves are among [start, end)."""
        query = (
            "SELECT leaf, month, opening FROM statements WHERE leaf >= ? AND leaf < ? ORDER BY leaf"
        )
        return self._connection.execute(query, (start, end)).fetchall()

    def key_leaves(self) -> list[tuple[int, bytes]]:
        """Where keys are announced, and by which data."""
        return self._connection.execute("SELECT leaf, data FROM keys ORDER BY leaf").fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def packed(places: Sequence[Place]) -> bytes:
    """Legs' places as they are kept: number, previous hash, share."""
    return b"".join(
        place.n.to_bytes(N_BYTES)
        + place.prev
        + (NO_PPB if place.ppb is None else place.ppb).to_bytes(PPB_BYTES)
        for place in places
    )


def unpacked(raw: bytes) -> tuple[Place, ...]:
    """The places that were packed."""
    places = []
    for at in range(0, len(raw), PLACE_BYTES):
        n, prev = raw[at : at + N_BYTES], raw[at + N_BYTES : at + PLACE_BYTES - PPB_BYTES]
        ppb = int.from_bytes(raw[at + PLACE_BYTES - PPB_BYTES : at + PLACE_BYTES])
        places.append(Place(int.from_bytes(n), prev, None if ppb == NO_PPB else ppb))
    return tuple(places)


@contextmanager
def sole_notary(folder: Path) -> Iterator[None]:
    """Hold the log's lock: a second notary of the same log does not start."""
    folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise StartFailed(f"another notary keeps the log in {folder}: stop it") from problem
        yield


def _connect(name: str, *, uri: bool = False) -> sqlite3.Connection:
    """One connection; the notary's thread changes, but only one at a time uses it."""
    connection = sqlite3.connect(
        name, uri=uri, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA query_only = ON" if uri else "PRAGMA foreign_keys = ON")
    return connection
