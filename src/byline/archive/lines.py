"""An account's lines: each leg of it with the entry it stands in and why that was posted."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select

from byline.archive.cursor import Cursor, newest_first
from byline.archive.periods import ALL_TIME, Period, first_seqs, newest_cursor, times_in
from byline.archive.rows import CAPTURES
from byline.archive.tables import account_days, adapters, entries, legs, manifests

CONTRIBUTOR = "contrib:"
WHY = ("reason", "decision")  # what an operator's manifest explains itself with


@dataclass(frozen=True, slots=True)
class AccountLine:
    """One leg of an account."""

    ledger: str
    seq: int
    key: str
    kind: str
    time_ms: int
    inference: str | None
    adapter_version: str | None
    dataset: str | None
    nano: int
    share_ppb: int | None  # of the choice's pool, where this is a contributor's part of one
    pool_nano: int | None
    reason: str | None  # why an operator posted it


def account_lines(
    connection: Connection,
    account: str,
    *,
    limit: int,
    cursor: Cursor | None = None,
    period: Period = ALL_TIME,
) -> tuple[list[AccountLine], Cursor | None]:
    """A page of the account's lines, newest first, and the cursor of the next page."""
    first = first_seqs(connection, account_days, account_days.c.account == account, period)

    def fetch(ledger: str, before: int, most: int) -> Sequence[AccountLine]:
        where = (
            legs.c.account == account, legs.c.ledger == ledger, legs.c.seq < before,
            legs.c.seq >= first.get(ledger, before), *times_in(period, entries.c.time_ms),
        )  # fmt: skip
        return _newest_lines(connection, account, where, most)

    return newest_first(fetch, cursor or newest_cursor(connection), limit)


def _newest_lines(
    connection: Connection, account: str, where: Sequence[ColumnElement[bool]], most: int
) -> list[AccountLine]:
    explained = (manifests.c.sha256 == entries.c.manifest_sha256) & entries.c.kind.not_in(CAPTURES)
    found = connection.execute(
        select(legs, entries, adapters.c.dataset, manifests.c.text.label("manifest"))
        .select_from(
            legs.join(entries)
            .outerjoin(adapters, adapters.c.adapter_version == entries.c.adapter_version)
            .outerjoin(manifests, explained)
        )
        .where(*where)
        .order_by(legs.c.seq.desc())
        .limit(most)
    )
    return [_line(row, account) for row in found]


def _line(row: Row[Any], account: str) -> AccountLine:
    explained: Mapping[str, Any] = json.loads(row.manifest) if row.manifest else {}
    share = _share(explained, account)
    return AccountLine(
        ledger=row.ledger,
        seq=row.seq,
        key=row.key,
        kind=row.kind,
        time_ms=row.time_ms,
        inference=row.inference,
        adapter_version=row.adapter_version,
        dataset=row.dataset,
        nano=row.nano,
        share_ppb=None if share is None else share["share_ppb"],
        pool_nano=None if share is None else explained["pool_nano"],
        reason=next((explained[why] for why in WHY if explained.get(why)), None),
    )


def _share(explained: Mapping[str, Any], account: str) -> Mapping[str, Any] | None:
    """The account's share in an attribution, if this is one and it has one."""
    shares: Sequence[Mapping[str, Any]] = explained.get("shares", ())
    names = (share for share in shares if f"{CONTRIBUTOR}{share['contributor']}" == account)
    return next(names, None)
