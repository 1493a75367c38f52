"""The guardian: a small process that owns every program of one `byline up`.

`byline up` talks to it over a pair of pipes, a JSON object a line. When the pipe closes, whatever
the reason (Ctrl-C, a crash, kill -9 of `byline up`), the guardian stops everything below it,
grandchildren too: it is their subreaper, so a process whose parent died still hangs below it. It
knows nothing of what the programs do.

    -> {"start": {"name", "argv", "env", "log"}}    <- {"started": name, "pid": n}
    -> {"stop": true}, or the pipe closes           <- {"exited": name, "status": n}
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import psutil

KILL_SECONDS = 20.0  # how long SIGKILL is repeated for what is slow to die
LOOK_SECONDS = 0.1
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def die_with_parent() -> None:
    """Between fork and exec: have the kernel kill this process when its parent dies."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Guardian:
    """Starts programs, says when one exits, stops them newest first."""

    def __init__(self, say: TextIO, grace_seconds: float) -> None:
        self._say = say
        self._grace_seconds = grace_seconds
        self._programs: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, argv: list[str], env: Mapping[str, str], log: str) -> None:
        """Start one program in a session of its own, its output appended to its log file."""
        with Path(log).open("ab") as output:
            program = subprocess.Popen(
                argv,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one thread here, and only a prctl
            )
        self._programs[name] = program
        self._tell({"started": name, "pid": program.pid})

    def look(self) -> None:
        """Tell of programs that have exited; reap orphans that were handed to this process."""
        for name, program in list(self._programs.items()):
            if program.poll() is not None:
                del self._programs[name]
                self._tell({"exited": name, "status": program.returncode})
        for child in psutil.Process().children():
            if child.pid not in {program.pid for program in self._programs.values()}:
                _reap(child)

    def stop(self) -> None:
        """SIGTERM each program, newest first, wait, then SIGKILL whatever is left below here."""
        for program in reversed(self._programs.values()):
            program.terminate()
            _wait(program, self._grace_seconds)
        deadline = time.monotonic() + KILL_SECONDS
        while time.monotonic() < deadline:
            below = psutil.Process().children(recursive=True)
            if not below:
                return
            for process in below:
                _kill(process)
                _reap(process)
            time.sleep(LOOK_SECONDS)

    def _tell(self, message: Mapping[str, Any]) -> None:
        try:
            self._say.write(json.dumps(message) + "\n")
            self._say.flush()
        except (BrokenPipeError, ValueError):
            pass  # nobody listens any more; the closed input pipe will end the loop


def _wait(program: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        program.wait(seconds)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def _reap(process: psutil.Process) -> None:
    try:
        if process.status() == psutil.STATUS_ZOMBIE and process.ppid() == os.getpid():
            os.waitpid(process.pid, os.WNOHANG)
    except (psutil.NoSuchProcess, ChildProcessError):
        pass


def serve(orders: TextIO, say: TextIO, grace_seconds: float) -> None:
    """Obey orders until told to stop or the pipe closes; then stop everything."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1)
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # Ctrl-C reaches `byline up`, which tells us
    guardian = Guardian(say, grace_seconds)
    try:
        while True:
            ready, _, _ = select.select([orders], [], [], LOOK_SECONDS)
            if ready:
                line = orders.readline()
                if not line or "stop" in (order := json.loads(line)):
                    return
                guardian.start(**order["start"])
            guardian.look()
    finally:
        guardian.stop()


def _raise_exit(*_: object) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _raise_exit)
    serve(sys.stdin, sys.stdout, grace_seconds=float(sys.argv[1]))
