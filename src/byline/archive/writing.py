"""Writes one page of a ledger's journal into the archive, inside a transaction of the caller.

Exactly once, whoever runs it how often: the ledger's row in `progress` is locked first, and only
entries after it are added.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import Connection, Table, bindparam, delete, func, select, update
from sqlalchemy.exc import IntegrityError

from byline.archive.bulk import insert_rows
from byline.archive.database import Archive
from byline.archive.rows import Found, Row, Rows, is_transient
from byline.archive.tables import (
    account_days,
    accounts,
    entries,
    inferences,
    legs,
    manifests,
    progress,
    usage_days,
)
from byline.errors import ArchiveMismatch

ACCOUNTS_PER_QUERY = 1_000
ADDED_BY_DAY: Mapping[Table, tuple[str, ...]] = {
    account_days: ("nano", "legs"),
    usage_days: ("inferences", "partial", "prompt_tokens", "completion_tokens", "charge"),
}


@dataclass(frozen=True, slots=True)
class Written:
    """What one transaction added, and how far the archive is with it."""

    seq: int = 0
    entries: int = 0
    legs: int = 0
    inferences: int = 0
    manifests: int = 0
    missing: int = 0  # texts that the ledger had no more


def write_page(
    connection: Connection, ledger: str, page: Sequence[Found], step: Callable[[str], None]
) -> Written:
    """Add the entries of the page that the archive lacks; nothing if it has them all.

    Raises ArchiveMismatch where the page does not continue what is archived.
    """
    seq = _locked_progress(connection, ledger)
    step("locked")
    require_same_history(connection, ledger, seq, page)
    fresh = [found for found in page if found.entry.seq > seq]
    if not fresh:
        return Written(seq)
    _require_no_gap(ledger, seq, fresh)
    before = _balances(connection, ledger, {leg.account for f in fresh for leg in f.entry.legs})
    rows = Rows(ledger, before)
    rows.add(fresh)
    try:
        _insert(connection, rows)
    except IntegrityError as problem:
        raise ArchiveMismatch(
            f"ledger {ledger}: an entry between {seq + 1} and {fresh[-1].entry.seq} is in the "
            f"archive already, under another number: {problem.orig}"
        ) from problem
    step("inserted")
    _update_accounts(connection, ledger, before, rows.balances)
    for table, sums in ((account_days, rows.account_days), (usage_days, rows.usage_days)):
        _add_to_days(connection, table, sums)
    step("summed")
    seq = fresh[-1].entry.seq
    connection.execute(update(progress).where(progress.c.ledger == ledger).values(seq=seq))
    step("progressed")
    return Written(
        seq, len(rows.entries), len(rows.legs), len(rows.inferences), len(rows.manifests),
        rows.missing,
    )  # fmt: skip


def exported_seq(connection: Connection, ledger: str) -> int:
    """How far the ledger is in the archive; 0 if nothing of it is."""
    found: int | None = connection.execute(
        select(progress.c.seq).where(progress.c.ledger == ledger)
    ).scalar()
    return found or 0


def missing_texts(archive: Archive) -> int:
    """How many hashes of entries have no text: the ledger no longer had it."""
    missing = select(func.count()).select_from(manifests).where(manifests.c.text.is_(None))
    with archive.reading() as connection:
        return connection.scalar(missing) or 0


def _locked_progress(connection: Connection, ledger: str) -> int:
    """How far the archive is; nobody else exports this ledger until the transaction ends."""
    insert_rows(connection, progress, [{"ledger": ledger, "seq": 0}], known={"seq": "progress.seq"})
    locking = select(progress.c.seq).where(progress.c.ledger == ledger).with_for_update()
    seq: int = connection.execute(locking).scalar_one()
    return seq


def require_same_history(
    connection: Connection, ledger: str, seq: int, page: Sequence[Found]
) -> None:
    """The newest archived entry must be the journal's, byte for byte, where the page has it."""
    there = next((found.text for found in page if found.entry.seq == seq), None)
    if there is None:
        return
    newest = (entries.c.ledger == ledger) & (entries.c.seq == seq)
    if connection.execute(select(entries.c.text).where(newest)).scalar() != there:
        raise ArchiveMismatch(
            f"ledger {ledger}: entry {seq} is another one in the archive than in the journal. The "
            "ledger was restored from an older copy, or it is a different ledger of the same name"
        )


def _require_no_gap(ledger: str, seq: int, fresh: Sequence[Found]) -> None:
    for expected, found in enumerate(fresh, start=seq + 1):
        if found.entry.seq != expected:
            raise ArchiveMismatch(
                f"ledger {ledger}: the journal has no entry {expected} (its next is "
                f"{found.entry.seq}): it was trimmed before it was exported, or it is damaged"
            )


def _balances(connection: Connection, ledger: str, names: Collection[str]) -> dict[str, int]:
    """The archived balances of these accounts; without those that are new."""
    found: dict[str, int] = {}
    for some in _chunks(names, ACCOUNTS_PER_QUERY):
        asked = (accounts.c.ledger == ledger) & accounts.c.account.in_(some)
        rows = connection.execute(select(accounts.c.account, accounts.c.nano).where(asked))
        found.update({row.account: row.nano for row in rows})
    return found


def _chunks(names: Collection[str], size: int) -> Iterator[list[str]]:
    rest = iter(names)
    while chunk := list(islice(rest, size)):
        yield chunk


def _insert(connection: Connection, rows: Rows) -> None:
    insert_rows(connection, entries, rows.entries)
    insert_rows(connection, legs, rows.legs)
    insert_rows(connection, inferences, rows.inferences)
    # The same hash is the same text, unless it was missing before, or is now.
    text = "coalesce(manifests.text, excluded.text)"
    insert_rows(connection, manifests, rows.manifests, known={"text": text})


def _update_accounts(
    connection: Connection, ledger: str, before: Mapping[str, int], after: Mapping[str, int]
) -> None:
    """Write the balances. What an inference has emptied goes away, or was never written."""
    emptied = [name for name, nano in after.items() if not nano and is_transient(name)]
    kept: list[Row] = [
        {"account": name, "ledger": ledger, "nano": nano}
        for name, nano in after.items()
        if nano or not is_transient(name)
    ]
    insert_rows(connection, accounts, kept, known={"nano": "excluded.nano"})
    if gone := [{"name": name} for name in emptied if name in before]:
        one = (accounts.c.ledger == ledger) & (accounts.c.account == bindparam("name"))
        connection.execute(delete(accounts).where(one), gone)


def _add_to_days(connection: Connection, table: Table, sums: list[Row]) -> None:
    """Add what the entries bring to the sums of their days; the days' ends move on."""
    known = {name: f"{table.name}.{name} + excluded.{name}" for name in ADDED_BY_DAY[table]}
    insert_rows(connection, table, sums, known={**known, "last_seq": "excluded.last_seq"})
