"""The payouts that were posted, as the archive has them: who got what, and for which lines."""

import json
from dataclasses import dataclass

from sqlalchemy import Connection, select

from byline.archive.tables import account_days, entries, legs, manifests
from byline.errors import ArchiveUnavailable
from byline.records import Payout

ALL = "payout"  # the clearing account that every payout goes to


@dataclass(frozen=True, slots=True)
class Paid:
    """A posted payout: opening + lines = paid + remainder."""

    seq: int
    time_ms: int
    payout: Payout

    @property
    def remainder_nano(self) -> int:
        """What it left for the next one: less than a cent, or what was pending or held back."""
        return self.payout.opening_nano + self.payout.lines_nano - self.payout.nano


def payouts_of(connection: Connection, ledger: str, account: str = ALL) -> list[Paid]:
    """An account's payouts, or everybody's, the oldest first."""
    # The sums by day say where the payouts are: the account's other lines are never read.
    rows = connection.execute(
        select(entries.c.seq, entries.c.key, entries.c.time_ms, manifests.c.text)
        .distinct()
        .select_from(account_days)
        .join(
            legs,
            (legs.c.account == account_days.c.account)
            & (legs.c.ledger == account_days.c.ledger)
            & legs.c.seq.between(account_days.c.first_seq, account_days.c.last_seq),
        )
        .join(entries, (entries.c.ledger == legs.c.ledger) & (entries.c.seq == legs.c.seq))
        .join(manifests, manifests.c.sha256 == entries.c.manifest_sha256, isouter=True)
        .where(account_days.c.account == account, account_days.c.ledger == ledger)
        .where(account_days.c.kind == "payout", entries.c.kind == "payout")
        .order_by(entries.c.seq)
    )
    return [
        Paid(seq, time_ms, _payout(seq, key.partition("/")[0], text))
        for seq, key, time_ms, text in rows
    ]


def _payout(seq: int, operation: str, text: str | None) -> Payout:
    if text is None:
        raise ArchiveUnavailable(
            f"the archive lacks the text of the payout in entry {seq}, so nobody can say which "
            "lines it paid: export that ledger again into a new archive"
        )
    fields = json.loads(text)
    return Payout(
        operation=operation,
        account=fields["account"],
        nano=int(fields["nano"]),
        statement=fields["statement"],
        first_seq=int(fields["first_seq"]),
        last_seq=int(fields["last_seq"]),
        opening_nano=int(fields["opening_nano"]),
        lines_nano=int(fields["lines_nano"]),
        reference=fields["reference"],
    )
