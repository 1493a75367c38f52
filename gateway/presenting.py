"""How an engine's answer is shown to the client: by default as it came.

What a client asked of Byline itself (`byline` in its body) is added at the end.
"""

import json
from collections.abc import Mapping
from typing import Protocol

from byline.errors import BylineError
from gateway.errors import error_event

Added = Mapping[str, object] | None  # what stands under `byline`; None: nothing was asked for


class Presenter(Protocol):
    """One answer's form. A stream's events come whole, and its usage chunk among them."""

    shows_usage: bool  # whether the engine's usage chunk is to come

    def whole(self, body: bytes, added: Added) -> bytes:
        """A plain answer. Raises EngineBroke if it is none."""

    def events(self, events: bytes) -> bytes:
        """What the client is sent for some events of the engine's stream."""

    def end(self, done: bytes, added: Added) -> bytes:
        """What the client is sent at the end of a stream; `done` is the engine's own end."""

    def broken(self, problem: BylineError) -> bytes:
        """What the client is sent when the stream breaks off."""


class AsItCame:
    """The engine's bytes, which are OpenAI's form of chats and completions."""

    def __init__(self, head: Mapping[str, object], *, shows_usage: bool) -> None:
        """`head` is what each chunk of the stream begins with."""
        self.shows_usage = shows_usage
        self._head = head

    def whole(self, body: bytes, added: Added) -> bytes:
        """The body, with one key more where something was asked for."""
        if added is None:
            return body
        return b'%s,"byline":%s}' % (body.rstrip().removesuffix(b"}"), json.dumps(added).encode())

    def events(self, events: bytes) -> bytes:
        """The same bytes."""
        return events

    def end(self, done: bytes, added: Added) -> bytes:
        """`[DONE]`, after a chunk without choices where something was asked for."""
        if added is None:
            return done
        chunk = {**self._head, "choices": [], "byline": added}
        return b"data: %s\n\n%s" % (json.dumps(chunk).encode(), done)

    def broken(self, problem: BylineError) -> bytes:
        """An error event."""
        return error_event(problem)
