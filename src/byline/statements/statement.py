"""One account's month: opening + lines = closing, and its canonical JSON, which is the record.

The JSON is RFC 8785's, with one difference: integers are written whole, however large. Readers
that know doubles alone take the decimal string which stands beside each of them.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from byline.archive.earnings import EARNED
from byline.canonical import Json, sha256_hex
from byline.errors import ArchiveUnavailable
from byline.money import usd
from byline.statements.months import Month

VERSION = 1
PAYEE_PREFIXES = ("contrib:", "owner:", "base:")
PAYEES = ("host", "platform")
TOTAL_OF_KIND = {
    **dict.fromkeys(EARNED, "earnings"),
    "refund": "refunds",
    "adjust": "adjustments",
    "release": "releases",
    "payout": "payouts",
}
TOTALS = ("earnings", "refunds", "adjustments", "releases", "payouts")


def is_payee(account: str) -> bool:
    """True for accounts that get statements and payouts."""
    return account.startswith(PAYEE_PREFIXES) or account in PAYEES


@dataclass(frozen=True, slots=True)
class Line:
    """What one journal entry gave the account, or took from it."""

    seq: int
    key: str
    kind: str
    time_ms: int
    inference: str | None
    adapter_version: str | None
    dataset: str | None  # what the adapter version was trained on
    nano: int
    late: bool  # its own time lies in an earlier month: it was posted after that had been closed

    @property
    def total(self) -> str:
        """Which of the totals it counts to."""
        return TOTAL_OF_KIND[self.kind]


@dataclass(frozen=True)
class Statement:
    """One account's lines from `from_seq` to `to_seq` of the journal, both included."""

    ledger: str
    account: str
    month: Month
    from_seq: int
    to_seq: int
    opening_nano: int
    lines: tuple[Line, ...]
    previous_sha256: str | None  # of the statement before: an account's statements are a chain

    @cached_property
    def lines_nano(self) -> int:
        """The sum of the lines."""
        return sum(line.nano for line in self.lines)

    @property
    def closing_nano(self) -> int:
        """What the account holds after the last line."""
        return self.opening_nano + self.lines_nano

    @cached_property
    def totals(self) -> dict[str, int]:
        """The lines summed by what they are."""
        totals = dict.fromkeys(TOTALS, 0)
        for line in self.lines:
            totals[line.total] += line.nano
        return totals

    @cached_property
    def adapters(self) -> list[tuple[str | None, str | None, int]]:
        """The lines summed by adapter version, each with its dataset; None: no adapter's."""
        sums: dict[tuple[str | None, str | None], int] = {}
        for line in self.lines:
            adapter = line.adapter_version, line.dataset
            sums[adapter] = sums.get(adapter, 0) + line.nano
        return [(*adapter, sums[adapter]) for adapter in sorted(sums, key=lambda a: a[0] or "")]


def statement_text(statement: Statement) -> str:
    """The canonical JSON: the record that is hashed and frozen."""
    totals: dict[str, Json] = {}
    for name, nano in statement.totals.items():
        totals |= money(name, nano)
    fields: dict[str, Json] = {
        "object": "statement",
        "v": VERSION,
        "ledger": statement.ledger,
        "account": statement.account,
        "month": str(statement.month),
        "currency": "USD",
        "from_seq": statement.from_seq,
        "to_seq": statement.to_seq,
        **money("opening", statement.opening_nano),
        "lines": [_line_fields(line) for line in statement.lines],
        **money("lines", statement.lines_nano),
        "totals": totals,
        "adapters": [
            {"adapter_version": version, "dataset": dataset, "nano": nano, "usd": usd(nano)}
            for version, dataset, nano in statement.adapters
        ],
        **money("closing", statement.closing_nano),
        "previous_sha256": statement.previous_sha256,
    }
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def parse_statement(text: str) -> Statement:
    """The statement in its canonical JSON. Raises ArchiveUnavailable where it does not add up."""
    fields = json.loads(text)
    statement = Statement(
        ledger=fields["ledger"],
        account=fields["account"],
        month=Month.parse(fields["month"]),
        from_seq=fields["from_seq"],
        to_seq=fields["to_seq"],
        opening_nano=fields["opening_nano"],
        lines=tuple(_line(line) for line in fields["lines"]),
        previous_sha256=fields["previous_sha256"],
    )
    if statement.closing_nano != fields["closing_nano"]:
        raise ArchiveUnavailable(
            f"the statement of {statement.account} for {statement.month} does not add up"
        )
    return statement


def sha256_of(text: str) -> str:
    """The hash that a frozen statement is known by."""
    return sha256_hex(text.encode())


def money(name: str, nano: int) -> dict[str, Json]:
    """An amount under both its names: the exact integer, and a decimal for people."""
    return {f"{name}_nano": nano, f"{name}_usd": usd(nano)}


def _line_fields(line: Line) -> dict[str, Json]:
    return {
        "seq": line.seq,
        "key": line.key,
        "kind": line.kind,
        "time_ms": line.time_ms,
        "inference": line.inference,
        "adapter_version": line.adapter_version,
        "dataset": line.dataset,
        "nano": line.nano,
        "usd": usd(line.nano),
        "late": line.late,
    }


def _line(fields: dict[str, Any]) -> Line:
    del fields["usd"]
    return Line(**fields)
