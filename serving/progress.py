"""How a long program tells its caller what it does: JSON lines on stdout, the result as the last.

Whatever a library prints goes to stderr, so that every line of stdout stays one JSON object.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TextIO, TypeAlias

from byline.canonical import Json

Report: TypeAlias = Callable[[str, int, int], None]
"""Says that `done` of `total` are finished of `what`."""


class JsonLines:
    """Writes progress and the result to one stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def progress(self, what: str, done: int, total: int) -> None:
        """`done` of `total` are finished of `what`."""
        self._write({"progress": {"what": what, "done": done, "total": total}})

    def result(self, result: Mapping[str, Json]) -> None:
        """The last line."""
        self._write({"result": result})

    def _write(self, line: Mapping[str, Json]) -> None:
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()


@contextlib.contextmanager
def json_lines() -> Iterator[JsonLines]:
    """The real stdout as `JsonLines`; meanwhile `print` anywhere goes to stderr."""
    stdout = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        yield JsonLines(stdout)


def no_report(_what: str, _done: int, _total: int) -> None:
    """A `Report` that says nothing."""
