"""What every actor does alike: take commands from its pipe, report, and die where it is told to."""

import asyncio
import logging
import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import uvloop

from byline.errors import LedgerUnavailable
from byline.ledger.ledger import Ledger
from byline.posting import scripts
from loadtests.faults.messages import Command, Ended, Open, Perform, Report, Wrong

# An actor gives a reply up after this long; a stall lasts longer.
PATIENCE_SECONDS = 0.5
PAUSE_SECONDS = 0.04  # between two tries of one operation
OPEN_TRIES = 100
IDLE_ROUNDS = 6  # of looking for more to do, while the others are still at it
UNCONFIRMED = "no confirmation by replicas"


@dataclass(frozen=True, slots=True)
class Part:
    """What an actor is given when it is started."""

    folder: Path  # of the run, and then its own; what an earlier process of it left is there
    seed: int
    scripts: Path | None = None  # of the ledger; None: the real ones
    defect: str = ""  # what a mutant does wrong; nothing in an honest run

    def of(self, name: str) -> "Part":
        """The part of the actor of that name."""
        return replace(self, folder=self.folder / name)


class Actor(Protocol):
    """One process that talks to the ledger."""

    async def open(self, command: Open) -> None:
        """Connect; an earlier connection is given up."""

    async def perform(self, command: Perform) -> dict[str, int]:
        """Carry a command out; answers what is worth counting."""


class Stage:
    """What an actor acts on: its part, its way to report, and its end."""

    def __init__(self, connection: "Connection[Any, Any]", part: Part) -> None:
        self.part = part
        self.tries = 1
        self._connection = connection
        self._steps_left = 0

    def report(self, report: Report) -> None:
        """Tell the driver; when this returns the pipe has it, whatever becomes of this process."""
        self._connection.send(report)

    def begin(self, command: Perform) -> None:
        """Set how patient this process is, and its end if it has one."""
        self._steps_left = command.die_at_step
        self.tries = command.tries

    def step(self, _name: str = "") -> None:
        """Stand between two steps with effects outside: here the process may be killed."""
        self._steps_left -= 1
        if self._steps_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def act(connection: "Connection[Any, Any]", part: Part, actor_on: Callable[[Stage], Actor]) -> None:
    """Carry out commands until the pipe is closed. Runs in the actor's own process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver ends it
    if part.scripts is not None:
        scripts.SCRIPTS = part.scripts
    logging.basicConfig(filename=part.folder / "actor.log", level=logging.WARNING)
    stage = Stage(connection, part)
    try:
        uvloop.run(_act(connection, stage, actor_on(stage)))
    except BaseException as problem:
        logging.exception("the actor ends")
        stage.report(Wrong("".join(traceback.format_exception_only(problem)).strip()))
        raise SystemExit(1) from problem


async def _act(connection: "Connection[Any, Any]", stage: Stage, actor: Actor) -> None:
    while True:
        try:
            command: Command = await asyncio.to_thread(connection.recv)
        except EOFError:
            return
        if isinstance(command, Open):
            await actor.open(command)
            stage.report(Ended({}))
        else:
            stage.begin(command)
            stage.report(Ended(await actor.perform(command)))


async def opened(command: Open, part: Part) -> Ledger:
    """The ledger through the actor's door; waits for a server that is being started."""
    replicas = 0 if part.defect == UNCONFIRMED else command.replicas
    for tries_left in reversed(range(OPEN_TRIES)):
        try:
            return await Ledger.open(
                command.url, timeout_seconds=PATIENCE_SECONDS, replicas=replicas
            )
        except LedgerUnavailable:
            if not tries_left:
                raise
            await asyncio.sleep(PAUSE_SECONDS)
    raise AssertionError("unreachable")


def archive_url(folder: Path) -> str:
    """Where the archive lies, beside the actors' own folders."""
    return f"sqlite:///{folder.parent / 'archive.sqlite'}"
