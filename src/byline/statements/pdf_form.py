"""A statement as a PDF to read and to print: a summary, then the lines over as many pages as
they take. The same bytes for the same JSON; all of its text can be extracted.

Pages are drawn one by one: a layout engine needs minutes for a hundred thousand lines.
"""

import io
from collections.abc import Iterator, Sequence
from typing import Any

from reportlab.lib.pagesizes import A4, landscape
from reportlab.pdfgen.canvas import Canvas

from byline.money import usd
from byline.statements.months import time_text
from byline.statements.statement import TOTALS, Line, Statement, parse_statement, sha256_of

PAGE = landscape(A4)
MARGIN = 40
ROWS = 52  # of one page
SIZE, LEADING = 7, 9  # points
TEXT, BOLD = "Courier", "Courier-Bold"
COLUMNS = (
    f"{'entry':>12}  {'time':<20}  {'kind':<12}  {'inference or operation':<36}  {'adapter':<44}"
)
HEADER = f"{COLUMNS}  {'USD':>21}"
ADAPTER_CHARACTERS = 44
SHORTEN_MARK = ".."


def statement_pdf(text: str) -> bytes:
    """The PDF of the statement in this canonical JSON."""
    statement, sha256 = parse_statement(text), sha256_of(text)
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=PAGE, invariant=1, pageCompression=1)
    canvas.setTitle(f"Statement of {statement.account} for {statement.month}")
    canvas.setAuthor("Byline")
    canvas.setSubject(f"SHA-256 of the statement's JSON: {sha256}")
    pages = [*_pages(_summary(statement), ""), *_pages(_lines(statement), HEADER)]
    for number, (header, rows) in enumerate(pages, 1):
        _draw_page(
            canvas,
            head=f"Byline  -  statement of {statement.account}  -  {statement.month}",
            header=header,
            rows=rows,
            foot=f"SHA-256 of the JSON: {sha256}    page {number} of {len(pages)}",
        )
    canvas.save()
    return file.getvalue()


def _summary(statement: Statement) -> list[str]:
    def amount(name: str, nano: int) -> str:
        return f"{name:<94}  {usd(nano):>24} USD"

    return [
        f"account      {statement.account}",
        f"month        {statement.month} (UTC)",
        f"ledger       {statement.ledger}, entries {statement.from_seq} to {statement.to_seq}",
        f"previous     {statement.previous_sha256 or 'this is the first statement'}",
        "",
        amount("opening balance", statement.opening_nano),
        *(amount(f"  {name}", statement.totals[name]) for name in TOTALS),
        amount("closing balance", statement.closing_nano),
        "",
        "by adapter version, with the dataset it was trained on",
        *(
            amount(f"  {_shortened(version or 'none')}  {_shortened(dataset or '')}", nano)
            for version, dataset, nano in statement.adapters
        ),
        "",
        f"{len(statement.lines)} lines; late: posted after the month of its time had been closed",
    ]


def _lines(statement: Statement) -> list[str]:
    return [_line(line) for line in statement.lines]


def _line(line: Line) -> str:
    event = line.inference or line.key.partition("/")[0]
    adapter = _shortened(line.adapter_version or "")
    late = "  late" if line.late else ""
    return (
        f"{line.seq:>12}  {time_text(line.time_ms):<20}  {line.kind:<12}  {event:<36}  "
        f"{adapter:<{ADAPTER_CHARACTERS}}  {usd(line.nano):>21}{late}"
    )


def _shortened(name: str) -> str:
    """A long name without its middle: its end tells versions apart."""
    if len(name) <= ADAPTER_CHARACTERS:
        return name
    half = (ADAPTER_CHARACTERS - len(SHORTEN_MARK)) // 2
    return name[:half] + SHORTEN_MARK + name[-half:]


def _pages(rows: Sequence[str], header: str) -> Iterator[tuple[str, Sequence[str]]]:
    """The rows in pages, each under the header."""
    for start in range(0, len(rows), ROWS):
        yield header, rows[start : start + ROWS]


def _draw_page(canvas: Any, *, head: str, header: str, rows: Sequence[str], foot: str) -> None:  # noqa: ANN401 - reportlab has no types
    width, height = PAGE
    canvas.setFont("Helvetica-Bold", 11)
    canvas.drawString(MARGIN, height - MARGIN, head)
    canvas.line(MARGIN, height - MARGIN - 6, width - MARGIN, height - MARGIN - 6)
    text = canvas.beginText(MARGIN, height - MARGIN - 20)
    text.setFont(BOLD, SIZE, LEADING)
    text.textLine(header)
    text.setFont(TEXT, SIZE, LEADING)
    for row in rows:
        text.textLine(row)
    canvas.drawText(text)
    canvas.setFont(TEXT, SIZE)
    canvas.drawString(MARGIN, MARGIN - 14, foot)
    canvas.showPage()
