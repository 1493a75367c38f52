"""The CSV and the PDF say what the canonical JSON says, and the same bytes each time."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader

from byline.canonical import canonical_text
from byline.errors import ArchiveUnavailable
from byline.money import usd
from byline.statements.csv_form import statement_csv
from byline.statements.pdf_form import statement_pdf
from byline.statements.statement import (
    TOTAL_OF_KIND,
    Line,
    Statement,
    parse_statement,
    statement_text,
)
from tests.byline.cases import ADAPTER
from tests.byline.months import ANN, NOVEMBER

NANO = st.integers(-(10**12) + 1, 10**12 - 1).filter(bool)


@st.composite
def lines(draw: st.DrawFn) -> Line:
    kind = draw(st.sampled_from(sorted(TOTAL_OF_KIND)))
    inference = draw(st.uuids(version=4)) if kind in ("capture", "settle", "refund") else None
    version = draw(st.sampled_from([ADAPTER, "x" * 128, "law@000000000000", None]))
    return Line(
        seq=draw(st.integers(1, 10**12)),
        key=f"{draw(st.uuids(version=4))}/{kind}/0",
        kind=kind,
        time_ms=NOVEMBER.start_ms + draw(st.integers(-(10**9), 10**9)),
        inference=str(inference) if inference else None,
        adapter_version=version,
        dataset={ADAPTER: "healthcare-data@1"}.get(version or ""),
        nano=draw(NANO),
        late=draw(st.booleans()),
    )


STATEMENTS = st.builds(
    Statement,
    ledger=st.just("usd"),
    account=st.just(ANN),
    month=st.just(NOVEMBER),
    from_seq=st.just(1),
    to_seq=st.just(10**12),
    opening_nano=st.integers(-(10**17), 10**17),
    lines=st.lists(lines(), max_size=60).map(tuple),
    previous_sha256=st.sampled_from([None, "0" * 64]),
)


def a_line(**changes: object) -> Line:
    line = Line(7, "k/settle/0", "settle", NOVEMBER.start_ms, None, ADAPTER, None, 5, False)
    return replace(line, **changes)  # type: ignore[arg-type]


def a_statement(*given: Line, opening: int = 3) -> Statement:
    return Statement("usd", ANN, NOVEMBER, 1, 9, opening, given, None)


BEGINS = ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"]


@pytest.mark.parametrize("begin", BEGINS)
@pytest.mark.parametrize("column", ["adapter_version", "dataset", "key", "inference"])
def test_a_name_that_a_spreadsheet_would_calculate_is_text(begin: str, column: str) -> None:
    name = f'{begin}HYPERLINK("x")'
    statement = a_statement(a_line(**{column: name}, nano=-5), opening=-7)
    opening, line, closing = rows_of(statement_csv(statement_text(statement)))
    assert line[column] == f"'{name}"
    assert [row["nano"] for row in (opening, line, closing)] == ["-7", "-5", "-12"]
    assert line["usd"] == usd(-5)
    assert not any(str(value).startswith("'") for key, value in line.items() if key != column)


def rows_of(document: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(document.decode(), newline="")))


def text_of(document: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(document)).pages)


def amount_of(text: str, name: str) -> str:
    found = re.search(rf"^\s*{name}\s+(-?[\d.]+) USD", text, re.MULTILINE)
    assert found, name
    return found.group(1)


@settings(max_examples=40, deadline=None)
@given(STATEMENTS)
def test_json_csv_and_pdf_have_the_same_totals(statement: Statement) -> None:
    text = statement_text(statement)
    fields = json.loads(text)
    table, pdf = rows_of(statement_csv(text)), text_of(statement_pdf(text))
    opening, *between, closing = table
    assert (opening["row"], closing["row"]) == ("opening", "closing")
    assert int(opening["nano"]) == fields["opening_nano"] == statement.opening_nano
    assert int(closing["nano"]) == fields["closing_nano"]
    assert int(opening["nano"]) + sum(int(row["nano"]) for row in between) == int(closing["nano"])
    assert amount_of(pdf, "opening balance") == opening["usd"] == fields["opening_usd"]
    assert amount_of(pdf, "closing balance") == closing["usd"] == fields["closing_usd"]
    for name in ("earnings", "refunds", "adjustments", "releases", "payouts"):
        total = sum(int(row["nano"]) for row in between if TOTAL_OF_KIND[row["kind"]] == name)
        assert total == fields["totals"][f"{name}_nano"]
        assert amount_of(pdf, name) == usd(total) == fields["totals"][f"{name}_usd"]
    assert sum(adapter["nano"] for adapter in fields["adapters"]) == fields["lines_nano"]
    assert [row["usd"] for row in between] == [line["usd"] for line in fields["lines"]]
    assert pdf.count(" late\n") + pdf.endswith(" late") <= len(between)


@settings(max_examples=40, deadline=None)
@given(STATEMENTS)
def test_the_json_reads_back_and_is_canonical(statement: Statement) -> None:
    text = statement_text(statement)
    assert parse_statement(text) == statement
    if max(abs(statement.opening_nano), abs(statement.closing_nano)) < 2**53:
        assert canonical_text(json.loads(text)) == text


def test_amounts_beyond_what_a_double_holds_are_written_whole() -> None:
    text = statement_text(a_statement(a_line(), opening=2**53))
    assert '"closing_nano":9007199254740997,"closing_usd":"9007199.254740997"' in text


def test_a_statement_that_does_not_add_up_is_refused() -> None:
    text = statement_text(a_statement(a_line()))
    with pytest.raises(ArchiveUnavailable, match="does not add up"):
        parse_statement(text.replace('"nano":5', '"nano":6'))


def test_the_same_json_gives_the_same_bytes() -> None:
    text = statement_text(a_statement(*[a_line(seq=n) for n in range(200)]))
    assert statement_csv(text) == statement_csv(text)
    assert statement_pdf(text) == statement_pdf(text)


def test_a_long_statement_flows_over_pages_and_loses_no_line() -> None:
    statement = a_statement(*[a_line(seq=10_000 + n, late=n == 7) for n in range(500)])
    reader = PdfReader(io.BytesIO(statement_pdf(statement_text(statement))))
    assert len(reader.pages) == 1 + 10
    text = "\n".join(page.extract_text() for page in reader.pages)
    assert all(f"{10_000 + n} " in text for n in range(500))
    assert len(re.findall(r"0\.000000005\s+late", text)) == 1
    assert "page 11 of 11" in text
    assert reader.metadata
    assert reader.metadata.title == "Statement of contrib:ann for 2026-11"


def test_a_long_name_keeps_its_both_ends_in_the_pdf() -> None:
    statement = a_statement(a_line(adapter_version=f"{'a' * 60}@0123456789ab"))
    text = text_of(statement_pdf(statement_text(statement)))
    assert re.search(r"a{21}\.\.a{8}@0123456789ab", text)


def test_a_statement_without_lines_is_a_page() -> None:
    text = statement_text(a_statement())
    assert "0 lines" in text_of(statement_pdf(text))
    assert [row["row"] for row in rows_of(statement_csv(text))] == ["opening", "closing"]
