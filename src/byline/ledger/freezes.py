"""The freeze under which a ledger is mended, and what it says when the mending did not finish.

A reason of somebody else is never touched. Ours says at each moment what is true: that a rebuild is
under way, or why the last one was given up; the next one that succeeds takes it away.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis.exceptions import RedisError

from byline.posting.keys import Keys
from byline.posting.redis_client import Client, answering

REBUILDING = "the balances are being rebuilt"
GIVEN_UP = "a rebuild was given up: "

# KEYS 1 meta     ARGV 1 the reason of a rebuild under way  2 how the reason of the last one begins
BEGIN = """
local reason = redis.call('HGET', KEYS[1], 'frozen')
if not reason or string.sub(reason, 1, #ARGV[2]) == ARGV[2] then
  redis.call('HSET', KEYS[1], 'frozen', ARGV[1])
end
"""
# KEYS 1 meta     ARGV 1 the reason of a rebuild under way  2 why it was given up
GIVE_UP = """
if redis.call('HGET', KEYS[1], 'frozen') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'frozen', ARGV[2])
end
"""


@asynccontextmanager
async def frozen_to_mend(redis: Client, keys: Keys) -> AsyncIterator[None]:
    """Nothing is posted from here on, also behind the block: `adopt.lua` ends our freeze."""
    with answering("freeze the ledger to rebuild it"):
        await redis.eval(BEGIN, 1, keys.meta, REBUILDING, GIVEN_UP)
    try:
        yield
    except BaseException as problem:
        was_stopped = isinstance(problem, asyncio.CancelledError)
        why = "it was stopped" if was_stopped else str(problem) or type(problem).__name__
        reason = GIVEN_UP + why.removeprefix("rebuild: ")
        with suppress(RedisError, OSError):  # then it says what was true until now
            await redis.eval(GIVE_UP, 1, keys.meta, REBUILDING, reason)
        raise
