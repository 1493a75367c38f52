"""Finds a ledger in a Redis or Valkey Cluster: which primary serves the slot of its hash tag.

All keys of a ledger share one slot, so a writer talks to one primary as to a single server, and is
told here when it is another one. Nothing is written here, and nothing is sent twice.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from redis.crc import key_slot

from byline.errors import LedgerError, LedgerMisconfigured, LedgerUnavailable
from byline.posting.redis_client import Client, answering, connect, repoint

SCHEME = "cluster:"
SEED_SECONDS = 1.0  # a seed that is silent for so long is passed over
LOOK_SECONDS = 1.0  # between two looks at who serves a slot
ADDRESS = re.compile(r"cluster://(?P<user>[^@/]*@)?(?P<seeds>[^@/]*:\d+)/?")


async def located(url: str, tag: str) -> str:
    """The `redis://` address of the primary that serves `tag`; any other address unchanged.

    `url` is `cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT`: some nodes, in the order in which they
    are asked. Raises LedgerUnavailable where none of them knows a primary of the slot.
    """
    if not url.startswith(SCHEME):
        return url
    parts = ADDRESS.fullmatch(url)
    if parts is None:  # the address may hold a password: say only what is wanted
        raise LedgerMisconfigured(
            "the cluster's address must be cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT"
        )
    user = parts["user"] or ""
    slot = key_slot(tag.encode())
    answers = []
    for seed in parts["seeds"].split(","):
        try:
            return f"redis://{user}{await _primary(user, seed, slot)}/0"
        except LedgerUnavailable as problem:
            answers.append(str(problem))
    raise LedgerUnavailable(f"find {tag} in the cluster: {'; '.join(answers)}")


async def primary_id(url: str) -> str | None:
    """The cluster's name for the server at `url`; None where the server is in no cluster."""
    async with connect(url, timeout_seconds=SEED_SECONDS) as server:
        with answering("ask the server who it is"):
            if not (await server.info("cluster"))["cluster_enabled"]:
                return None
            node: str = await server.execute_command("CLUSTER MYID")
    return node


class Follower:
    """Looks where a tag is served, and tells when that is another primary than before."""

    def __init__(self, url: str, tag: str, moved: Callable[[str], Awaitable[object]]) -> None:
        self._url = url
        self._tag = tag
        self._moved = moved
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def start(self, found: str) -> None:
        """Look every second from now on, if it is a cluster; until now it is served at `found`."""
        if self._task is None and self._url.startswith(SCHEME):
            self._task = asyncio.create_task(self._follow(found))

    async def close(self) -> None:
        """Look no more. A look under way is ended, not cancelled: it holds connections."""
        self._closing.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _follow(self, found: str) -> None:
        while not await self._is_closing_within(LOOK_SECONDS):
            with suppress(LedgerError):  # no primary yet, or not a sound one: look again
                served = await located(self._url, self._tag)
                if served != found:
                    await self._moved(served)
                    found = served

    async def _is_closing_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        return self._closing.is_set()


async def reach(url: str, tag: str) -> tuple[Client, Follower]:
    """A client of the server that serves `tag`, wherever that is until the follower is closed."""
    found = await located(url, tag)
    client = connect(found)
    follower = Follower(url, tag, partial(repoint, client))
    follower.start(found)
    return client, follower


async def _primary(user: str, seed: str, slot: int) -> str:
    """`HOST:PORT` of the slot's primary as `seed` knows it."""
    async with connect(f"redis://{user}{seed}/0", timeout_seconds=SEED_SECONDS) as server:
        with answering(f"ask {seed} for slot {slot}"):
            await _require_majority(server, seed)
            ranges = await server.execute_command("CLUSTER SLOTS")
    for first, last, primary, *_ in ranges:
        if first <= slot <= last:
            host, port = primary[:2]
            return f"{host or seed.rpartition(':')[0]}:{port}"
    raise LedgerUnavailable(f"{seed} knows nobody who serves slot {slot}")


async def _require_majority(server: Client, seed: str) -> None:
    """Pass a node over that is cut off from most of the others: it would name an old primary."""
    state = (await server.execute_command("CLUSTER INFO"))["cluster_state"]
    if state != "ok":
        raise LedgerUnavailable(f"{seed} says that the cluster's state is {state}")
