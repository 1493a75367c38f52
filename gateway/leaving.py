"""Work for a client that may leave: it ends when the client does."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from gateway.errors import ClientGone

Result = TypeVar("Result")

PRESENCE = "byline.presence"  # the key in the ASGI scope


class Presence:
    """One connection's client: who listens is told when it is gone."""

    __slots__ = ("_is_gone", "_listeners")

    def __init__(self) -> None:
        self._listeners: set[Callable[[], None]] = set()
        self._is_gone = False

    def listen(self, left: Callable[[], None]) -> Callable[[], None]:
        """Have `left` called once, soon if the client is gone; what is answered ends that."""
        self._listeners.add(left)
        if self._is_gone:
            asyncio.get_running_loop().call_soon(self.end)
        return lambda: self._listeners.discard(left)

    def end(self) -> None:
        """The client is gone."""
        self._is_gone = True
        while self._listeners:
            self._listeners.pop()()


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client disconnects: then ClientGone.

    The request's body must have been read: what else arrives is thrown away. As with
    `asyncio.timeout`, the work is done in the caller's own task, which costs an answer less.
    """
    here = asyncio.current_task()
    assert here is not None
    before = here.cancelling()
    is_over = is_gone = False

    def left() -> None:
        nonlocal is_gone
        if not is_over:
            is_gone = True
            here.cancel()

    stop_listening = _listen(request, left)
    try:
        return await work
    except BaseException as problem:
        if is_gone and here.cancelling() == before + 1:  # nobody else has cancelled us
            raise ClientGone("the client went away before its answer was ready") from problem
        raise
    finally:
        is_over = True
        stop_listening()
        if is_gone:
            here.uncancel()


def _listen(request: Request, left: Callable[[], None]) -> Callable[[], None]:
    """Have `left` called when the client disconnects, at least once; the answer ends that.

    Our own connections tell of it. Any other server says so in a message, for which a task waits:
    a twentieth of what a whole answer costs.
    """
    presence = request.scope.get(PRESENCE)
    if isinstance(presence, Presence):
        return presence.listen(left)
    watch = asyncio.create_task(_disconnected(request))
    watch.add_done_callback(lambda _: left())

    def stop() -> None:
        watch.cancel()

    return stop


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
