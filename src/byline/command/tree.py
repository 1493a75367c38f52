"""`byline up`'s side of the guardian: starts programs, waits until they are ready, stops them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

from byline.command.programs import Program, python_env
from byline.errors import StartFailed

LOG_TAIL_BYTES = 3_000
GRACE_SECONDS = 20.0  # a program has this long to drain its answers and flush its captures
STOP_SECONDS = 90.0
SPAWN_SECONDS = 30.0


class Tree:
    """The running programs, owned by a guardian that outlives a kill -9 of this process."""

    def __init__(self, logs: Path, *, grace_seconds: float = GRACE_SECONDS) -> None:
        self._logs = logs
        self.pids: dict[str, int] = {}
        self.exited: dict[str, int] = {}
        self._changed = threading.Condition()
        logs.mkdir(parents=True, exist_ok=True)
        self._guardian = subprocess.Popen(
            [sys.executable, "-m", "byline.command.guardian", str(grace_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=python_env({}),
            start_new_session=True,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> "Tree":
        """Nothing more to do."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Stop everything."""
        self.stop()

    def start(self, program: Program) -> None:
        """Start one program; its output goes to `<logs>/<name>.log`."""
        log = self._logs / f"{program.name}.log"
        log.write_bytes(b"")
        order = {
            "name": program.name,
            "argv": program.argv,
            "env": dict(program.env),
            "log": str(log.resolve()),
        }
        assert self._guardian.stdin is not None
        try:
            self._guardian.stdin.write(json.dumps({"start": order}) + "\n")
            self._guardian.stdin.flush()
        except BrokenPipeError as problem:
            raise StartFailed(f"the guardian died while starting {program.name}") from problem
        with self._changed:
            known = self._changed.wait_for(
                lambda: program.name in self.pids or program.name in self.exited, SPAWN_SECONDS
            )
        if not known:
            raise StartFailed(f"{program.name} could not be started: no word from the guardian")

    def wait_ready(self, program: Program) -> None:
        """Return once the program answers; else StartFailed with its last words."""
        deadline = time.monotonic() + program.ready_seconds
        while time.monotonic() < deadline:
            self.raise_if_one_died()
            if program.ready_url is None or answers(program.ready_url):
                return
            time.sleep(0.25)
        raise StartFailed(
            f"{program.name} was not ready within {program.ready_seconds:.0f} s.\n"
            f"{self._last_words(program.name)}"
        )

    def raise_if_one_died(self) -> None:
        """Raise StartFailed if any program, or the guardian, is gone."""
        for name, status in self.exited.items():
            raise StartFailed(
                f"{name} stopped with status {status}.\n{self._last_words(name)}\n"
                f"The whole log is {self._logs / name}.log"
            )
        if self._guardian.poll() is not None:
            raise StartFailed("the guardian process is gone; everything was stopped")

    def wait_until_one_dies(self) -> None:
        """Block while everything runs."""
        with self._changed:
            while not self.exited and self._guardian.poll() is None:
                self._changed.wait(1.0)
        self.raise_if_one_died()

    def stop(self) -> None:
        """Stop every program and the guardian; at the end nothing of the tree is left."""
        if self._guardian.stdin is not None and not self._guardian.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._guardian.stdin.close()  # the guardian takes a closed pipe for an order
        try:
            self._guardian.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._guardian.kill()
        self._listener.join(STOP_SECONDS)
        if self._guardian.stdout is not None:
            self._guardian.stdout.close()
        if self._guardian.returncode == 0:
            return
        for pid in self.pids.values():  # the guardian itself was killed: end the sessions it made
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)

    def _listen(self) -> None:
        assert self._guardian.stdout is not None
        for line in self._guardian.stdout:
            message = json.loads(line)
            with self._changed:
                if "started" in message:
                    self.pids[message["started"]] = message["pid"]
                elif "exited" in message:
                    self.exited[message["exited"]] = message["status"]
                    self.pids.pop(message["exited"], None)
                self._changed.notify_all()

    def _last_words(self, name: str) -> str:
        try:
            data = (self._logs / f"{name}.log").read_bytes()[-LOG_TAIL_BYTES:]
        except OSError:
            return "(it left no log)"
        return data.decode("utf-8", "replace").strip() or "(its log is empty)"


def answers(url: str) -> bool:
    """True if a GET of the loopback URL is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2.0) as response:  # noqa: S310 - loopback http
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def require_free_port(port: int, what: str) -> None:
    """Raise StartFailed, naming the taker where it can be seen, if the loopback port is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as problem:
            raise StartFailed(
                f"port {port}, wanted for the {what}, is taken ({problem.strerror}). "
                "Stop what uses it, or choose others with `byline up --port N` (uses N to N+6)."
            ) from problem
