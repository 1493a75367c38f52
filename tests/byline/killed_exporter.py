"""Exports in one process after the other; each kills itself by SIGKILL after so many steps.

They are forked off one that has loaded everything, so that hundreds of them take seconds. Prints
how many were killed; ends when one had nothing left to export.
"""

import asyncio
import os
import signal
import sys

from byline.archive.database import Archive
from byline.archive.exporter import Exporter
from byline.ledger.ledger import Ledger

STEPS = 8  # that a page has, from `read` to `noted`
PROCESSES_MAX = 500


async def export(redis_url: str, archive_url: str, name: str, steps: int) -> None:
    """Export until there is nothing left, or until the step after which it dies."""
    left = steps

    def die_in_time(_: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    archive = Archive.open(archive_url)
    ledger = await Ledger.open(redis_url, name=name)
    exporter = Exporter(ledger, archive, name=name, step=die_in_time, entries_max=9)
    while await exporter.once():
        pass
    await ledger.close()
    archive.close()


def ends_by_itself(redis_url: str, archive_url: str, name: str, steps: int) -> bool:
    """Run one exporter in a process of its own; False if it was killed."""
    process = os.fork()
    if process == 0:
        asyncio.run(export(redis_url, archive_url, name, steps))
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status in (0, -signal.SIGKILL), f"an exporter ended with {status}"
    return status == 0


if __name__ == "__main__":
    redis_url, archive_url, name = sys.argv[1:]
    kills = 0
    while not ends_by_itself(redis_url, archive_url, name, kills % STEPS + 1):
        kills += 1
        assert kills < PROCESSES_MAX
    print(kills)
