"""The Redis servers of a run: started, killed, stopped, cut short, filled up, and failed over."""

import asyncio
import os
import resource
import shutil
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from byline.errors import LedgerError, StartFailed
from byline.posting.redis_client import Client, answering, connect
from byline.redis_server import RedisServer

SETTINGS = {
    "repl-diskless-sync-delay": "0",
    "auto-aof-rewrite-min-size": "4mb",  # rewrites happen now and then during a run
    "auto-aof-rewrite-percentage": "100",
}
PORTS = range(12_000, 19_000)
WAIT_SECONDS = 20.0
POLL_SECONDS = 0.01
GROW_SECONDS_MAX = 1.0


class Node:
    """One server, with its folder; its process comes and goes."""

    def __init__(self, server: RedisServer) -> None:
        assert server.unix_socket is not None
        self.server = server
        self.socket: Path = server.unix_socket
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """True unless the process has ended."""
        return self.process is not None and self.process.poll() is None

    async def start(self) -> None:
        """Start it and wait until it has read its files."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        self.process = await asyncio.to_thread(self.server.start)
        for setting, value in SETTINGS.items():
            await self.ask("CONFIG", "SET", setting, value)

    def send_signal(self, number: signal.Signals) -> None:
        """SIGKILL, SIGSTOP or SIGCONT."""
        if self.process is not None:
            self.process.send_signal(number)

    async def ask(self, *command: str) -> Client:
        """One command, not through any door; whatever the server answers."""
        client = connect(self.server.url)
        try:
            with answering(f"ask {command[0]}"):
                return await client.execute_command(*command)
        finally:
            await client.aclose()

    async def info(self, section: str) -> dict[str, Any]:
        """One section of INFO."""
        found: dict[str, Any] = await self.ask("INFO", section)
        return found

    def newest_file(self) -> Path:
        """The append-only file that is written to."""
        files = (self.server.folder / "appendonlydir").glob("*.incr.aof")
        return max(files, key=lambda path: int(path.name.split(".")[-3]))


@dataclass(slots=True)
class Tail:
    """An append-only file and how much of it was there when everything in it was acknowledged."""

    path: Path
    size: int

    async def has_grown(self) -> bool:
        """True when there is more of it now."""
        return self.path.stat().st_size > self.size


class Servers:
    """The primary, and its replica where there is one. Counts what is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0
        self.kills: Counter[str] = Counter()
        self.primary = self._new_node()
        self.replica: Node | None = None
        self._old: list[Node] = []  # replaced primaries that still run

    async def start(self) -> None:
        """Start the first primary."""
        await self.primary.start()

    def stop(self) -> None:
        """End all there is."""
        for node in (self.primary, self.replica, *self._old):
            if node is not None:
                self._end(node)

    def kill_primary(self) -> None:
        """SIGKILL at this very moment."""
        if self.primary.is_running:
            self.primary.send_signal(signal.SIGKILL)
            self.kills["redis"] += 1

    async def revive(self) -> bool:
        """Start the primary again if it has ended; True where it had."""
        if self.primary.is_running:
            return False
        await self.primary.start()
        return True

    async def attach_replica(self) -> None:
        """A new replica with an empty folder; returns when it has everything."""
        replica = self._new_node()
        self.replica = replica
        await replica.start()
        await self._follow(replica)
        await self.replicated()

    async def replicated(self) -> None:
        """Wait until the replica has all that the primary has had when it was asked."""
        replica = self.replica
        assert replica is not None
        await _until(lambda: self._is_level(replica), WAIT_SECONDS)

    async def detach_replica(self) -> None:
        """Take the replica off and delete what it has."""
        replica, self.replica = self.replica, None
        if replica is not None:
            self._end(replica)
            shutil.rmtree(replica.server.folder)

    async def fail_over(self) -> None:
        """The replica becomes the primary; the old primary, if it still runs, does not know."""
        replica = self.replica
        assert replica is not None
        replica.send_signal(signal.SIGCONT)
        await replica.ask("REPLICAOF", "NO", "ONE")
        self._old.append(self.primary)
        self.primary, self.replica = replica, None

    def end_old(self) -> None:
        """End every primary that has been replaced."""
        for node in self._old:
            self._end(node)
            shutil.rmtree(node.server.folder)
        self._old.clear()

    async def restart_replica(self) -> None:
        """Kill the replica and start it again on what it has."""
        replica = self.replica
        assert replica is not None
        assert replica.process is not None
        replica.send_signal(signal.SIGKILL)
        replica.process.wait()
        self.kills["replica"] += 1
        await replica.start()
        await self._follow(replica)

    async def note_tail(self) -> Tail:
        """Where the append-only file ends now; it is not rewritten until the primary restarts."""
        await self.primary.ask("CONFIG", "SET", "auto-aof-rewrite-percentage", "0")
        await _until(self._is_at_rest, WAIT_SECONDS)
        path = self.primary.newest_file()
        return Tail(path, path.stat().st_size)

    async def grown(self, tail: Tail) -> None:
        """Wait until something is written behind `tail`, but not for ever."""
        with suppress(TimeoutError):
            await _until(tail.has_grown, GROW_SECONDS_MAX)

    def truncate(self, tail: Tail, fraction: float) -> int:
        """Kill the primary and cut its file somewhere behind `tail`; answers how many bytes."""
        self.kill_primary()
        assert self.primary.process is not None
        self.primary.process.wait()
        size = tail.path.stat().st_size
        kept = tail.size + int((size - tail.size) * fraction)
        os.truncate(tail.path, kept)
        return size - kept

    def fill_disk(self, spare_bytes: int) -> None:
        """Let the primary's files grow by so many bytes and no more, until it is started anew."""
        process = self.primary.process
        assert process is not None
        limit = self.primary.newest_file().stat().st_size + spare_bytes
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def free_disk(self) -> None:
        """Lift the limit, should the server have lived through it."""
        process = self.primary.process
        if process is not None and process.poll() is None:
            unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)

    def _new_node(self) -> Node:
        self._made += 1
        folder = self._folder / f"redis-{self._made}"
        return Node(RedisServer(folder, port=_free_port(), unix_socket=folder.with_suffix(".sock")))

    def _end(self, node: Node) -> None:
        if node.process is not None:
            node.process.kill()
            node.process.wait()

    async def _follow(self, replica: Node) -> None:
        await replica.ask("REPLICAOF", "127.0.0.1", str(self.primary.server.port))

    async def _is_at_rest(self) -> bool:
        facts = await self.primary.info("persistence")
        return not (facts["aof_rewrite_in_progress"] or facts["aof_rewrite_scheduled"])

    async def _is_level(self, replica: Node) -> bool:
        try:
            ours = await self.primary.info("replication")
            theirs = await replica.info("replication")
        except LedgerError:
            return False
        return bool(
            theirs.get("master_link_status") == "up"
            and theirs["slave_repl_offset"] >= ours["master_repl_offset"]
        )


async def _until(holds: Callable[[], Awaitable[bool]], seconds_max: float) -> None:
    """Look until it holds. Raises TimeoutError."""
    async with asyncio.timeout(seconds_max):
        while not await holds():  # noqa: ASYNC110 - a server's state: nobody tells of it
            await asyncio.sleep(POLL_SECONDS)


def _free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    for port in Random().sample(PORTS, 50):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise StartFailed("no free port for a Redis-protocol server")
