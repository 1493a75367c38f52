"""How every part talks to the Redis-protocol server: never a retry of its own, always a timeout.

redis-py repeats a command by default when its answer is late, and so doubles money. Here the caller
repeats, under the same event key.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    RedisError,
)

from byline.errors import LedgerError, LedgerMisconfigured, LedgerUnavailable
from byline.limits import LEDGER_TIMEOUT_SECONDS

# redis-py's annotations stand for text and bytes, awaited or not, all at once. Every answer here is
# awaited text, and gets its type where it is read.
Client: TypeAlias = Any

NO_RIGHTS = (AuthenticationError, AuthorizationError, NoPermissionError)
NO_RIGHTS_CODES = ("NOAUTH", "NOPERM", "WRONGPASS", "ERR invalid password", "ERR AUTH")
CONNECTIONS_MAX = 64  # a server that syncs before each answer gains nothing from more


def connect(url: str, *, timeout_seconds: float = LEDGER_TIMEOUT_SECONDS) -> Client:
    """A client of the server at `url` (`redis://` or `unix://`). Nothing is sent yet."""
    return Redis.from_pool(_pool(url, timeout_seconds))


async def repoint(
    client: Client, url: str, *, timeout_seconds: float = LEDGER_TIMEOUT_SECONDS
) -> None:
    """Let the client, and everyone who has it, talk to the server at `url` from now on."""
    left, client.connection_pool = client.connection_pool, _pool(url, timeout_seconds)
    await left.aclose()


def _pool(url: str, timeout_seconds: float) -> BlockingConnectionPool:
    try:
        return BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS_MAX,
            timeout=timeout_seconds,  # the wait for a free connection
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
            protocol=2,
        )
    except ValueError as problem:  # its text may quote the password: say only what is wanted
        raise LedgerMisconfigured(
            "the ledger's address must be redis://HOST:PORT/0 or unix://PATH"
        ) from problem


def without_password(url: str) -> str:
    """The address as it may be logged."""
    return re.sub(r"//[^@/]*@", "//***@", url)


@contextmanager
def answering(attempt: str) -> Iterator[None]:
    """Turn what redis-py raises into the ledger's errors; `attempt` says what was being done.

    Everything but missing rights counts as unavailable (also out of memory, read-only, loading, a
    disk that fails): to call again under the same event key is right for each of them.
    """
    try:
        yield
    except (RedisError, OSError) as problem:
        cause = problem.__cause__ or problem  # while connecting, redis-py wraps what it was told
        if isinstance(cause, NO_RIGHTS):
            raise LedgerMisconfigured(f"{attempt}: the server refuses the rights: {cause}") from (
                problem
            )
        raise LedgerUnavailable(f"{attempt}: {problem or type(problem).__name__}") from problem


def refusal(attempt: str, text: str) -> LedgerError:
    """The same for the text of an error that the server itself answered."""
    if text.startswith(NO_RIGHTS_CODES):
        return LedgerMisconfigured(f"{attempt}: the server refuses the rights: {text}")
    return LedgerUnavailable(f"{attempt}: {text}")
