"""What the driver tells its actors, and what they report; pickled through a pipe."""

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from loadtests.faults.operations import Flow, Legs


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


class Acknowledged(NamedTuple):
    """The ledger has answered: it is posted under this number."""

    key: str
    seq: int
    duplicate: bool
    late: bool
    legs: Legs | None = None  # what a settle should have done


class Spooled(NamedTuple):
    """The ledger was away; the spool has promised to post it."""

    key: str


class Refused(NamedTuple):
    """The ledger has answered: nothing was written."""

    key: str
    error: str
    text: str


class Unknown(NamedTuple):
    """No answer, or not enough replicas: it may be posted or not."""

    key: str


class Wrong(NamedTuple):
    """The actor itself has found something that must not be."""

    text: str


class Ended(NamedTuple):
    """The command is carried out, as far as it could be."""

    counts: dict[str, int]


Report: TypeAlias = Acknowledged | Spooled | Refused | Unknown | Wrong | Ended
