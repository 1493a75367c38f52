"""Dollars and legs as a person writes them on the command line."""

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

from byline.errors import InvalidInput
from byline.records import Leg

NANO = Decimal(10**9)


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
    try:
        nano = Decimal(usd) * NANO
    except InvalidOperation as problem:
        raise InvalidInput(
            f"'{usd}' is no amount of dollars: write 12.50", param="usd"
        ) from problem
    if not nano.is_finite() or nano != int(nano):
        raise InvalidInput(f"'{usd}' must have at most nine decimals", param="usd")
    return int(nano)
