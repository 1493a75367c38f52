"""What the settings accept as names of ledgers, and as places of applications."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from byline.ledger.ledger_names import LedgerNames, Placed

NAMES: TypeAdapter[Any] = TypeAdapter(LedgerNames)
PLACED: TypeAdapter[Any] = TypeAdapter(Placed)


def test_names_are_split_and_kept_in_order() -> None:
    assert NAMES.validate_python("usd-1, usd-0,") == ("usd-1", "usd-0")
    assert NAMES.validate_python(("usd",)) == ("usd",)


@pytest.mark.parametrize(
    "given",
    ["", ",", "usd,usd", "../usd", "a/b", "{usd}", "usd:jobs", ".", "a b", "x" * 65, "usd\n,b\x00"],
)
def test_what_is_no_folders_name_is_no_ledgers_name(given: str) -> None:
    with pytest.raises(ValidationError):
        NAMES.validate_python(given)


def test_more_ledgers_than_are_asked_at_once_are_refused() -> None:
    assert len(NAMES.validate_python(",".join(f"usd-{number}" for number in range(64)))) == 64
    with pytest.raises(ValidationError):
        NAMES.validate_python(",".join(f"usd-{number}" for number in range(65)))


def test_places_are_pairs() -> None:
    assert PLACED.validate_python("") == {}
    assert PLACED.validate_python("shop=usd-1, a@b.c = usd-0") == {
        "shop": "usd-1",
        "a@b.c": "usd-0",
    }
    assert PLACED.validate_python({"shop": "usd"}) == {"shop": "usd"}


@pytest.mark.parametrize(
    "given", ["shop", "shop=", "=usd", "shop=../x", "shop=a,shop=b", "a/b=usd"]
)
def test_what_is_no_place_is_refused(given: str) -> None:
    with pytest.raises(ValidationError):
        PLACED.validate_python(given)
