"""API keys: 256 random bits shown once, SHA-256 at rest, one Redis hash.

The hash of 256 random bits can neither be guessed nor reversed, so it needs no salt and no slow
hash function, and a look-up by it leaks nothing through its time. A key's id is the beginning of
that hash. Whom a key stands for is remembered for `API_KEY_SECONDS` after it was looked up, so a
revoked one is refused everywhere at most that much later. A key that is not known, or was revoked,
is looked up each time.
"""

import asyncio
import json
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from byline.canonical import canonical_text, sha256_hex
from byline.errors import InvalidInput, NotFound, Unauthenticated
from byline.limits import API_KEY_BYTES, API_KEY_SECONDS, API_KEYS_REMEMBERED_MAX
from byline.posting.cluster import Follower, reach
from byline.posting.redis_client import Client, answering, without_password
from byline.records import Caller, KeyRole

KEYS = "byline:api_keys"
PREFIX = "byl_"
SECRET = re.compile(r"byl_[A-Za-z0-9_-]{43}")
ID_DIGITS = 12
ID = re.compile(r"[0-9a-f]{12,64}")
SUBJECT = re.compile(r"[A-Za-z0-9@._-]{1,64}")  # becomes the tail of an account's name


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of an API key; not the secret."""

    id: str
    role: KeyRole
    subject: str
    created_ms: int
    revoked_ms: int | None = None
    organisation: str | None = None


class ApiKeys:
    """Creates, finds, lists and revokes API keys. The secret itself is never stored or logged."""

    def __init__(self, redis: Client, follower: Follower, clock: Callable[[], float]) -> None:
        self._redis = redis
        self._follower = follower
        self._clock = clock
        self._remembered: dict[str, tuple[Caller, float]] = {}  # by hash; until when, oldest first
        self._under_way: dict[str, asyncio.Task[Caller]] = {}  # look-ups, by hash

    @classmethod
    async def open(cls, url: str, *, clock: Callable[[], float] = time.monotonic) -> "ApiKeys":
        """Connect."""
        redis, follower = await reach(url, KEYS)
        try:
            with answering(f"open the API keys at {without_password(url)}"):
                await redis.ping()
        except BaseException:
            await follower.close()
            await redis.aclose()
            raise
        return cls(redis, follower, clock)

    async def create(
        self, role: KeyRole, subject: str, *, now_ms: int, organisation: str | None = None
    ) -> str:
        """A new secret, `byl_` and 43 URL-safe characters. It can't be had again."""
        _require_name(subject, "subject")
        if organisation is not None:
            _require_name(organisation, "organisation")
            if role is not KeyRole.APPLICATION:
                raise InvalidInput("only applications are in organisations", param="organisation")
        secret = PREFIX + secrets.token_urlsafe(API_KEY_BYTES)
        facts = {"role": role.value, "subject": subject, "created_ms": now_ms}
        more = {} if organisation is None else {"organisation": organisation}
        fields = canonical_text({**facts, **more})
        with answering("create an API key"):
            await self._redis.hset(KEYS, _at_rest(secret), fields)
        return secret

    async def find(self, secret: str) -> Caller:
        """Who the key stands for. Raises Unauthenticated; LedgerUnavailable if Redis is away."""
        if not SECRET.fullmatch(secret):
            raise Unauthenticated("that is no API key of ours")
        at_rest = _at_rest(secret)
        caller, until = self._remembered.get(at_rest, (None, 0.0))
        if caller is None or self._clock() >= until:
            return await asyncio.shield(self._looking_up(at_rest))
        return caller

    def _looking_up(self, at_rest: str) -> "asyncio.Task[Caller]":
        """All who show a key at once wait for one look-up: a burst must not queue for the server,
        until the last of it are refused as if that were away."""
        under_way = self._under_way.get(at_rest)
        if under_way is None:
            under_way = self._under_way[at_rest] = asyncio.create_task(self._look_up(at_rest))
            under_way.add_done_callback(lambda ended: self._looked_up(at_rest, ended))
        return under_way

    def _looked_up(self, at_rest: str, ended: "asyncio.Task[Caller]") -> None:
        del self._under_way[at_rest]
        if not ended.cancelled():
            ended.exception()  # told to those who still wait for it

    async def _look_up(self, at_rest: str) -> Caller:
        until = self._clock() + API_KEY_SECONDS  # from before it was asked for
        self._remembered.pop(at_rest, None)
        caller = await self._stored(at_rest)
        self._remember(at_rest, caller, until)
        return caller

    async def _stored(self, at_rest: str) -> Caller:
        with answering("look up an API key"):
            stored = await self._redis.hget(KEYS, at_rest)
        if stored is None:
            raise Unauthenticated("the API key is not known")
        key = _read(at_rest, stored)
        if key.revoked_ms is not None:
            raise Unauthenticated("the API key was revoked")
        return Caller(key.role, key.subject, key.organisation, key.id)

    def _remember(self, at_rest: str, caller: Caller, until: float) -> None:
        if len(self._remembered) >= API_KEYS_REMEMBERED_MAX:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[at_rest] = caller, until

    async def known(self) -> list[ApiKey]:
        """Every key that was ever created, the oldest first."""
        with answering("list the API keys"):
            stored: dict[str, str] = await self._redis.hgetall(KEYS)
        keys = [_read(at_rest, text) for at_rest, text in stored.items()]
        return sorted(keys, key=lambda key: (key.created_ms, key.id))

    async def revoke(self, key_id: str, *, now_ms: int) -> ApiKey:
        """Refuse the key for ever; the first time stays. NotFound unless the id names one key."""
        at_rest, text = await self._named(key_id)
        self._remembered.pop(at_rest, None)
        if _read(at_rest, text).revoked_ms is None:
            text = canonical_text({**json.loads(text), "revoked_ms": now_ms})
            with answering("revoke an API key"):
                await self._redis.hset(KEYS, at_rest, text)
        return _read(at_rest, text)

    async def _named(self, key_id: str) -> tuple[str, str]:
        """The one key whose hash begins so, as it is stored."""
        if not ID.fullmatch(key_id):
            raise InvalidInput(
                "an API key's id is the first 12 digits or more of its SHA-256, as "
                "`byline keys list` shows it; it is not the key itself",
                param="id",
            )
        with answering("look for an API key"):
            stored: dict[str, str] = await self._redis.hgetall(KEYS)
        found = [item for item in stored.items() if item[0].startswith(key_id)]
        if len(found) != 1:
            raise NotFound(f"{len(found) or 'no'} API keys have the id {key_id}", param="id")
        return found[0]

    async def close(self) -> None:
        """Close the connection."""
        await self._follower.close()
        await self._redis.aclose()


def id_of(secret: str) -> str:
    """The id under which a key is listed and revoked."""
    return _at_rest(secret)[:ID_DIGITS]


def _read(at_rest: str, text: str) -> ApiKey:
    fields = json.loads(text)
    return ApiKey(
        at_rest[:ID_DIGITS],
        KeyRole(fields["role"]),
        fields["subject"],
        fields["created_ms"],
        fields.get("revoked_ms"),
        fields.get("organisation"),
    )


def _require_name(name: str, param: str) -> None:
    if not SUBJECT.fullmatch(name):
        raise InvalidInput(
            f"'{name}' can't be an API key's {param}: letters, digits and @._- only", param=param
        )


def _at_rest(secret: str) -> str:
    return sha256_hex(secret.encode())
