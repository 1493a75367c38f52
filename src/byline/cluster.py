"""Finds a ledger in a Redis or Valkey Cluster: which primary serves the slot of its hash tag.

All keys of a ledger share one slot, so a writer talks to one primary as to a single server, and
asks here again when that has gone. Nothing is written here, and nothing is sent twice.
"""

import re

from redis.crc import key_slot

from byline.errors import LedgerMisconfigured, LedgerUnavailable
from byline.redis_client import Client, answering, connect

SEED_SECONDS = 1.0  # a seed that is silent for so long is passed over
ADDRESS = re.compile(r"cluster://(?P<user>[^@/]*@)?(?P<seeds>[^@/]*:\d+)/?")


async def located(url: str, tag: str) -> str:
    """The `redis://` address of the primary that serves `tag`; any other address unchanged.

    `url` is `cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT`: some nodes, in the order in which they
    are asked. Raises LedgerUnavailable where none of them knows a primary of the slot.
    """
    if not url.startswith("cluster:"):
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
