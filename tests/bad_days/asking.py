"""Asks a running gateway over bare sockets, so that a test decides each byte and each moment."""

import asyncio
import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.gateway_program import GatewayProgram

CHAT = {"model": "med", "messages": [{"role": "user", "content": "What helps?"}], "max_tokens": 64}


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's error object, which has all its parts."""
        error: dict[str, Any] = json.loads(self.body)["error"]
        assert error.keys() == {"message", "type", "param", "code"}, error
        assert error["message"]
        return error

    @property
    def events(self) -> list[Any]:
        """The data of a stream's events; `[DONE]` as it is."""
        lines = [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]


def ask(
    program: GatewayProgram, body: bytes | None = None, *, path: str = "/v1/chat/completions",
    seconds: float = 15.0, method: str = "POST", headers: Mapping[str, str] | None = None,
    **fields: Any,
) -> Answer:  # fmt: skip
    """Send one chat, or `body`, and read the whole answer."""
    connection = http.client.HTTPConnection(program.url.removeprefix("http://"), timeout=seconds)
    sent = json.dumps(CHAT | fields).encode() if body is None else body
    given = {"authorization": f"Bearer {program.keys.shop}", **(headers or {})}
    try:
        connection.request(method, path, sent if method == "POST" else None, given)
        response = connection.getresponse()
        lowered = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, lowered, response.read())
    finally:
        connection.close()


def head(program: GatewayProgram, *lines: str, path: str = "/v1/chat/completions") -> bytes:
    """A request's first lines and headers, with the key, without the end of the headers."""
    host = program.url.removeprefix("http://")
    given = (f"POST {path} HTTP/1.1", f"host: {host}", *lines)
    return "\r\n".join((*given, f"authorization: Bearer {program.keys.shop}", "")).encode()


def request(program: GatewayProgram, **fields: Any) -> bytes:
    """A whole chat, as bytes."""
    body = json.dumps(CHAT | fields).encode()
    return head(program, f"content-length: {len(body)}", "connection: close") + b"\r\n" + body


Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connected(program: GatewayProgram, **more: Any) -> Pair:
    """A connection to the gateway."""
    host, port = program.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port), **more)


async def cut(writer: asyncio.StreamWriter) -> None:
    """Reset the connection, as a client that dies does."""
    writer.transport.abort()
    await asyncio.sleep(0)


def eventually(claim: Callable[[], bool], what: str, seconds: float = 10.0) -> float:
    """Wait until a claim is true; answers how long that took."""
    started = time.monotonic()
    while not claim():
        assert time.monotonic() - started < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - started


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What happens inside is over after so long at most."""
    started = time.monotonic()
    yield
    took = time.monotonic() - started
    assert took < seconds, f"that took {took:.1f} s"
