"""A statement as a table for spreadsheets (RFC 4180): opening, lines, closing. Pure.

The rows marked `opening` and `line` sum to the one marked `closing`.
"""

import csv
import io

from byline.money import usd
from byline.statements.months import time_text
from byline.statements.statement import Line, parse_statement

COLUMNS = ("row", "seq", "time", "time_ms", "kind", "key", "inference", "adapter_version",
           "dataset", "late", "nano", "usd")  # fmt: skip


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
        "kind": line.kind,
        "key": line.key,
        "inference": line.inference,
        "adapter_version": line.adapter_version,
        "dataset": line.dataset,
        "late": "late" if line.late else None,
        "nano": line.nano,
        "usd": usd(line.nano),
    }
