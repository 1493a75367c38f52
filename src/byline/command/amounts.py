"""Dollars and legs as a person writes them on the command line."""

import re
from collections.abc import Iterable

from byline.errors import InvalidInput
from byline.records import Leg

NANO_DIGITS = 9
AMOUNT = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?")


def nano_of(usd: str) -> int:
    """Dollars, as a person writes them, in nano-USD; InvalidInput unless exact and positive."""
    nano = _exact_nano(usd)
    if nano <= 0:
        raise InvalidInput(f"'{usd}' must be positive with at most nine decimals", param="usd")
    return nano


def legs_of(words: Iterable[str]) -> tuple[Leg, ...]:
    """`ACCOUNT=USD` each; a negative amount leaves the account."""
    return tuple(_leg(word) for word in words)


def _leg(word: str) -> Leg:
    account, equals, usd = word.rpartition("=")
    if not equals:
        raise InvalidInput(f"'{word}' is no leg: write ACCOUNT=USD", param="leg")
    return Leg(account, _exact_nano(usd))


def _exact_nano(usd: str) -> int:
    found = AMOUNT.fullmatch(usd)
    if found is None:
        raise InvalidInput(
            f"'{usd}' is no amount of dollars: write 12.50, with at most nine decimals", param="usd"
        )
    sign, whole, decimals = found.groups(default="")
    return int(f"{sign}{whole}{decimals:0<{NANO_DIGITS}}")
