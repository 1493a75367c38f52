"""What the driver tells its actors, and what they report; pickled through a pipe."""

from dataclasses import dataclass, field
from typing import TypeAlias

from byline.records import Attribution
from loadtests.faults.operations import Flow


@dataclass(frozen=True, slots=True)
class Open:
    """Connect anew: through this door, and with so many replicas to confirm each post."""

    url: str
    replicas: int


@dataclass(frozen=True, slots=True)
class Perform:
    """Do what there is to do at this time."""

    now_ms: int
    tries: int  # of one thing, while its outcome is unknown
    die_at_step: int = 0  # 0: live on
    flows: tuple[Flow, ...] = ()  # what the poster's callers ask for


Command: TypeAlias = Open | Perform


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The ledger has answered: it is posted under this number."""

    key: str
    seq: int
    duplicate: bool
    late: bool
    settled: Attribution | None = None  # what the worker posted


@dataclass(frozen=True, slots=True)
class Spooled:
    """The ledger was away; the spool has promised to post it."""

    key: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The ledger has answered: nothing was written."""

    key: str
    error: str
    text: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """No answer, or not enough replicas: it may be posted or not."""

    key: str


@dataclass(frozen=True, slots=True)
class Wrong:
    """The actor itself has found something that must not be."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The command is carried out, as far as it could be."""

    counts: dict[str, int] = field(default_factory=dict)


Report: TypeAlias = Acknowledged | Spooled | Refused | Unknown | Wrong | Ended
