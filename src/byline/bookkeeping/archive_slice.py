"""A slice of the archive, read in one transaction and held against what its entries' texts say.

The rows are drawn up from the texts once more, by what the exporter has drawn them up with: those
of the entries, of their legs with the balances they carry, of inferences, and the sums by day.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import sqlalchemy
from sqlalchemy import Column, Connection, Table, func, select

from byline.archive.rows import Found, Row, Rows, entry_from
from byline.archive.tables import account_days, entries, inferences, legs, manifests, usage_days
from byline.archive.writing import ADDED_BY_DAY, exported_seq
from byline.errors import ArchiveMismatch
from byline.ledger.books import BROKEN
from byline.records import JournalEntry

ENTRIES_A_SLICE = 250  # 35 ms of a core
ENTRIES_A_SLICE_MAX = 2_000
SLICES_A_LAP = 100  # a long archive is read in larger slices, as far as the maximum allows
LEGS_A_SLICE = 10_000  # a few more, where the last entry has many
NAMES_A_QUERY = 500
SAYS_CHARACTERS_MAX = 300
DAY_TABLES = (account_days, usage_days)

Key: TypeAlias = tuple[object, ...]
Stored: TypeAlias = sqlalchemy.Row[Any]


@dataclass(slots=True)
class Lap:
    """One reading of the archive from its first entry on: how far it is, and what it carries."""

    seq: int = 0
    end: int = 0  # where it ends: what the archive had when it began
    balances: dict[str, int] = field(default_factory=dict)  # after `seq`, those that are not zero
    days: dict[Table, dict[Key, Row]] = field(default_factory=lambda: {t: {} for t in DAY_TABLES})
    whole_days: dict[Table, int] = field(default_factory=lambda: dict.fromkeys(DAY_TABLES, 0))
    inferences: int = 0

    def take(self, part: "Slice") -> None:
        """Go on behind this slice."""
        self.seq, self.end = part.seq, part.end
        self.inferences += part.inferences
        for account, nano in part.balances.items():
            if nano:
                self.balances[account] = nano
            else:
                self.balances.pop(account, None)
        for table in DAY_TABLES:
            for key in part.whole_days[table]:
                self.days[table].pop(key, None)
            self.days[table].update(part.days[table])
            self.whole_days[table] += len(part.whole_days[table])


@dataclass(slots=True)
class Slice:
    """Consecutive entries, and what is wrong with their rows."""

    seq: int  # of the last one
    end: int
    texts: dict[int, str] = field(default_factory=dict)
    balances: Mapping[str, int] = field(default_factory=dict)
    days: dict[Table, dict[Key, Row]] = field(default_factory=lambda: {t: {} for t in DAY_TABLES})
    whole_days: dict[Table, set[Key]] = field(
        default_factory=lambda: {table: set() for table in DAY_TABLES}
    )  # the days whose last leg is in this slice
    inferences: int = 0
    wrong: dict[str, str] = field(default_factory=dict)  # which row -> what


def read_slice(connection: Connection, ledger: str, lap: Lap) -> Slice:
    """What follows the lap's position."""
    archived = exported_seq(connection, ledger)
    end = min(lap.end or archived, archived)
    most = entries_a_slice(end - lap.seq)
    found = connection.execute(
        select(entries)
        .where(entries.c.ledger == ledger, entries.c.seq > lap.seq, entries.c.seq <= end)
        .order_by(entries.c.seq)
        .limit(most)
    ).all()
    part = Slice(end, end)
    read = list(_entries(found, part))
    if len(part.texts) < len(found) or len(found) == most:
        part.seq = max(part.texts)
    _require_no_gap(lap.seq, part)
    rows = _rows(connection, ledger, lap, read, part)
    _compare_entries(rows, found, part)
    _compare_legs(connection, ledger, lap, rows, part)
    _compare_inferences(connection, ledger, rows, part)
    _require_none_outside(connection, ledger, part, archived)
    if part.seq == end:
        expected = lap.inferences + part.inferences
        _compare_count(connection, ledger, inferences.c.seq, expected, part, archived)
    for table, sums in ((account_days, rows.account_days), (usage_days, rows.usage_days)):
        _compare_days(connection, ledger, lap, table, sums, part, archived)
        if part.seq == end:
            _compare_rest(connection, ledger, lap, table, part, archived)
    return part


def entries_a_slice(lag: int) -> int:
    """How many entries are read at once where so many are still to be read in the lap."""
    return max(ENTRIES_A_SLICE, min(ENTRIES_A_SLICE_MAX, lag // SLICES_A_LAP))


def _entries(found: Sequence[Stored], part: Slice) -> Iterator[tuple[JournalEntry, Stored]]:
    """As many entries as one slice should have; those that are broken are noted."""
    count = 0
    for row in found:
        if count > LEGS_A_SLICE:
            return
        part.texts[row.seq] = row.text
        try:
            entry = entry_from(row.seq, row.text)
        except (ArchiveMismatch, *BROKEN) as problem:
            part.wrong[f"entry {row.seq}"] = str(problem)
        else:
            count += len(entry.legs)
            yield entry, row


def _require_no_gap(after_seq: int, part: Slice) -> None:
    expected = after_seq + 1
    for seq in [*part.texts, part.seq + 1]:
        if seq > expected:
            part.wrong[f"entry {expected}"] = f"is missing, and all up to {seq - 1}"
        expected = seq + 1


def _rows(
    connection: Connection,
    ledger: str,
    lap: Lap,
    read: Sequence[tuple[JournalEntry, Stored]],
    part: Slice,
) -> Rows:
    """What the exporter would write of these entries."""
    named = {entry.manifest_sha256 for entry, _ in read if entry.manifest_sha256 is not None}
    texts = _texts(connection, named)
    touched = {leg.account for entry, _ in read for leg in entry.legs}
    rows = Rows(ledger, {name: lap.balances.get(name, 0) for name in touched})
    for entry, row in read:
        sha256 = entry.manifest_sha256
        if sha256 is not None and sha256 not in texts:
            part.wrong[f"entry {entry.seq}"] = "has a manifest that is in no row"
        try:
            rows.add([Found(entry, row.text, texts.get(sha256) if sha256 else None)])
        except (ArchiveMismatch, *BROKEN) as problem:
            part.wrong[f"entry {entry.seq}"] = str(problem)
    part.balances = rows.balances
    return rows


def _texts(connection: Connection, named: Iterable[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for some in _chunks(list(named)):
        asked = select(manifests.c.sha256, manifests.c.text).where(manifests.c.sha256.in_(some))
        found.update({row.sha256: row.text for row in connection.execute(asked)})
    return found


def _compare_entries(rows: Rows, found: Sequence[Stored], part: Slice) -> None:
    stored = {row.seq: row for row in found}
    for expected in rows.entries:
        _compare(f"entry {expected['seq']}", expected, stored[expected["seq"]], part)


def _compare_legs(connection: Connection, ledger: str, lap: Lap, rows: Rows, part: Slice) -> None:
    asked = select(legs).where(
        legs.c.ledger == ledger, legs.c.seq > lap.seq, legs.c.seq <= part.seq
    )
    read = {row["seq"] for row in rows.entries}
    stored = {(row.seq, row.position): row for row in connection.execute(asked)}
    for expected in rows.legs:
        place = expected["seq"], expected["position"]
        _compare("leg {}/{}".format(*place), expected, stored.pop(place, None), part)
    for seq, position in stored:
        if seq in read:
            part.wrong[f"leg {seq}/{position}"] = "is not in its entry"


def _compare_inferences(connection: Connection, ledger: str, rows: Rows, part: Slice) -> None:
    expected = {row["inference"]: row for row in rows.inferences}
    stored: dict[str, Stored] = {}
    for some in _chunks(list(expected)):
        asked = select(inferences).where(
            inferences.c.ledger == ledger, inferences.c.inference.in_(some)
        )
        stored.update({row.inference: row for row in connection.execute(asked)})
    for name, row in expected.items():
        _compare(f"inference {name}", row, stored.get(name), part)
    part.inferences = len(expected)


def _require_none_outside(connection: Connection, ledger: str, part: Slice, archived: int) -> None:
    """No row may lie where the archive has no entries: before the first, behind the newest."""
    for table in (entries, legs):
        seq = table.c.seq
        asked = select(seq).where(table.c.ledger == ledger, (seq < 1) | (seq > archived)).limit(1)
        if (found := connection.scalar(asked)) is not None:
            part.wrong[table.name] = f"has a row of entry {found}, the archive has 1 to {archived}"


def _compare_count(
    connection: Connection,
    ledger: str,
    seq: Column[int],
    expected: int,
    part: Slice,
    archived: int,
) -> None:
    """At the lap's end: no row may be invented. Those of entries behind the lap are the next one's.

    Counted once a lap, not in each slice: no index of these tables begins with the number.
    """
    table = seq.table
    of_lap = (seq <= part.end) | (seq > archived)
    count = select(func.count()).select_from(table).where(table.c.ledger == ledger, of_lap)
    rows = connection.scalar(count) or 0
    if rows != expected:
        part.wrong[table.name] = f"has {rows} rows, those of the entries are {expected}"


def _compare_days(
    connection: Connection,
    ledger: str,
    lap: Lap,
    table: Table,
    sums: Sequence[Row],
    part: Slice,
    archived: int,
) -> None:
    """The sums of each day whose last leg is in the slice; the others are carried on."""
    stored = _stored_days(connection, ledger, table, sums)
    for row in sums:
        key = tuple(row[column.name] for column in table.primary_key)
        expected = _summed(table, lap.days[table].get(key), row)
        there = stored.get(key)
        if there is not None and part.seq < there.last_seq <= archived:
            part.days[table][key] = {**expected, "last_seq": there.last_seq}
            continue
        _compare(_day_name(table, key), expected, there, part)
        if there is not None:
            part.whole_days[table].add(key)


def _stored_days(
    connection: Connection, ledger: str, table: Table, sums: Sequence[Row]
) -> dict[Key, Stored]:
    """The rows of these names and days, and some more."""
    name = next(iter(table.primary_key)).name
    days = {row["day"] for row in sums}
    found: dict[Key, Stored] = {}
    for some in _chunks(list({row[name] for row in sums})):
        asked = select(table).where(
            table.c.ledger == ledger, table.c[name].in_(some), table.c.day.in_(days)
        )
        for row in connection.execute(asked):
            found[tuple(getattr(row, column.name) for column in table.primary_key)] = row
    return found


def _compare_rest(
    connection: Connection, ledger: str, lap: Lap, table: Table, part: Slice, archived: int
) -> None:
    """At the lap's end: no day may wait for legs that don't come, and none may be invented."""
    carried = {**lap.days[table], **part.days[table]}
    open_days = {key: row for key, row in carried.items() if key not in part.whole_days[table]}
    for key, row in open_days.items():
        if row["last_seq"] <= part.end:
            part.wrong[_day_name(table, key)] = f"says that entry {row['last_seq']} is its last"
    expected = lap.whole_days[table] + len(part.whole_days[table]) + len(open_days)
    _compare_count(connection, ledger, table.c.first_seq, expected, part, archived)


def _summed(table: Table, before: Row | None, row: Row) -> Row:
    if before is None:
        return row
    sums = {name: before[name] + row[name] for name in ADDED_BY_DAY[table]}
    return {**row, **sums, "first_seq": before["first_seq"]}


def _compare(name: str, expected: Row, stored: Stored | None, part: Slice) -> None:
    if stored is None:
        part.wrong[name] = "is missing"
        return
    there = stored._asdict()
    if wrong := [column for column, value in expected.items() if there[column] != value]:
        column = wrong[0]
        more = f", and {len(wrong) - 1} more columns" if len(wrong) > 1 else ""
        says = f"has {column} {there[column]!r}, its entries make it {expected[column]!r}{more}"
        part.wrong[name] = says[:SAYS_CHARACTERS_MAX]


def _day_name(table: Table, key: Key) -> str:
    return f"{table.name} {' '.join(str(part) for part in key)}"


def _chunks(names: list[str]) -> Iterator[list[str]]:
    return (names[start : start + NAMES_A_QUERY] for start in range(0, len(names), NAMES_A_QUERY))
