"""What can go wrong in a turn: the kinds of fault, and one fault at its place. Pure."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Every kind of fault; each strikes one actor's connection, one process or the server."""

    # at one actor's door, at its n-th request of the turn
    DROP_REPLY = "drop_reply"  # it happened, and the actor is not told
    CUT_REPLY = "cut_reply"  # half of the reply arrives
    DELAY_REPLY = "delay_reply"  # late, within the actor's patience
    STALL = "stall"  # later than the actor waits
    REPLY_TWICE = "reply_twice"  # every later reply would answer the request before
    REQUEST_TWICE = "request_twice"  # the server is asked twice, the actor answered once
    CLOSE_BEFORE = "close_before"  # the request never arrives
    REDIS_BEFORE = "redis_before"  # the server is killed before it gets the request ...
    REDIS_FORWARDED = "redis_forwarded"  # ... while it has it ...
    REDIS_ANSWERED = "redis_answered"  # ... when it has answered, and nobody has heard
    # at one process, at its n-th step or after some time
    ACTOR_STEP = "actor_step"
    ACTOR_TIME = "actor_time"
    # at the server, after some time
    REDIS_TIME = "redis_time"
    REDIS_STOPPED = "redis_stopped"  # for longer than anybody waits; then it goes on
    DISK_FULL = "disk_full"  # the append-only file can grow by some bytes, and no more
    TRUNCATION = "truncation"  # the file's tail is lost, where nothing was acknowledged
    FAILOVER = "failover"  # the primary is killed and its replica promoted
    PARTITION = "partition"  # the same, after the replica heard nothing for a while
    SPLIT = "split"  # the replica is promoted, and the old primary lives on with one actor
    REPLICA_TIME = "replica_time"  # the replica is killed and comes back


AT_DOOR = (
    Kind.DROP_REPLY, Kind.CUT_REPLY, Kind.DELAY_REPLY, Kind.STALL, Kind.REPLY_TWICE,
    Kind.REQUEST_TWICE, Kind.CLOSE_BEFORE, Kind.REDIS_BEFORE, Kind.REDIS_FORWARDED,
    Kind.REDIS_ANSWERED,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong in one turn."""

    kind: Kind
    actor: str = ""  # whose door or process
    at: int = 0  # which request or step
    seconds: float = 0.0  # when, or for how long
    fraction: float = 0.0  # how far into whatever is cut
