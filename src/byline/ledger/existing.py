"""Which ledgers a server has: so that a slip in a name is refused, and makes no new ledger."""

import re

from byline.errors import NotFound
from byline.posting.keys import Keys
from byline.posting.redis_client import Client, answering

PAGE = 5_000  # keys looked at in one command
KEYS_LOOKED_AT_MAX = 200_000  # a big ledger has millions: the list is a courtesy, not a duty
META = re.compile(r"\{ledger:(?P<name>[^{}]+)\}:meta")


async def require_existing(redis: Client, keys: Keys, name: str) -> None:
    """Raise NotFound, naming the ledgers that the server has, unless this one was ever opened."""
    with answering(f"look for {keys.tag}"):
        if await redis.exists(keys.meta, keys.journal):
            return
        names = await _names(redis)
    there = f"the server has {', '.join(names)}" if names else "none was found on the server"
    raise NotFound(
        f"there is no ledger '{name}': {there}; the first `byline ledger deposit --new` begins one",
        param="ledger",
    )


async def _names(redis: Client) -> list[str]:
    found: set[str] = set()
    cursor = 0
    for _ in range(KEYS_LOOKED_AT_MAX // PAGE):
        cursor, page = await redis.scan(cursor, match="{ledger:*}:meta", count=PAGE)
        found.update(parts["name"] for key in page if (parts := META.fullmatch(key)))
        if cursor == 0:
            break
    return sorted(found)
