"""The plan of a fault run: what each turn asks for, when it is, and what goes wrong. Pure.

Everything follows from the seed alone and nothing from what happens, so a seed that fails asks for
the same again. Kinds of fault are drawn from a bag that is filled anew when it is empty: a short
run meets each of them too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from loadtests.faults.asking import Asking
from loadtests.faults.faults import AT_DOOR, Fault, Kind
from loadtests.faults.operations import Flow

START_MS = 1_795_000_000_000
MINUTE_MS, DAY_MS = 60_000, 86_400_000
FLOWS_MIN, FLOWS_MAX = 300, 1_000
POSTER, WORKER, EXPORTER, BOOKKEEPER = CAST = ("poster", "worker", "exporter", "bookkeeper")
STALL_SECONDS = 0.7  # longer than an actor waits for a reply
REQUESTS = {POSTER: 1_300, WORKER: 800, EXPORTER: 30, BOOKKEEPER: 30}  # about as many as a turn has
STEPS = {POSTER: 2_000, WORKER: 1_300, EXPORTER: 20, BOOKKEEPER: 4}
SINGLE_BAG = (
    *AT_DOOR, *AT_DOOR, Kind.REDIS_TIME, Kind.REDIS_STOPPED, Kind.TRUNCATION, Kind.DISK_FULL,
    *(Kind.ACTOR_STEP,) * 8, Kind.ACTOR_TIME, Kind.ACTOR_TIME,
)  # fmt: skip
PAIR_BAG = (
    *AT_DOOR, *(Kind.ACTOR_STEP,) * 5, *(Kind.FAILOVER,) * 2, *(Kind.PARTITION,) * 3,
    *(Kind.SPLIT,) * 3, Kind.REPLICA_TIME,
)  # fmt: skip
SINGLE_TURNS, PAIR_TURNS = 6, 4  # then a replica is attached, and is taken off again
ALONE = {Kind.TRUNCATION}  # nothing else goes wrong in such a turn


@dataclass(frozen=True, slots=True)
class Turn:
    """What happens between two checks of the books."""

    number: int
    now_ms: int
    flows: tuple[Flow, ...]
    faults: tuple[Fault, ...]
    replicas: int
    thorough: bool  # afterwards everything is settled, exported and checked by the bookkeeper


def turns(seed: int) -> Iterator[Turn]:
    """Every turn of this seed, without end."""
    rng = Random(seed)
    asking = Asking(rng)
    trouble = Trouble(rng)
    now_ms, number = START_MS, 0
    yield Turn(number, now_ms, asking.funding(now_ms), (), 0, thorough=False)
    while True:
        number += 1
        now_ms = _later(now_ms, rng)
        flows = asking.flows(now_ms, rng.randrange(FLOWS_MIN, FLOWS_MAX))
        replicas, faults = trouble.of_turn(number)
        yield Turn(number, now_ms, flows, faults, replicas, thorough=number % 10 == 0)


def _later(now_ms: int, rng: Random) -> int:
    """The clock goes on: mostly a little; at times past every hold, a midnight, or every mark."""
    luck = rng.random()
    if luck < 0.80:
        return now_ms + rng.randrange(1, 3_000)
    if luck < 0.92:
        return now_ms + rng.randrange(16 * MINUTE_MS, 30 * MINUTE_MS)
    if luck < 0.98:
        return (now_ms // DAY_MS + 1) * DAY_MS + rng.randrange(2)
    return now_ms + rng.randrange(34 * DAY_MS, 38 * DAY_MS)


class Trouble:
    """Draws the faults of each turn; the pair of primary and replica comes and goes."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._bags: dict[int, list[Kind]] = {0: [], 1: []}

    def of_turn(self, number: int) -> tuple[int, tuple[Fault, ...]]:
        """How many replicas there are, and what goes wrong."""
        replicas = int((number - 1) % (SINGLE_TURNS + PAIR_TURNS) >= SINGLE_TURNS)
        kinds = [self._draw(replicas) for _ in range(self._rng.choice((0, 2, 3, 3, 4, 4)))]
        for kind in kinds:
            if kind in ALONE:
                kinds = [kind]
        return replicas, tuple(self._fault(kind) for kind in kinds)

    def _draw(self, replicas: int) -> Kind:
        bag = self._bags[replicas]
        if not bag:
            bag.extend(PAIR_BAG if replicas else SINGLE_BAG)
            self._rng.shuffle(bag)
        return bag.pop()

    def _fault(self, kind: Kind) -> Fault:
        rng = self._rng
        kills = kind in (Kind.ACTOR_STEP, Kind.ACTOR_TIME)
        actor = rng.choices(CAST, weights=(3, 3, 2, 2) if kills else (6, 3, 2, 2))[0]
        if kind is Kind.SPLIT:
            actor = rng.choice((POSTER, WORKER))  # who posts: nothing of it may be promised
        at = 1 + int(rng.random() * REQUESTS[actor])
        seconds = rng.uniform(0.02, 0.4)
        if kind is Kind.ACTOR_STEP:
            at = 1 + int(rng.random() * STEPS[actor])
        elif kind in (Kind.STALL, Kind.REDIS_STOPPED):
            seconds = STALL_SECONDS
        elif kind is Kind.REDIS_FORWARDED:
            seconds = rng.choice((0.0, 0.0005, 0.002))
        return Fault(kind, actor, at, seconds, rng.random())
