"""A stand-in for vLLM in a thread of its own: its routes and its wire form, and every bad habit.

A request says by itself how it wants to be served, in the field `stand_in` (a Script's fields):
unknown fields reach the engine. So one engine serves all tests, also at the same time. An answer is
a call of the first tool where the request has tools, the object {"answer": 42} where it asks for
JSON, else " w100 w101 ...": a word a token.
"""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

from aiohttp import web

BASE = "tiny"
PROMPT_TOKENS = (11, 12, 13)
TOKENS_DEFAULT = 6
JSON_ANSWER = '{"answer": 42}'


@dataclass(frozen=True)
class Script:
    """How one request is to be served."""

    tokens: int = TOKENS_DEFAULT
    pause: float = 0.0  # before the answer, and after each event
    hang_after: int | None = None  # events; a plain answer hangs at 0
    cut_after: int | None = None  # events, then the connection is reset
    body: str | None = None  # in the place of a plain answer
    event: str | None = None  # sent as it is, after the second event
    comments: bool = False  # SSE comments between the events
    padding: int = 0  # bytes more in each event
    status: int = 200
    error: Any = None


@dataclass
class StandInEngine:
    """What was asked, what is under way, and where it listens."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    under_way: int = 0
    under_way_most: int = 0
    adapters: set[str] = field(default_factory=set)
    let_go: threading.Event = field(default_factory=threading.Event)  # what hangs is cut once

    def app(self) -> web.Application:
        """Its routes."""
        app = web.Application(client_max_size=2**27)
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_post("/v1/completions", self._answer)
        app.router.add_get("/health", self._well)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/detokenize", self._detokenize)
        return app

    async def _well(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": name} for name in [BASE, *self.adapters]]})

    async def _load(self, request: web.Request) -> web.Response:
        self.adapters.add(json.loads(await request.read())["lora_name"])
        return web.Response(text="Success")

    async def _tokenize(self, _: web.Request) -> web.Response:
        tokens = list(PROMPT_TOKENS)
        fields = {"tokens": tokens, "count": len(tokens), "max_model_len": 2048}
        return web.json_response({**fields, "token_strs": None})

    async def _detokenize(self, _: web.Request) -> web.Response:
        return web.json_response({"prompt": "What helps?"})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        fields = json.loads(await request.read())
        if request.headers.get("x-request-id") == "canary":
            top = {" the": -0.5 if fields["model"] in self.adapters else -1.0}
            return web.json_response({"choices": [{"logprobs": {"top_logprobs": [top]}}]})
        self.asked.append(fields)
        self.under_way += 1
        self.under_way_most = max(self.under_way_most, self.under_way)
        try:
            return await self._served(request, fields, Script(**fields.get("stand_in", {})))
        finally:
            self.under_way -= 1

    async def _served(
        self, request: web.Request, fields: dict[str, Any], script: Script
    ) -> web.StreamResponse:
        await asyncio.sleep(script.pause)
        if script.status != 200:
            return web.json_response({"error": script.error}, status=script.status)
        answer = Answer(request.path.endswith("chat/completions"), fields, script)
        if fields.get("stream"):
            return await self._streamed(request, answer)
        await self._misbehaving(request, 0, script)
        body = json.dumps(answer.whole()) if script.body is None else script.body
        return web.Response(body=body.encode(), content_type="application/json")

    async def _streamed(self, request: web.Request, answer: "Answer") -> web.StreamResponse:
        script = answer.script
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number, event in enumerate(answer.events()):
            await self._misbehaving(request, number, script)
            await response.write(event)
            await asyncio.sleep(script.pause)
        return response

    async def _misbehaving(self, request: web.Request, number: int, script: Script) -> None:
        if number == script.hang_after:
            while not self.let_go.is_set():
                await asyncio.sleep(0.05)
            self._cut(request)
        if number == script.cut_after:
            self._cut(request)

    def _cut(self, request: web.Request) -> NoReturn:
        assert request.transport is not None
        request.transport.abort()
        raise ConnectionResetError


@dataclass(frozen=True)
class Answer:
    """One answer in vLLM's wire form."""

    is_chat: bool
    fields: dict[str, Any]
    script: Script

    @property
    def _words(self) -> list[str]:
        asked = self.fields.get("response_format") or {}
        if asked.get("type") in ("json_object", "json_schema"):
            return [JSON_ANSWER]
        longest = self.fields.get("max_completion_tokens") or self.fields.get("max_tokens")
        count = min(self.script.tokens, longest or self.script.tokens)
        return [f" w{100 + number}" for number in range(count)]

    @property
    def _tool(self) -> str | None:
        tools = self.fields.get("tools") or []
        messages = self.fields.get("messages") or [{}]
        is_wanted = tools and self.fields.get("tool_choice") != "none"
        return (
            tools[0]["function"]["name"] if is_wanted and messages[-1]["role"] == "user" else None
        )

    @property
    def _head(self) -> dict[str, Any]:
        kind = "chat.completion" if self.is_chat else "text_completion"
        is_chunk = self.is_chat and self.fields.get("stream")
        kind = f"{kind}.chunk" if is_chunk else kind
        return {"id": "cmpl-1", "object": kind, "created": 1, "model": self.fields["model"]}

    def _usage(self) -> dict[str, Any]:
        prompt, completion = len(PROMPT_TOKENS), len(self._words) * self._choices
        return {
            "prompt_tokens": prompt, "completion_tokens": completion,
            "total_tokens": prompt + completion, "prompt_tokens_details": None,
        }  # fmt: skip

    @property
    def _choices(self) -> int:
        return int(self.fields.get("n") or 1)

    def whole(self) -> dict[str, Any]:
        """A plain answer."""
        ids = [100 + number for number in range(len(self._words))]
        choices = [self._choice(index, ids) for index in range(self._choices)]
        whole = {**self._head, "choices": choices, "usage": self._usage()}
        return {**whole, "prompt_token_ids": list(PROMPT_TOKENS)} if self.is_chat else whole

    def _choice(self, index: int, ids: list[int]) -> dict[str, Any]:
        end = "tool_calls" if self._tool else "stop"
        choice = {"index": index, "finish_reason": end, "stop_reason": None, "logprobs": None,
                  "token_ids": ids}  # fmt: skip
        if not self.is_chat:
            return {**choice, "text": "".join(self._words),
                    "prompt_token_ids": list(PROMPT_TOKENS)}  # fmt: skip
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._words)}
        if self._tool:
            call = {"id": "call-1", "type": "function",
                    "function": {"name": self._tool, "arguments": JSON_ANSWER}}  # fmt: skip
            message |= {"content": None, "tool_calls": [call]}
        return {**choice, "message": message}

    def events(self) -> Iterator[bytes]:
        """A streamed answer, an event each."""
        for number, body in enumerate(self._chunks()):
            if self.script.event is not None and number == 2:
                yield f"data: {self.script.event}\n\n".encode()
            if self.script.comments:
                yield b": a comment\n\n"
            if self.script.padding:
                body["padding"] = "x" * self.script.padding
            yield b"data: %s\n\n" % json.dumps(body, separators=(",", ":")).encode()
        yield b"data: [DONE]\n\n"

    def _chunks(self) -> Iterator[dict[str, Any]]:
        if self.is_chat:
            first = self._chunk(0, {"delta": {"role": "assistant", "content": ""}}, None)
            yield {**first, "prompt_token_ids": list(PROMPT_TOKENS)}
        for place, word in enumerate(self._words):
            is_last = place == len(self._words) - 1
            for index in range(self._choices):
                yield self._chunk(index, self._piece(place, word, is_last), 100 + place)
        if (self.fields.get("stream_options") or {}).get("include_usage"):
            yield {**self._head, "choices": [], "usage": self._usage()}

    def _piece(self, place: int, word: str, is_last: bool) -> dict[str, Any]:
        end = ("tool_calls" if self._tool else "stop") if is_last else None
        if not self.is_chat:
            prompt = None if place else list(PROMPT_TOKENS)
            return {"text": word, "prompt_token_ids": prompt, "finish_reason": end}
        if self._tool is None:
            return {"delta": {"content": word}, "finish_reason": end}
        call: dict[str, Any] = {
            "index": 0,
            "function": {"arguments": JSON_ANSWER if is_last else ""},
        }
        if place == 0:
            call |= {"id": "call-1", "type": "function"}
            call["function"]["name"] = self._tool
        return {"delta": {"tool_calls": [call]}, "finish_reason": end}

    def _chunk(self, index: int, piece: dict[str, Any], token: int | None) -> dict[str, Any]:
        ids = None if token is None else [token]
        choice = {"index": index, "logprobs": None, "finish_reason": None, "token_ids": ids}
        return {**self._head, "choices": [choice | piece]}


@contextmanager
def running_engine() -> Iterator[StandInEngine]:
    """A stand-in engine that listens on a loopback port as long as the block."""
    engine, ready = StandInEngine(), threading.Event()
    loop = asyncio.new_event_loop()

    async def start() -> web.AppRunner:
        runner = web.AppRunner(
            engine.app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.01
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1_024).start()
        host, port = runner.addresses[0][:2]
        engine.url = f"http://{host}:{port}"
        return runner

    def run() -> None:
        runner = loop.run_until_complete(start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run, name="engine", daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield engine
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
