"""Nothing that `byline up` started outlives it, however it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from byline.command.programs import Program, python_env
from byline.command.tree import Tree, require_free_port
from byline.errors import StartFailed

# A program with a grandchild that ignores SIGTERM and has left its parent's session.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) == 1:
    subprocess.Popen([sys.executable, __file__, "grandchild"], start_new_session=True)
time.sleep(600)
"""

UP = """
import sys, time
from pathlib import Path
from byline.command.programs import Program
from byline.command.tree import Tree
tree = Tree(Path(sys.argv[1]), grace_seconds=1.0)
tree.start(Program("stubborn", [sys.executable, sys.argv[2]], {}, None, 5.0))
time.sleep(600)
"""


def processes_of(script: Path) -> list[psutil.Process]:
    processes = psutil.process_iter(["cmdline"])
    return [process for process in processes if str(script) in (process.info["cmdline"] or [])]


def wait_for(count: int, script: Path, seconds: float = 15.0) -> list[psutil.Process]:
    deadline = time.monotonic() + seconds
    while len(processes_of(script)) != count and time.monotonic() < deadline:
        time.sleep(0.05)
    return processes_of(script)


@pytest.fixture
def stubborn(tmp_path: Path) -> Path:
    script = tmp_path / "stubborn.py"
    script.write_text(STUBBORN)
    return script


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_up_leaves_no_grandchild(tmp_path: Path, stubborn: Path, how: int) -> None:
    up = tmp_path / "up.py"
    up.write_text(UP)
    process = subprocess.Popen(
        [sys.executable, str(up), str(tmp_path / "logs"), str(stubborn)], env=python_env({})
    )
    try:
        assert len([p for p in wait_for(3, stubborn) if str(up) not in p.cmdline()]) == 2
        process.send_signal(how)
        process.wait(5)
        assert wait_for(0, stubborn, seconds=60.0) == []
    finally:
        process.kill()
        for left in processes_of(stubborn):
            left.kill()


def test_a_program_that_stops_is_told_with_its_last_words(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "print('no such adapter'); raise SystemExit(3)"]
    with Tree(tmp_path) as tree:
        tree.start(Program("engine", argv, dict(os.environ), "http://127.0.0.1:9", 20.0))
        with pytest.raises(StartFailed, match=r"(?s)engine stopped with status 3.*no such adapter"):
            tree.wait_ready(Program("engine", argv, {}, "http://127.0.0.1:9", 20.0))


def test_a_taken_port_is_named_with_what_to_do() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartFailed, match=rf"port {port}.*--port"):
            require_free_port(port, "gateway")


def test_a_killed_guardian_takes_its_programs_along(tmp_path: Path) -> None:
    script = tmp_path / "sleeper.py"
    script.write_text("import time; time.sleep(600)")
    tree = Tree(tmp_path)
    tree.start(Program("sleeper", [sys.executable, str(script)], dict(os.environ), None, 5.0))
    assert len(wait_for(1, script)) == 1
    tree._guardian.kill()
    assert wait_for(0, script) == []
    with pytest.raises(StartFailed, match="guardian"):
        tree.wait_until_one_dies()
    tree.stop()
    assert json.dumps(tree.pids)
