"""One run: turn after turn of the plan, each followed by repair and by a check of everything."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtests.faults.actors.stage import Part
from loadtests.faults.audit import Audit
from loadtests.faults.cast import MAIN, ActorDied, ActorProcess
from loadtests.faults.faults import Kind
from loadtests.faults.messages import (
    Acknowledged,
    Ended,
    Open,
    Perform,
    Refused,
    Report,
    Spooled,
    Unknown,
    Wrong,
)
from loadtests.faults.operations import Flow
from loadtests.faults.plan import EXPORTER, MINUTE_MS, POSTER, WORKER, Turn, turns
from loadtests.faults.proxy import Door
from loadtests.faults.record import Record
from loadtests.faults.servers import Servers
from loadtests.faults.strikes import Strikes
from loadtests.faults.verdict import Verdict

COMMAND_SECONDS_MAX = 90.0
TRIES = 8  # of one thing in a turn with faults
PATIENT_TRIES = 40  # when nothing goes wrong any more
ROUNDS_MAX = 10  # of sending again what has no answer
TAIL_SECONDS = 0.02  # of posting on into a file whose end will be lost
END_MS = 60 * MINUTE_MS  # later than every hold
STARTS_MAX = 5
SIGKILLED = -9


class CannotGoOn(Exception):
    """The run itself can't be carried out."""


class Run:
    """Everything of one run. `go` carries it out; `verdict` and `figures` say what came of it."""

    def __init__(self, seed: int, folder: Path, record: Record, part: Part) -> None:
        self.seed = seed
        self.verdict = Verdict()
        self.turns = 0
        self._record = record
        self._servers = Servers(folder)
        self._doors = {
            name: Door(folder / f"{name}.sock", self._servers.kill_primary) for name in MAIN
        }
        self._actors = {name: ActorProcess(name, part.of(name), self._hear) for name in MAIN}
        self._strikes = Strikes(self._servers, self._doors, self._actors)
        self._audit = Audit(seed, record, self.verdict, folder)
        self._replicas = 0
        self._kills: Counter[str] = Counter()
        self._trimmed = 0

    async def go(self, seconds: float, turns_min: int, turns_max: int) -> None:
        """Turns until the time is over, or something is wrong; then the end's thorough check."""
        until = time.monotonic() + seconds
        try:
            await self._set_up()
            for turn in turns(self.seed):
                await self._turn(turn)
                self.turns = turn.number
                in_time = time.monotonic() < until or turn.number < turns_min
                if turn.number >= turns_max or not in_time:
                    break
                if not self.verdict.is_clean:
                    return
            await self._end(turn.now_ms + END_MS)
        finally:
            await self._tear_down()

    def figures(self) -> dict[str, Any]:
        """What is printed, but for the run's own time."""
        counts = self._record.counts
        kills = {name: self._kills[name] for name in MAIN}
        return {
            "seed": self.seed,
            "operations": counts["posted"] + counts["duplicates"] + counts["refused"],
            "kills": {
                **{name: self._servers.kills[name] for name in ("redis", "replica")},
                **kills,
            },
            "duplicates_suppressed": counts["duplicates"],
            "unknown_resolved": counts["unknown_resolved"],
            **self.verdict.figures(),
            "turns": self.turns,
            "entries": self._audit.checker.seq,
            "kinds": dict(self._audit.checker.kinds),
            "unknown": counts["unknown"],
            "unknown_left": len(self._record.unknown),
            "trimmed_entries": self._trimmed,
            "spooled": counts["spooled"],
            "refused": counts["refused"],
            "faults": dict(self._strikes.counts),
            "failovers": self._strikes.failovers,
            "truncated_bytes": self._strikes.truncated_bytes,
        }

    async def _set_up(self) -> None:
        await self._servers.start()
        for door in self._doors.values():
            door.point_to(self._servers.primary.socket)
            await door.open()
        await self._raise_the_dead()

    async def _tear_down(self) -> None:
        for actor in self._actors.values():
            actor.kill()
        for door in self._doors.values():
            await door.close()
        self._servers.stop()

    async def _turn(self, turn: Turn) -> None:
        began, operations = time.monotonic(), self._record.counts["posted"]
        await self._set_replicas(turn.replicas)
        self._record.issue(turn.flows)
        flows = (*turn.flows, *self._record.refused_for_funds())
        await self._raise_the_dead()
        truncations = [fault for fault in turn.faults if fault.kind is Kind.TRUNCATION]
        if truncations:
            await self._truncate(turn, flows, truncations[0].fraction)
        else:
            await self._struck(turn, flows)
        await self._repair(turn, flows)
        if turn.thorough:
            await self._catch_up(turn.now_ms)
        await self._look()
        took, posted = time.monotonic() - began, self._record.counts["posted"] - operations
        kinds = " ".join(f"{fault.kind}@{fault.actor}" for fault in turn.faults)
        say(f"turn {turn.number}: {posted} posted, {took:.2f} s; {kinds}")

    async def _struck(self, turn: Turn, flows: Sequence[Flow]) -> None:
        """Everybody works while the faults strike."""
        deaths = {f.actor: f.at for f in turn.faults if f.kind is Kind.ACTOR_STEP}
        commands = {
            name: Perform(
                turn.now_ms, TRIES, deaths.get(name, 0), tuple(flows) if name == POSTER else ()
            )
            for name in self._actors
        }
        async with self._strikes.during(turn.faults):
            await self._all_perform(commands)

    async def _truncate(self, turn: Turn, flows: Sequence[Flow], fraction: float) -> None:
        """Posts that nobody is told of are cut off the end of the append-only file."""
        tail = await self._servers.note_tail()
        for door in self._doors.values():
            door.silent = True
        commands = {
            POSTER: Perform(turn.now_ms, TRIES, flows=tuple(flows)),
            WORKER: Perform(turn.now_ms, TRIES),
        }
        working = asyncio.create_task(self._all_perform(commands))
        await self._servers.grown(tail)
        await asyncio.sleep(TAIL_SECONDS)
        self._strikes.counts[Kind.TRUNCATION] += 1
        self._strikes.truncated_bytes += self._servers.truncate(tail, fraction)
        for door in self._doors.values():
            door.cut()  # before a reply passes again: what is lost must not have been heard of
            door.silent = False
        await self._servers.revive()
        await working

    async def _repair(self, turn: Turn, flows: Iterable[Flow]) -> None:
        """Send again whatever has no answer, under the same keys, until everything has one."""
        await self._raise_the_dead()
        for _ in range(ROUNDS_MAX):
            left = [flow for flow in flows if not self._record.is_answered(flow)]
            waiting = await self._perform(
                POSTER, Perform(turn.now_ms, PATIENT_TRIES, flows=tuple(left))
            )
            if not waiting.get("waiting") and not any(
                not self._record.is_answered(flow) for flow in left
            ):
                break
        else:
            self.verdict.note(f"unanswered: {left[:3]} and {waiting}")
        for key in self._record.not_posted(flows):
            self.verdict.note(f"refused: {self._record.refused.get(key, key)}")

    async def _catch_up(self, now_ms: int) -> None:
        """Everything is settled and exported, and the bookkeeper finds nothing."""
        for _ in range(ROUNDS_MAX):  # a new life of the worker finds the jobs of the one before
            await self._perform(WORKER, Open(self._doors[WORKER].url, self._replicas))
            done = await self._perform(WORKER, Perform(now_ms, PATIENT_TRIES))
            if not any(done.values()):
                break
        for name in self._actors:
            if name not in (POSTER, WORKER):
                await self._perform(name, Perform(now_ms, PATIENT_TRIES))

    async def _look(self) -> None:
        if self._replicas:
            await self._servers.replicated()
        await self._audit.after_turn(self._servers.primary.server.url)

    async def _end(self, now_ms: int) -> None:
        await self._catch_up(now_ms)
        await self._perform(EXPORTER, Perform(now_ms, PATIENT_TRIES))
        await self._look()
        await self._audit.at_the_end(self._servers.primary.server.url)

    async def _set_replicas(self, replicas: int) -> None:
        """Attach or take off the replica; everybody connects anew, asking for it or not."""
        if replicas == self._replicas:
            return
        self._replicas = replicas
        if replicas:
            await self._servers.attach_replica()
        else:
            await self._servers.detach_replica()
        await self._raise_the_dead()
        await self._all_perform(self._openings(self._actors))

    async def _raise_the_dead(self) -> None:
        """Start a new process for every actor that has ended."""
        for _ in range(STARTS_MAX):
            dead = [name for name, actor in self._actors.items() if not actor.is_alive]
            if not dead:
                return
            for name in dead:
                self._actors[name].start()
            await self._all_perform(self._openings(dead))
        raise CannotGoOn(f"these do not start: {dead}; {self.verdict.said}")

    def _openings(self, names: Iterable[str]) -> dict[str, Open]:
        return {name: Open(self._doors[name].url, self._replicas) for name in names}

    async def _all_perform(self, commands: Mapping[str, Open | Perform]) -> None:
        await asyncio.gather(*(self._perform(name, what) for name, what in commands.items()))

    async def _perform(self, name: str, command: Open | Perform) -> dict[str, int]:
        """Have an actor do something; its death is counted, and buried."""
        actor = self._actors[name]
        try:
            counts = await actor.perform(command, seconds_max=COMMAND_SECONDS_MAX)
        except ActorDied:
            code = actor.exit_code()
            if code == SIGKILLED:
                self._kills[name] += 1
            else:
                self.verdict.note(f"the {name} ended by itself with {code}")
        except TimeoutError:
            self.verdict.note(f"the {name} was not done within {COMMAND_SECONDS_MAX} s")
            actor.kill()
        else:
            self._trimmed = max(self._trimmed, counts.get("trimmed", 0))
            return counts
        return {}

    def _hear(self, name: str, report: Report) -> None:
        match report:
            case Acknowledged():
                self._record.note_acknowledged(report)
            case Spooled():
                self._record.note_spooled(report)
            case Refused():
                self._record.note_refused(report)
            case Unknown():
                self._record.note_unknown(report)
            case Wrong(text):
                self.verdict.note(f"the {name}: {text}")
            case Ended():
                raise AssertionError("an end is no report")


def say(text: str) -> None:
    """Progress, beside the figures."""
    print(text, file=sys.stderr, flush=True)
