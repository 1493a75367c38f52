"""Who can be limited, and by what: the records of quotas, and how a person names them."""

import re
from dataclasses import dataclass
from enum import StrEnum

from byline.errors import InvalidInput
from byline.limits import QUOTA_NANO_MAX, QUOTA_REQUESTS_MAX, QUOTA_TOKENS_MAX

NAME = re.compile(r"[A-Za-z0-9@._-]{1,64}")  # as an API key's subject


class ScopeKind(StrEnum):
    """What a quota is for."""

    KEY = "key"
    APPLICATION = "application"
    ORGANISATION = "organisation"


@dataclass(frozen=True, slots=True)
class Scope:
    """One API key (by its id), application or organisation."""

    kind: ScopeKind
    name: str

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise InvalidInput(
                f"'{self.name}' is no {self.kind}'s name: letters, digits and @._- only",
                param="name",
            )

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> "Scope":
        """What `str` made of a scope."""
        kind, _, name = text.partition(":")
        return cls(ScopeKind(kind), name)


class LimitName(StrEnum):
    """What is limited: uses in any 60 seconds, money in a UTC day or month."""

    REQUESTS = "requests_per_minute"
    TOKENS = "tokens_per_minute"
    DAY = "nano_per_day"
    MONTH = "nano_per_month"


MAXIMA = {
    LimitName.REQUESTS: QUOTA_REQUESTS_MAX,
    LimitName.TOKENS: QUOTA_TOKENS_MAX,
    LimitName.DAY: QUOTA_NANO_MAX,
    LimitName.MONTH: QUOTA_NANO_MAX,
}


@dataclass(frozen=True, slots=True)
class Quota:
    """The limits of one scope; None: not limited. Zero lets nothing pass."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    nano_per_day: int | None = None
    nano_per_month: int | None = None

    def __post_init__(self) -> None:
        for name, value in self.given().items():
            if not 0 <= value <= MAXIMA[name]:
                raise InvalidInput(
                    f"{name} must be from 0 to {MAXIMA[name]}, not {value}", param=name.value
                )

    def given(self) -> dict[LimitName, int]:
        """The limits there are."""
        values = {name: getattr(self, name.value) for name in LimitName}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Used:
    """What counts of one scope's use at one moment, reservations included."""

    requests: int
    tokens: int
    nano_of_day: int
    nano_of_month: int


@dataclass(frozen=True, slots=True)
class Window:
    """One of the minute's limits as a client is told of it."""

    limit: int
    remaining: int
    reset_ms: int  # until nothing counts any more of what counts now


@dataclass(frozen=True, slots=True)
class Want:
    """What one inference may use at most; one request, always."""

    inference: str
    application: str  # whose ledger knows what it cost
    scopes: tuple[Scope, ...]
    tokens: int
    nano: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """Taken; where `is_limited` is false there was no limit to take anything from."""

    is_limited: bool
    requests: Window | None = None
    tokens: Window | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was taken; of several limits in the way, the one that takes longest."""

    limit_name: LimitName
    scope: Scope
    limit: int
    used: int
    wanted: int
    wait_ms: int | None  # None: it will never fit
    requests: Window | None
    tokens: Window | None


@dataclass(frozen=True, slots=True)
class Overdue:
    """A reservation that was not corrected in its time: its gateway or its ledger was away."""

    inference: str
    application: str
    scopes: tuple[Scope, ...]
    is_looked_at: bool  # before; this is the last time
