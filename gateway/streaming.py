"""Server-sent events on their way through: whole events pass on as the bytes they came in.

Three kinds are looked at: `[DONE]`, held back until the charge is kept; the usage chunk,
withheld from a client that did not ask for it; and an error, which ends the answer.
"""

import json
import re

from byline.errors import EngineBroke, EngineError
from gateway.answers import DONE
from gateway.engine_client import error_in

# Bytes of which every special event has some: what is without them is not looked at further.
MARKS = (DONE, b'"choices":[]', b'"choices": []', b'{"error"', b'{ "error"')
# Inside a JSON string a quote is escaped, so that no answer's text can look like one of these.
SPECIAL = re.compile(rb'^data: ?(?:\[DONE\]|\{ ?"error")|"choices": ?\[\]', re.MULTILINE)
BOUNDARY = re.compile(rb"(?<=\n\n)|(?<=\r\n\r\n)")
UNREADABLE = "The engine sent an event that can't be read."
DATA = re.compile(rb"^data: ?(.*?)\r?$", re.MULTILINE)


class Tape:
    """One streamed answer: takes the engine's bytes, gives the client's, and keeps what came."""

    def __init__(self, *, shows_usage: bool) -> None:
        self.finished = False
        self.last = b""  # the [DONE] event, as it came
        self.problem: EngineError | None = None
        self._shows_usage = shows_usage
        self._kept: list[bytes] = []
        self._pending = b""

    def feed(self, data: bytes) -> bytes:
        """Take what was read, split anywhere; answers the events that may pass on.

        `problem` is set when the engine reports an error in the middle of its answer.
        """
        self._pending += data
        end = _last_boundary(self._pending)
        if end == 0:
            return b""
        events, self._pending = self._pending[:end], self._pending[end:]
        start = _first_marked(events)
        if start > 0:
            self._kept.append(events[:start])
        if start == end:
            return events
        rest = BOUNDARY.split(events[start:])
        return events[:start] + b"".join(event for event in rest if self._passes(event))

    def kept(self) -> bytes:
        """Every whole event that came, to be read once at the end."""
        return b"".join(self._kept)

    def _passes(self, event: bytes) -> bool:
        if self.finished or self.problem is not None:
            return False
        if SPECIAL.search(event) is None:
            self._kept.append(event)
            return True
        data = b"".join(DATA.findall(event))
        if data == DONE:
            self.finished = True
            self.last = event
            return False
        return self._passes_object(event, data)

    def _passes_object(self, event: bytes, data: bytes) -> bool:
        try:
            fields = json.loads(data)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            self.problem = EngineBroke(UNREADABLE)
            return False
        if "error" in fields:
            self.problem = error_in(data)
            return False
        self._kept.append(event)
        return bool(self._shows_usage or fields.get("choices") or not fields.get("usage"))


def _last_boundary(data: bytes) -> int:
    """Where the last whole event ends; 0: there is none."""
    if data.endswith(b"\n\n"):  # so it is nearly always
        return len(data)
    end = max(data.rfind(b"\n\n") + 2, data.rfind(b"\r\n\r\n") + 4)
    return end if end >= 4 else 0  # neither was found: -1 + 2 or -1 + 4


def _first_marked(events: bytes) -> int:
    """Where the first event begins that may be a special one; else the end."""
    marks = [place for place in map(events.find, MARKS) if place >= 0]
    return _last_boundary(events[: min(marks)]) if marks else len(events)


def refusal_in(first: bytes) -> EngineError | None:
    """The error that a stream begins with: nothing was shown yet, so it can be the whole answer."""
    event = BOUNDARY.split(first, 1)[0]
    tape = Tape(shows_usage=True)
    return None if tape.feed(event) else tape.problem
