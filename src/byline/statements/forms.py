"""The forms in which a statement is read: JSON is the record, the others are made from it."""

from enum import StrEnum

from byline.statements.csv_form import statement_csv


class Form(StrEnum):
    """What a statement can be read as."""

    JSON = "json"
    CSV = "csv"
    PDF = "pdf"


def rendered(text: str, form: Form) -> bytes:
    """A statement's canonical JSON in one of its forms."""
    if form is Form.CSV:
        return statement_csv(text)
    if form is Form.PDF:
        from byline.statements.pdf_form import statement_pdf  # fonts take a moment to load

        return statement_pdf(text)
    return text.encode()
