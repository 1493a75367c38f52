"""Notaries in one process after the other; each kills itself by SIGKILL after so many steps.

They are forked off one that has loaded everything, so that hundreds of them take seconds. Prints
how many were killed; ends when one had nothing left to log. What each left published is checked,
and its head kept in `heads`, one JSON text a line.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from byline.archive.database import Archive
from byline.ledger.ledger import Ledger
from byline.notary.folder import LogFolder
from byline.notary.log_keys import log_keys
from byline.notary.notary import Notary
from byline.notary.source import Source
from byline.notary.state import State, sole_notary
from tests.byline.logs import ORIGIN, published

STEPS = 9  # that a round has, from `read` to `noted`
PROCESSES_MAX = 1_000


async def notarise(redis_url: str, root: Path, name: str, steps: int) -> None:
    """Log until there is nothing left, or until the step after which it dies."""
    left = steps

    def die_in_time(_: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    private, openings = root / "notary" / "usd", root / "openings" / "usd"
    with sole_notary(private):
        archive = Archive.open(f"sqlite:///{root}/archive.sqlite")
        ledger = await Ledger.open(redis_url, name=name)
        state = State.open(openings, ORIGIN)
        notary = Notary(
            Source(ledger, archive, name), state, LogFolder(root / "log" / "usd"),
            log_keys(private, openings, ORIGIN), step=die_in_time,
        )  # fmt: skip
        while await notary.once(entries_max=2):
            pass
        state.close()
        await ledger.close()
        archive.close()


def ends_by_itself(redis_url: str, root: Path, name: str, steps: int) -> bool:
    """Run one notary in a process of its own; False if it was killed."""
    process = os.fork()
    if process == 0:
        asyncio.run(notarise(redis_url, root, name, steps))
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status in (0, -signal.SIGKILL), f"a notary ended with {status}"
    folder = LogFolder(root / "log" / "usd")
    if (checkpoint := folder.checkpoint()) is not None:
        published(folder)
        with (root / "heads").open("a") as heads:
            heads.write(json.dumps(checkpoint) + "\n")
    return status == 0


if __name__ == "__main__":
    redis_url, root, name = sys.argv[1:]
    kills = 0
    while not ends_by_itself(redis_url, Path(root), name, kills % STEPS + 1):
        kills += 1
        assert kills < PROCESSES_MAX
    print(kills)
