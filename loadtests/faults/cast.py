"""The actors as the driver sees them: processes that are started, commanded, killed, replaced."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TypeAlias

from loadtests.faults.actors import bookkeeper, exporter, poster, worker
from loadtests.faults.actors.stage import Part
from loadtests.faults.messages import Command, Ended, Report
from loadtests.faults.plan import BOOKKEEPER, EXPORTER, POSTER, WORKER

MAIN = {
    POSTER: poster.main,
    WORKER: worker.main,
    EXPORTER: exporter.main,
    BOOKKEEPER: bookkeeper.main,
}
# Actors are forked from a process that has imported everything, so that a new one is there at once.
CONTEXT = multiprocessing.get_context("forkserver")
Hear: TypeAlias = Callable[[str, Report], None]


class ActorDied(Exception):
    """The actor's process ended in the midst of a command."""


class ActorProcess:
    """One actor; `hear` is told each report as soon as it arrives."""

    def __init__(self, name: str, part: Part, hear: Hear) -> None:
        self.name = name
        self._part = part
        self._hear = hear
        self._process: BaseProcess | None = None
        self._connection: Connection[Command, Report] | None = None
        self._ended: asyncio.Future[dict[str, int]] | None = None

    @property
    def is_alive(self) -> bool:
        """True from the start of a process until its end was noticed."""
        return self._connection is not None

    def start(self) -> None:
        """A new process. It finds what the one before has left in its folder."""
        self._part.folder.mkdir(parents=True, exist_ok=True)
        ours, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(
            target=MAIN[self.name], args=(theirs, self._part), daemon=True
        )
        self._process.start()
        theirs.close()
        self._connection = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._receive)

    async def perform(self, command: Command, *, seconds_max: float) -> dict[str, int]:
        """Have it carried out; answers its counts. Raises ActorDied, or TimeoutError."""
        assert self._connection is not None
        self._ended = asyncio.get_running_loop().create_future()
        try:
            self._connection.send(command)
        except OSError:
            self._bury()
        async with asyncio.timeout(seconds_max):
            return await self._ended

    def kill(self) -> None:
        """SIGKILL, wherever it is; what it has reported until now is still read."""
        if self._process is not None and self._process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    def exit_code(self) -> int | None:
        """How the last process ended; negative for a signal."""
        assert self._process is not None
        self._process.join(10)
        return self._process.exitcode

    def _receive(self) -> None:
        assert self._connection is not None
        try:
            while self._connection.poll():
                report = self._connection.recv()
                if isinstance(report, Ended):
                    self._end(report.counts)
                else:
                    self._hear(self.name, report)
        except (EOFError, OSError):
            self._bury()

    def _end(self, counts: dict[str, int]) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(counts)

    def _bury(self) -> None:
        if self._connection is not None:
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
            self._connection.close()
            self._connection = None
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(ActorDied(self.name))


def prepare() -> None:
    """Have the process that actors are forked from import what they need."""
    CONTEXT.set_forkserver_preload(["loadtests.faults.cast"])
