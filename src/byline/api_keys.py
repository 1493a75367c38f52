"""API keys: 256 random bits shown once, SHA-256 at rest, one Redis hash.

The hash of 256 random bits can neither be guessed nor reversed, so it needs no salt and no slow
hash function, and a look-up by it leaks nothing through its time.
"""

import json
import re
import secrets

from byline.canonical import canonical_text, sha256_hex
from byline.errors import InvalidInput, Unauthenticated
from byline.limits import API_KEY_BYTES
from byline.posting.cluster import Follower, reach
from byline.posting.redis_client import Client, answering, without_password
from byline.records import Caller, KeyRole

KEYS = "byline:api_keys"
PREFIX = "byl_"
SECRET = re.compile(r"byl_[A-Za-z0-9_-]{43}")
SUBJECT = re.compile(r"[A-Za-z0-9@._-]{1,64}")  # becomes the tail of an account's name


class ApiKeys:
    """Creates and looks up API keys. The secret itself is never stored or logged."""

    def __init__(self, redis: Client, follower: Follower) -> None:
        self._redis = redis
        self._follower = follower

    @classmethod
    async def open(cls, url: str) -> "ApiKeys":
        """Connect."""
        redis, follower = await reach(url, KEYS)
        try:
            with answering(f"open the API keys at {without_password(url)}"):
                await redis.ping()
        except BaseException:
            await follower.close()
            await redis.aclose()
            raise
        return cls(redis, follower)

    async def create(self, role: KeyRole, subject: str, *, now_ms: int) -> str:
        """A new secret, `byl_` and 43 URL-safe characters. It can't be had again."""
        if not SUBJECT.fullmatch(subject):
            raise InvalidInput(
                f"'{subject}' can't be an API key's subject: letters, digits and @._- only",
                param="subject",
            )
        secret = PREFIX + secrets.token_urlsafe(API_KEY_BYTES)
        fields = canonical_text({"role": role.value, "subject": subject, "created_ms": now_ms})
        with answering("create an API key"):
            await self._redis.hset(KEYS, _at_rest(secret), fields)
        return secret

    async def find(self, secret: str) -> Caller:
        """Who the key stands for. Raises Unauthenticated; LedgerUnavailable if Redis is away."""
        if not SECRET.fullmatch(secret):
            raise Unauthenticated("that is no API key of ours")
        with answering("look up an API key"):
            stored = await self._redis.hget(KEYS, _at_rest(secret))
        if stored is None:
            raise Unauthenticated("the API key is not known")
        fields = json.loads(stored)
        return Caller(KeyRole(fields["role"]), fields["subject"])

    async def close(self) -> None:
        """Close the connection."""
        await self._follower.close()
        await self._redis.aclose()


def _at_rest(secret: str) -> str:
    return sha256_hex(secret.encode())
