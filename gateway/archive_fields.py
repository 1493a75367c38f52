"""What the archive's answers have in common as JSON. Money is an integer and a decimal text."""

from collections.abc import Mapping

from byline.archive.cursor import Cursor
from byline.archive.days import iso_day
from byline.archive.lines import AccountLine
from byline.archive.periods import Period
from byline.money import usd


def money_fields(**amounts: int) -> dict[str, object]:
    """Each amount twice: `<name>_nano` for programs, `<name>_usd` for people; both are exact."""
    fields: dict[str, object] = {}
    for name, nano in amounts.items():
        fields |= {f"{name}_nano": nano, f"{name}_usd": usd(nano)}
    return fields


def period_fields(period: Period) -> dict[str, object]:
    """The days a caller asked for; null is without end."""
    return {
        "from": None if period.first is None else iso_day(period.first),
        "to": None if period.last is None else iso_day(period.last),
    }


def page_fields(exported: Mapping[str, int], following: Cursor | None) -> dict[str, object]:
    """How far the archive is with each ledger, and where the next page begins."""
    return {
        "as_of_seq": dict(exported),
        "next_cursor": None if following is None else following.text(),
    }


def account_line_fields(line: AccountLine) -> dict[str, object]:
    """One leg of an account."""
    return {
        "ledger": line.ledger,
        "seq": line.seq,
        "key": line.key,
        "kind": line.kind,
        "time_ms": line.time_ms,
        "inference": line.inference,
        "adapter": line.adapter_version,
        "dataset": line.dataset,
        "nano": line.nano,
        "usd": usd(line.nano),
        "share_ppb": line.share_ppb,
        "pool_nano": line.pool_nano,
        "reason": line.reason,
    }
