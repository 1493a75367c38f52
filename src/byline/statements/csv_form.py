"""A statement as a table for spreadsheets (RFC 4180): opening, lines, closing. Pure.

The rows marked `opening` and `line` sum to the one marked `closing`. A text that a spreadsheet
would take for a formula has an apostrophe before it; an amount is a number, and stays one.
"""

import csv
import io

from byline.money import usd
from byline.statements.months import time_text
from byline.statements.statement import Line, parse_statement

COLUMNS = ("row", "seq", "time", "time_ms", "kind", "key", "inference", "adapter_version",
           "dataset", "late", "nano", "usd")  # fmt: skip

# What begins so is calculated, not shown (OWASP, CSV injection); the last four are the wide forms.
FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def statement_csv(text: str) -> bytes:
    """The CSV of the statement in this canonical JSON: the same bytes for the same JSON."""
    statement = parse_statement(text)
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerow(_balance("opening", statement.opening_nano))
    writer.writerows(_line(line) for line in statement.lines)
    writer.writerow(_balance("closing", statement.closing_nano))
    return table.getvalue().encode()


def _balance(row: str, nano: int) -> dict[str, object]:
    return {"row": row, "nano": nano, "usd": usd(nano)}


def _line(line: Line) -> dict[str, object]:
    return {
        "row": "line",
        "seq": line.seq,
        "time": time_text(line.time_ms),
        "time_ms": line.time_ms,
        "kind": _text(line.kind),
        "key": _text(line.key),
        "inference": _text(line.inference),
        "adapter_version": _text(line.adapter_version),
        "dataset": _text(line.dataset),
        "late": "late" if line.late else None,
        "nano": line.nano,
        "usd": usd(line.nano),
    }


def _text(text: str | None) -> str | None:
    return f"'{text}" if text is not None and text.startswith(FORMULA_BEGINS) else text
