"""Work for a client that may leave: it ends when the client does."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from gateway.errors import ClientGone

Result = TypeVar("Result")


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client disconnects: then ClientGone.

    The request's body must have been read: what else arrives is thrown away. As with
    `asyncio.timeout`, the work is done in the caller's own task, which costs an answer less.
    """
    here = asyncio.current_task()
    assert here is not None
    before = here.cancelling()
    is_over = is_gone = False

    def left(_: "asyncio.Task[None]") -> None:
        nonlocal is_gone
        if not is_over:
            is_gone = True
            here.cancel()

    watch = asyncio.create_task(_disconnected(request))
    watch.add_done_callback(left)
    try:
        return await work
    except BaseException as problem:
        if is_gone and here.cancelling() == before + 1:  # nobody else has cancelled us
            raise ClientGone("the client went away before its answer was ready") from problem
        raise
    finally:
        is_over = True
        watch.cancel()
        if is_gone:
            here.uncancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
