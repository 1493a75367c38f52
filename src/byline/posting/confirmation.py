"""How a batch makes sure that it is on the replicas, and how a reader does."""

from collections.abc import Sequence
from typing import Any

from byline.limits import CONFIRM_SECONDS
from byline.posting.keys import Keys


class Confirmation:
    """A tiny write, then a wait until so many replicas have it.

    A server waits only for what the same connection wrote last, and a duplicate writes nothing:
    hence the write. Where the server can, the replicas' own files must be synced too.
    """

    def __init__(self, keys: Keys, replicas: int, *, timeout_seconds: float) -> None:
        self.replicas = replicas
        self._write = ("SET", keys.pulse, "1")
        # All waiting ends well before the connection itself is given up.
        self._wait_ms = int(1000 * min(CONFIRM_SECONDS, timeout_seconds / 2))

    def commands(self, *, has_waitaof: bool) -> list[tuple[str, ...]]:
        """What a batch ends with; nothing where no replica is asked for."""
        if not self.replicas:
            return []
        wanted = str(self.replicas)
        if not has_waitaof:
            return [self._write, ("WAIT", wanted, str(self._wait_ms))]
        # A replica that is asked in the same breath as it is given the write answers before it has
        # synced, and then only after a second: asked once it has received, it has synced, too.
        each_ms = str(self._wait_ms // 2)
        return [self._write, ("WAIT", wanted, each_ms), ("WAITAOF", "1", wanted, each_ms)]

    def found(self, replies: Sequence[Any]) -> int | None:
        """How many replicas have it by the replies; None if they answer something else."""
        match list(replies):
            case ["OK", int(replicas)]:
                return replicas
            case ["OK", int(), [int(local), int(replicas)]]:
                return replicas if local else 0
            case _:
                return None
