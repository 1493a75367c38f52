"""How the settings of a program name its ledgers, and the applications placed by hand."""

from collections import Counter
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from pydantic_settings import NoDecode

LEDGERS_MAX = 64  # each is asked at once when it is not known which of them has an inference


def _split(given: object) -> object:
    if not isinstance(given, str):
        return given
    return tuple(name.strip() for name in given.split(",") if name.strip())


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"named twice: {', '.join(twice)}")
    return names


def _places(given: object) -> object:
    parts = _split(given)
    if not isinstance(parts, tuple):
        return given
    pairs = [part.partition("=") for part in parts]
    _each_once(tuple(application.strip() for application, _, _ in pairs))
    return {application.strip(): ledger.strip() for application, _, ledger in pairs}


# Part of a key, of a hash tag and of a folder's name.
LedgerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Application = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9@._-]{1,64}$")]

# `usd-0,usd-1`
LedgerNames = Annotated[
    tuple[LedgerName, ...],
    NoDecode,
    BeforeValidator(_split),
    AfterValidator(_each_once),
    Field(min_length=1, max_length=LEDGERS_MAX),
]
# `shop=usd-1,clinic=usd-0`
Placed = Annotated[dict[Application, LedgerName], NoDecode, BeforeValidator(_places)]
