"""Load by `wrk`: so many connections, each asking again when it has its answer."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TOOL = "wrk"
QUIET_SECONDS_MIN, SECONDS_MAX = 0.5, 10.0
TIMEOUT_SECONDS = 30
SCRIPT = """
local ffi = require("ffi")
ffi.cdef[[typedef struct {{ long s; long ns; }} moment; int clock_gettime(int, moment *);]]
local now = ffi.new("moment")
local function seconds()
  ffi.C.clock_gettime(1, now)
  return tonumber(now.s) + tonumber(now.ns) / 1e9
end
local last
wrk.method = "POST"
wrk.path = {path}
wrk.body = {body}
{headers}
function delay()
  if not last then last = seconds() + {asking} end
  if seconds() < last then return 0 end
  return 1000000
end
function done(summary, latency, requests)
  io.write(string.format(
    'RESULT {{"requests":%d,"bytes":%d,"p50_us":%d,"p99_us":%d,"failures":%d}}\\n',
    summary.requests, summary.bytes, latency:percentile(50), latency:percentile(99),
    summary.errors.connect + summary.errors.read + summary.errors.write +
    summary.errors.status + summary.errors.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Question:
    """One request, as often as it is asked."""

    url: str  # scheme, host and port
    path: str
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True, slots=True)
class Times:
    """How long is asked, and how long only waited for what was asked.

    An answer that was cut off would be on a gateway's books and in no count.
    """

    asking: float
    quiet: float

    @classmethod
    def enough(cls, seconds: float, *, connections: int, one_answer: float) -> "Times":
        """`seconds`, but more for a gateway that takes long: each connection is answered thrice.

        `one_answer` is how long it takes alone; the gateway's core gives one after the other.
        """
        turn = connections * one_answer
        return cls(
            min(max(seconds, 3 * turn), max(seconds, SECONDS_MAX)),
            min(max(QUIET_SECONDS_MIN, 2 * turn), SECONDS_MAX),
        )

    @property
    def whole_seconds(self) -> int:
        """The tool counts in whole seconds."""
        return -int(-(self.asking + self.quiet) // 1)


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of the tool saw."""

    seconds: float  # while it asked
    connections: int
    requests: int
    bytes: int
    p50_ms: float
    p99_ms: float
    failures: int

    @property
    def rate(self) -> float:
        """Answers a second while it asked: each connection's last one came after that."""
        return max(self.requests - self.connections, 0) / self.seconds


def tool() -> str | None:
    """Where it is; None: not installed."""
    return shutil.which(TOOL)


def script_of(question: Question, seconds: float) -> str:
    """The tool's Lua script: what is asked, and for how long."""
    headers = {"content-type": "application/json", **question.headers}
    return SCRIPT.format(
        path=_quoted(question.path),
        body=_quoted(question.body),
        headers="\n".join(
            f"wrk.headers[ {_quoted(k)} ] = {_quoted(v)}" for k, v in headers.items()
        ),
        asking=seconds,
    )


def _quoted(text: str) -> str:
    assert "]==]" not in text
    return f"[==[{text}]==]"


def run(question: Question, times: Times, *, connections: int, folder: Path) -> Load:
    """Ask for so long; the slowest answer is waited for."""
    script = folder / "load.lua"
    script.write_text(script_of(question, times.asking))
    wrk = tool()
    assert wrk is not None
    done = subprocess.run(
        [
            wrk, "-t1", f"-c{connections}", f"-d{times.whole_seconds}s",
            f"--timeout={TIMEOUT_SECONDS}s", "-s", str(script), question.url,
        ],
        check=True, capture_output=True, text=True, timeout=times.whole_seconds + 60,
    )  # fmt: skip
    return load_of(done.stdout, connections, times.asking)


def load_of(output: str, connections: int, seconds: float) -> Load:
    """What the tool's last words say."""
    line = next(line for line in output.splitlines() if line.startswith("RESULT "))
    said = json.loads(line.removeprefix("RESULT "))
    return Load(
        seconds=seconds,
        connections=connections,
        requests=said["requests"],
        bytes=said["bytes"],
        p50_ms=said["p50_us"] / 1e3,
        p99_ms=said["p99_us"] / 1e3,
        failures=said["failures"],
    )
