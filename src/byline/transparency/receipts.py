"""Receipts: what an application is told of an inference at once, signed; the log proves it."""

import json
from collections.abc import Mapping
from typing import Any

from byline.canonical import Json, canonical_text
from byline.errors import ProofRefused
from byline.transparency.notes import SIGNATURE, SigningKey, VerifierKey, parse_note, signed_note

FIRST_LINE = "byline-receipt/v1"
EXTENSION = ".receipt"


def receipt_key_name(origin: str) -> str:
    """What the key is called that signs the receipts of a log's ledger."""
    return f"{origin}/receipts"


def receipt_text(fields: Mapping[str, Json], key: SigningKey) -> str:
    """A `.receipt` file: the fields of docs/proofs.md, signed. Money is decimal strings."""
    assert key.kind == SIGNATURE
    return signed_note(f"{FIRST_LINE}\n{canonical_text(fields)}\n", [key])


def receipt_fields(receipt: str, key: VerifierKey) -> dict[str, Any]:
    """What a receipt says. Raises ProofRefused unless this key signed it."""
    note = parse_note(receipt)
    first, _, text = note.text.partition("\n")
    if first != FIRST_LINE or not note.signers([key]):
        raise ProofRefused(f"it is no receipt that {key.name} signed")
    fields: dict[str, Any] = json.loads(text)
    return fields
