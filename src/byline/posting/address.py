"""Where a Redis-protocol server listens, and how to be let in: read from its URL."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from redis.asyncio.connection import SSLConnection, parse_url

from byline.errors import LedgerMisconfigured

P = TypeVar("P", bound=asyncio.Protocol)
PORT = 6379


@dataclass(frozen=True, slots=True)
class Address:
    """One server, one user, one database. Made of the same URLs as redis-py takes."""

    host: str
    port: int
    path: str | None  # of a unix socket; then host and port mean nothing
    username: str | None
    password: str | None
    database: int
    tls: ssl.SSLContext | None

    @classmethod
    def parse(cls, url: str) -> "Address":
        """`redis://`, `rediss://` (with redis-py's `ssl_` options) or `unix://`."""
        try:
            parts: dict[str, Any] = dict(parse_url(url))
            connection_class = parts.pop("connection_class", None)
            tls = None
            if connection_class is SSLConnection:
                tls = SSLConnection(**parts).ssl_context.get()
            return cls(
                host=parts.get("host", "localhost"),
                port=parts.get("port", PORT),
                path=parts.get("path"),
                username=parts.get("username"),
                password=parts.get("password"),
                database=int(parts.get("db", 0)),
                tls=tls,
            )
        except (ValueError, TypeError, OSError) as problem:  # its text may quote the password
            raise LedgerMisconfigured(
                "the ledger's address must be redis://HOST:PORT/0, rediss://... or unix://PATH"
            ) from problem

    def greeting(self) -> list[tuple[str, ...]]:
        """The commands that let a new connection in."""
        commands: list[tuple[str, ...]] = []
        if self.password is not None:
            user = () if self.username is None else (self.username,)
            commands.append(("AUTH", *user, self.password))
        if self.database:
            commands.append(("SELECT", str(self.database)))
        return [*commands, ("PING",)]

    async def connect(self, make: Callable[[], P]) -> P:
        """A connection with the protocol that `make` makes. Raises OSError."""
        loop = asyncio.get_running_loop()
        if self.path is not None:
            _, protocol = await loop.create_unix_connection(make, self.path)
        else:
            _, protocol = await loop.create_connection(make, self.host, self.port, ssl=self.tls)
        return protocol
