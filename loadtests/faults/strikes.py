"""What goes wrong in a turn, as it happens: faults at doors, in processes and at the servers."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from byline.errors import LedgerUnavailable
from byline.ledger.ledger import Ledger
from loadtests.faults.cast import ActorProcess
from loadtests.faults.faults import AT_DOOR, Fault, Kind
from loadtests.faults.proxy import Door
from loadtests.faults.servers import Servers

LOOK_SECONDS = 0.03  # between two looks whether the server lives
NOWHERE = ("127.0.0.1", "1")  # nobody answers there: a replica that is cut off
SPARE_BYTES = 41  # times `at`: what a disk still takes before it is full
BEGIN_SECONDS_MAX = 0.3  # into the turn


class Strikes:
    """Carries out the faults of a turn, and keeps a server up behind the doors meanwhile."""

    def __init__(
        self, servers: Servers, doors: Mapping[str, Door], actors: Mapping[str, ActorProcess]
    ) -> None:
        self._servers = servers
        self._doors = doors
        self._actors = actors
        self._changing = asyncio.Lock()  # held while servers are started, killed for good or moved
        self._pairing = asyncio.Lock()  # held from a failover until there is a replica again
        self.counts: Counter[str] = Counter()
        self.failovers = 0
        self.truncated_bytes = 0

    @asynccontextmanager
    async def during(self, faults: Sequence[Fault]) -> AsyncIterator[None]:
        """The faults strike while the block runs; afterwards a server is up and nothing strikes."""
        for name, door in self._doors.items():
            door.arm([fault for fault in faults if fault.kind in AT_DOOR and fault.actor == name])
        timed = [asyncio.create_task(self._strike(f)) for f in faults if f.kind not in AT_DOOR]
        keeping_up = asyncio.create_task(self._keep_up())
        try:
            yield
            await asyncio.gather(*timed)
        finally:
            async with self._changing:
                keeping_up.cancel()
            for task in timed:
                task.cancel()
            await asyncio.gather(keeping_up, *timed, return_exceptions=True)
            await self.calm_down()

    async def calm_down(self) -> None:
        """Nothing strikes any more, and a server is up."""
        for door in self._doors.values():
            door.arm([])
            self.counts.update(door.struck)
            door.struck.clear()
        async with self._changing:
            self._servers.primary.send_signal(signal.SIGCONT)
            self._servers.free_disk()
            await self._servers.revive()
            self._lead_to_primary()
            self._servers.end_old()

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            async with self._changing:
                await self._servers.revive()

    async def _strike(self, fault: Fault) -> None:
        if fault.kind in (Kind.ACTOR_STEP, Kind.TRUNCATION):  # these come with the command itself
            return
        await asyncio.sleep(fault.fraction * BEGIN_SECONDS_MAX)
        self.counts[fault.kind] += 1
        match fault.kind:
            case Kind.ACTOR_TIME:
                self._actors[fault.actor].kill()
            case Kind.REDIS_TIME:
                async with self._changing:
                    self._servers.kill_primary()
            case Kind.REDIS_STOPPED:
                await self._stop_for_a_while(fault.seconds)
            case Kind.DISK_FULL:
                async with self._changing:
                    self._servers.fill_disk(fault.at * SPARE_BYTES)
            case Kind.FAILOVER | Kind.PARTITION | Kind.SPLIT:
                await self._fail_over(fault)
            case Kind.REPLICA_TIME:
                async with self._pairing:
                    await self._servers.restart_replica()

    async def _stop_for_a_while(self, seconds: float) -> None:
        primary = self._servers.primary
        primary.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        primary.send_signal(signal.SIGCONT)

    async def _fail_over(self, fault: Fault) -> None:
        """The replica takes over under a new epoch, and is given a replica itself.

        The old primary is killed, or lives on with one actor for a while: nothing that is posted
        there may count as confirmed.
        """
        async with self._pairing:
            if fault.kind is Kind.PARTITION:
                await self._cut_off(fault)
            async with self._changing:
                if fault.kind is not Kind.SPLIT:
                    self._servers.kill_primary()
                await self._servers.fail_over()
                await self._promote()
                for name, door in self._doors.items():
                    if fault.kind is not Kind.SPLIT or name != fault.actor:
                        door.point_to(self._servers.primary.socket)
            self.failovers += 1
            await self._servers.attach_replica()
            if fault.kind is Kind.SPLIT:
                await asyncio.sleep(fault.seconds)
                self._lead_to_primary()

    def _lead_to_primary(self) -> None:
        """Nobody is left with a primary that has been replaced."""
        for door in self._doors.values():
            if door.upstream != self._servers.primary.socket:
                door.point_to(self._servers.primary.socket)

    async def _promote(self) -> None:
        """Raise the epoch, though a fault at a door may kill the new primary meanwhile."""
        while True:
            await self._servers.revive()
            try:
                ledger = await Ledger.open(self._servers.primary.server.url)
                try:
                    await ledger.promote()
                finally:
                    await ledger.close()
            except LedgerUnavailable:
                continue
            return

    async def _cut_off(self, fault: Fault) -> None:
        """The replica hears nothing for a while; what is posted meanwhile is on one server alone.

        A stopped one still finds what came in; one that lost its primary never gets it.
        """
        replica = self._servers.replica
        assert replica is not None
        if fault.at % 3 == 0:
            replica.send_signal(signal.SIGSTOP)
        else:
            await replica.ask("REPLICAOF", *NOWHERE)
        await asyncio.sleep(fault.seconds)
