"""The engine's stand-in: fixed answers in vLLM's shape, as fast as one Python process gives them.

    python -m loadtests.gateway_bench.upstream PORT...

One port a gateway, so that each gateway's questions are counted by themselves; `GET /count` says
how many. What is asked decides the answer: a whole one; a stream of 200 chunks in one burst; or,
where the prompt says so, a paced one. Each event is an HTTP chunk of its own, as vLLM sends it.
"""

import asyncio
import json
import re
import sys
from typing import Any, cast

import uvloop

CHUNKS = 200
PACE_SECONDS = 0.020
PACED_WORD = b"paced"  # in the prompt of a question whose answer is paced
PROMPT_TOKENS = 24
MODEL = "bench"

HEAD = re.compile(rb"^([A-Z]+) (\S+) HTTP/1\.[01]\r\n")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
STREAMED = re.compile(rb'"stream" ?: ?true')


def plain_answer() -> bytes:
    """A whole chat completion of 16 tokens."""
    return _json(
        {
            "id": "chatcmpl-bench", "object": "chat.completion", "created": 1_760_000_000,
            "model": MODEL, "prompt_token_ids": list(range(100, 100 + PROMPT_TOKENS)),
            "choices": [{
                "index": 0, "finish_reason": "stop", "stop_reason": None, "logprobs": None,
                "message": {"role": "assistant", "content": "A short and quite ordinary answer."},
                "token_ids": list(range(200, 216)),
            }],
            "usage": _usage(16),
        }
    )  # fmt: skip


def stream_events() -> list[bytes]:
    """A role, 200 chunks of one token each, the usage chunk, and the end.

    No two tokens are the same: LiteLLM takes a model that repeats itself for broken.
    """
    first = _chunk({"role": "assistant", "content": ""}, None, [])
    first["prompt_token_ids"] = list(range(100, 100 + PROMPT_TOKENS))
    objects = [
        first,
        *(
            _chunk(
                {"content": f" word{number}"},
                "stop" if number == CHUNKS - 1 else None,
                [300 + number],
            )
            for number in range(CHUNKS)
        ),
        {**_chunk({}, None, []), "choices": [], "usage": _usage(CHUNKS)},
    ]
    return [*(b"data: %s\n\n" % _json(fields) for fields in objects), b"data: [DONE]\n\n"]


def _chunk(delta: dict[str, str], finish: str | None, tokens: list[int]) -> dict[str, Any]:
    return {
        "id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1_760_000_000,
        "model": MODEL, "choices": [{
            "index": 0, "delta": delta, "logprobs": None, "finish_reason": finish,
            "token_ids": tokens,
        }],
    }  # fmt: skip


def _usage(completion: int) -> dict[str, int]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": completion,
        "total_tokens": PROMPT_TOKENS + completion,
    }


def _json(fields: object) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def answer_of(body: bytes, kind: bytes = b"application/json") -> bytes:
    """A whole HTTP answer."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
    return head % (kind, len(body)) + body


def http_chunk(data: bytes) -> bytes:
    """One piece of a body whose length is not announced."""
    return b"%x\r\n%s\r\n" % (len(data), data)


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
STREAM_END = b"0\r\n\r\n"
PLAIN = answer_of(plain_answer())
EVENTS = [http_chunk(event) for event in stream_events()]
BURST = b"".join([STREAM_HEAD, *EVENTS, STREAM_END])
# Our own gateway serves what is listed here and changes the answer to its canary.
ADAPTER = "bench-adapter@0123456789ab"
MODELS = answer_of(_json({"object": "list", "data": [{"id": i} for i in (MODEL, ADAPTER)]}))
PROBED, PROBED_BASE = (
    answer_of(_json({"choices": [{"logprobs": {"top_logprobs": [{" a": nats}]}}]}))
    for nats in (-0.5, -1.0)
)
WELL = answer_of(b"{}")


def split_request(data: bytes) -> tuple[bytes, bytes, bytes, bytes] | None:
    """Method, path, body and what follows of the first request; None while it is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    found = HEAD.match(data)
    if found is None:
        raise ValueError(f"no request: {data[:40]!r}")
    head, rest = data[: end + 2], data[end + 4 :]
    if CHUNKED.search(head):
        last = rest.find(b"0\r\n\r\n")
        if last < 0:
            return None
        return found[1], found[2], rest[:last], rest[last + 5 :]
    length = LENGTH.search(head)
    size = int(length[1]) if length else 0
    if len(rest) < size:
        return None
    return found[1], found[2], rest[:size], rest[size:]


class Connection(asyncio.Protocol):
    """One gateway's connection."""

    def __init__(self, counts: dict[int, int]) -> None:
        self._counts = counts
        self._pending = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember which port it came to."""
        self._transport = cast(asyncio.Transport, transport)
        self._port: int = transport.get_extra_info("sockname")[1]

    def data_received(self, data: bytes) -> None:
        """Answer every question that is whole."""
        self._pending += data
        while (request := split_request(self._pending)) is not None:
            method, path, body, self._pending = request
            self._answer(method, path, body)

    def connection_lost(self, _problem: Exception | None) -> None:
        """Nobody waits for the rest."""
        if self._timer is not None:
            self._timer.cancel()

    def _answer(self, method: bytes, path: bytes, body: bytes) -> None:
        if method != b"POST":
            self._transport.write(self._looked_up(path))
            return
        if path == b"/v1/completions" and b'"logprobs"' in body:  # a canary
            self._transport.write(PROBED if ADAPTER.encode() in body else PROBED_BASE)
            return
        self._counts[self._port] = self._counts.get(self._port, 0) + 1
        if STREAMED.search(body) is None:
            self._transport.write(PLAIN)
        elif PACED_WORD in body:
            self._transport.write(STREAM_HEAD)
            self._pace(0, asyncio.get_running_loop().time())
        else:
            self._transport.write(BURST)

    def _looked_up(self, path: bytes) -> bytes:
        if path == b"/count":
            return answer_of(_json(self._counts))
        return MODELS if path.startswith(b"/v1/models") else WELL

    def _pace(self, place: int, began: float) -> None:
        """Send the event that is due, and set the clock for the next: late ones don't add up."""
        self._transport.write(EVENTS[place])
        if place + 1 == len(EVENTS):
            self._transport.write(STREAM_END)
            return
        due = began + min(place + 1, CHUNKS) * PACE_SECONDS  # usage and end follow the last token
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(due, self._pace, place + 1, began)


async def serve(ports: list[int]) -> None:
    """Answer on all ports until the process is ended."""
    counts: dict[int, int] = {}
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(lambda: Connection(counts), "127.0.0.1", port, backlog=1_024)
        for port in ports
    ]
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    uvloop.run(serve([int(port) for port in sys.argv[1:]]))
