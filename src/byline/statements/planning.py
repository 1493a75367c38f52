"""What a frozen statement may pay out now, and the payout that does it. Pure.

A payout cites every line since the one before it: opening + lines = paid + remainder. What one leg
of the ledger can't hold is paid in parts; each part has an operation of its own.
"""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from byline.limits import CENT_NANO, LEG_NANO_MAX
from byline.money import usd
from byline.records import Payout
from byline.statements.frozen import Frozen
from byline.statements.months import Month
from byline.statements.paid import Paid

PART_NANO_MAX = LEG_NANO_MAX // CENT_NANO * CENT_NANO


@dataclass(frozen=True, slots=True)
class Standing:
    """How an account stands at the moment of the run."""

    balance_nano: int
    pending_nano: int  # earned so lately that it may still be refunded
    blocked: str | None  # why its payouts are held back
    paid: Sequence[Paid]  # its payouts, the oldest first


@dataclass(frozen=True, slots=True)
class Plan:
    """The next payout of an account, or why there is none."""

    payable_nano: int = 0  # whole cents, all parts together
    payout: Payout | None = None
    reason: str = ""


def plan(frozen: Frozen, standing: Standing, *, minimum_nano: int) -> Plan:
    """What is paid next for the statement: nothing, if it has been paid."""
    statement = f"{frozen.account}/{frozen.month}"
    newest = standing.paid[-1] if standing.paid else None
    parts = [paid for paid in standing.paid if paid.payout.statement == statement]
    if parts and parts[-1].payout.nano < PART_NANO_MAX:
        return Plan(reason=f"paid before, in entry {parts[-1].seq}")
    if newest and newest.payout.statement > statement:
        return Plan(reason=f"its lines are in the payout of {newest.payout.statement}")
    # The statement knows the payouts up to its end; what was paid since has left it, too.
    owed = frozen.closing_nano - sum(
        paid.payout.nano for paid in standing.paid if paid.seq > frozen.to_seq
    )
    cleared = standing.balance_nano - standing.pending_nano
    payable = max(0, min(owed, cleared)) // CENT_NANO * CENT_NANO
    if parts and payable < CENT_NANO:
        return Plan(reason=f"paid before, in entry {parts[-1].seq}")
    # The minimum is the statement's: what remains of one that has been paid in part is due.
    if reason := _why_not(standing, payable, CENT_NANO if parts else minimum_nano):
        return Plan(payable, reason=reason)
    opening = newest.remainder_nano if newest else 0
    payout = Payout(
        operation=payout_operation(frozen.ledger, frozen.account, frozen.month, len(parts)),
        account=frozen.account,
        nano=min(payable, PART_NANO_MAX),
        statement=statement,
        first_seq=newest.payout.last_seq + 1 if newest else 1,
        last_seq=frozen.to_seq,
        opening_nano=opening,
        lines_nano=owed - opening,
        reference="",
    )
    return Plan(payable, payout)


def payout_operation(ledger: str, account: str, month: Month, part: int = 0) -> str:
    """The UUIDv7 of an account's payout for a month: the same one, whoever pays it and when."""
    digest = hashlib.sha256(f"{ledger}\n{account}\n{month}\n{part}".encode()).digest()
    tail = int.from_bytes(digest[:10]) >> 6  # 74 bits
    high, low = tail >> 62, tail & ((1 << 62) - 1)
    return str(uuid.UUID(int=month.end_ms << 80 | 7 << 76 | high << 64 | 2 << 62 | low))


def _why_not(standing: Standing, payable: int, minimum_nano: int) -> str:
    if standing.blocked is not None:
        return f"blocked: {standing.blocked}"
    if standing.balance_nano < 0:
        return "the balance is negative"
    if payable < max(minimum_nano, CENT_NANO):
        pending = standing.pending_nano
        waits = f"; {usd(pending)} USD are pending" if pending else ""
        return f"below the minimum of {usd(minimum_nano)} USD{waits}"
    return ""
