"""The gateways of one comparison as they run: started on one core, asked, and measured there."""

import contextlib
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from loadtests.gateway_bench.peers import Command
from loadtests.gateway_bench.wrk import Question

READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 20.0
ADDRESS = re.compile(r"^ADDRESS (\S+)$", re.MULTILINE)
PROMPT = "What helps against a cold, and what does not help at all? Answer in one short sentence."


class NotStarted(Exception):
    """A gateway did not start, or does not answer."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """One gateway that takes questions. The upstream itself is one without a process."""

    name: str
    url: str
    command: Command
    process: psutil.Process | None

    def plain(self) -> Question:
        """A question whose answer comes whole."""
        return self._question(stream="", prompt=PROMPT)

    def burst(self) -> Question:
        """A question whose 200 chunks come at once."""
        return self._question(stream='"stream": true, ', prompt=PROMPT)

    def paced(self) -> Question:
        """A question whose chunks come one by one."""
        return self._question(stream='"stream": true, ', prompt=f"paced: {PROMPT}")

    def _question(self, *, stream: str, prompt: str) -> Question:
        body = (
            f'{{"model": "{self.command.model}", {stream}"max_tokens": 256, '
            f'"messages": [{{"role": "user", "content": "{prompt}"}}]}}'
        )
        return Question(self.url, self.command.path, self.command.headers, body)

    def resident_bytes(self) -> int | None:
        """The memory of its process and of every child's."""
        if self.process is None:
            return None
        return sum(each.memory_info().rss for each in _tree(self.process))

    def cpu_seconds(self) -> float | None:
        """What its process and its children have used so far."""
        if self.process is None:
            return None
        times = [each.cpu_times() for each in _tree(self.process)]
        return sum(each.user + each.system for each in times)


def _tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def spawn(argv: list[str], env: Mapping[str, str], core: int, log: Path) -> "subprocess.Popen[str]":
    """A program on one core; what it says goes to a file."""
    with log.open("w") as output:
        return subprocess.Popen(
            ["taskset", "-c", str(core), *argv],
            env={**os.environ, **env}, stdout=output, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


@contextlib.contextmanager
def running(
    name: str, command: Command, *, port: int, core: int, folder: Path
) -> Iterator[Entrant]:
    """A gateway that answers, as long as the block. Raises NotStarted with the end of its log."""
    log = folder / f"{name}.log"
    process = spawn(command.argv, command.env, core, log)
    try:
        deadline = time.monotonic() + READY_SECONDS_MAX
        while True:
            url = _address(log) if command.says_address else f"http://127.0.0.1:{port}"
            if url is not None:
                entrant = Entrant(name, url, command, psutil.Process(process.pid))
                if answers(entrant.plain()):
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotStarted(f"{name} does not answer: {log.read_text()[-300:].strip()}")
            time.sleep(0.1)
        yield entrant
    finally:
        stop(process)


def _address(log: Path) -> str | None:
    found = ADDRESS.search(log.read_text())
    return found[1].rstrip("/") if found else None


def answers(question: Question) -> bool:
    """True when the question is answered with an answer."""
    request = urllib.request.Request(
        question.url + question.path, question.body.encode(),
        {"content-type": "application/json", **question.headers},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return b'"choices"' in response.read()
    except (OSError, urllib.error.URLError):
        return False


def stop(process: "subprocess.Popen[str]") -> int:
    """End a program as an operator would; kill it, and its children, if that takes too long."""
    children = (
        psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    )
    process.terminate()
    try:
        return process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
    finally:
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
