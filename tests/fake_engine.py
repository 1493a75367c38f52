"""A fake engine for unit tests: vLLM's wire form on a loopback port, and every way to break off."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


def call_of(call: Mapping[str, str], **changes: str) -> dict[str, Any]:
    """A function call as a chat has it."""
    function = {"name": call["name"], "arguments": call["arguments"], **changes}
    return {"id": call["id"], "type": "function", "function": function}


ERROR_EVENT = b'data: {"error":{"message":"lost /srv/models/x.bin"}}\n\n'


@dataclass
class FakeEngine:
    """An engine on a loopback port. Each token is an id and a word; vLLM's wire form."""

    prompt: list[int] = field(default_factory=lambda: [11, 12, 13])
    choices: list[list[int]] = field(default_factory=lambda: [[101, 102, 103]])
    piece_bytes: int = 0  # cut the stream into writes of this many bytes; 0: an event a write
    pause: float = 0.0  # before the answer, and between two events of a stream
    keep_alive: bool = False
    has_usage: bool = True
    usage_off_by: int = 0
    stop_after: int | None = None  # events, then the connection is cut
    hang_after: int | None = None  # events, then nothing comes until the client goes away
    refuses: tuple[int, object] | None = None
    error_after: int | None = None  # events, then an error event
    error_event: bytes = ERROR_EVENT
    answer: bytes | None = None  # in the place of a plain answer
    healthy: bool = True
    asked: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    sent: bytes = b""
    calls: list[dict[str, str]] = field(default_factory=list)  # functions that a chat calls
    finish_reason: str = "stop"
    word: str = "w"  # that each token's word begins with
    tokenized: list[dict[str, Any]] = field(default_factory=list)
    tokenizer_refuses: int | None = None  # with this status
    tokenizer_pause: float = 0.0
    adapters: dict[str, str] = field(default_factory=dict)  # what is loaded: version to folder
    loads: list[tuple[str, str]] = field(default_factory=list)
    load_refused: tuple[int, str] | None = None  # how loading fails: status and message
    ignored: set[str] = field(default_factory=set)  # loaded, and not applied
    probed: list[str] = field(default_factory=list)  # the models that canaries asked for
    aborted: asyncio.Event = field(default_factory=asyncio.Event)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._handle)
        app.router.add_post("/v1/completions", self._handle)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/detokenize", self._detokenize)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        return app

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy else 503)

    async def _tokenize(self, request: web.Request) -> web.Response:
        self.tokenized.append(json.loads(await request.read()))
        await asyncio.sleep(self.tokenizer_pause)
        if self.tokenizer_refuses is not None:
            message = f"no: {self.tokenized[-1]}"
            return web.json_response({"error": {"message": message}}, status=self.tokenizer_refuses)
        counts = {"count": len(self.prompt), "max_model_len": 2048}
        return web.json_response({**counts, "tokens": self.prompt, "token_strs": None})

    async def _detokenize(self, request: web.Request) -> web.Response:
        self.tokenized.append(json.loads(await request.read()))
        return web.json_response({"prompt": "What helps?"})

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": name} for name in ["tiny", *self.adapters]]})

    async def _load(self, request: web.Request) -> web.Response:
        fields = json.loads(await request.read())
        self.loads.append((fields["lora_name"], fields["lora_path"]))
        if self.load_refused is not None:
            status, message = self.load_refused
            return web.json_response({"error": {"message": message}}, status=status)
        self.adapters[fields["lora_name"]] = fields["lora_path"]
        return web.Response(text="Success")

    async def _unload(self, request: web.Request) -> web.Response:
        del self.adapters[json.loads(await request.read())["lora_name"]]
        return web.Response(text="Success")

    def _canary(self, model: str) -> web.Response:
        self.probed.append(model)
        changes = model in self.adapters and model not in self.ignored
        top = {" the": -0.5 if changes else -1.0, " a": -2.0}
        return web.json_response({"choices": [{"logprobs": {"top_logprobs": [top]}}]})

    def _lacks(self, model: str) -> bool:
        return "@" in model and model not in self.adapters

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        fields = json.loads(await request.read())
        headers = {name.lower(): value for name, value in request.headers.items()}
        if self._lacks(fields["model"]):
            message = f"The model `{fields['model']}` does not exist."
            return web.json_response({"error": {"message": message}}, status=404)
        if headers["x-request-id"] == "canary":
            return self._canary(fields["model"])
        self.asked.append((request.path, headers, fields))
        if self.refuses is not None:
            return web.json_response(self.refuses[1], status=self.refuses[0])
        try:
            if not fields.get("stream"):
                return await self._plain(request, fields)
            return await self._stream(request, fields)
        except (asyncio.CancelledError, ConnectionError):
            self.aborted.set()
            raise

    async def _plain(self, request: web.Request, fields: dict[str, Any]) -> web.Response:
        await asyncio.sleep(self.pause)
        if self.stop_after == 0:
            assert request.transport is not None
            request.transport.abort()
        self.sent = self.answer or json.dumps(self._whole(request.path, fields)).encode()
        return web.Response(body=self.sent, content_type="application/json")

    def _whole(self, path: str, fields: dict[str, Any]) -> dict[str, Any]:
        is_chat = path.endswith("chat/completions")
        choices: list[dict[str, Any]] = []
        for index, ids in enumerate(self.choices):
            text = "".join(f" {self.word}{token}" for token in ids)
            choice: dict[str, Any] = {"index": index, "token_ids": ids}
            choice["finish_reason"] = self.finish_reason
            if is_chat:
                choice["message"] = {"role": "assistant", "content": text}
                if self.calls:
                    choice["message"]["tool_calls"] = [call_of(call) for call in self.calls]
            else:
                choice |= {"text": text, "prompt_token_ids": self.prompt}
            choices.append(choice)
        name = "chat.completion" if is_chat else "text_completion"
        whole = {"id": "x", "object": name, "created": 1, "model": fields["model"]}
        if is_chat:
            whole["prompt_token_ids"] = self.prompt
        return {**whole, "choices": choices, "usage": self._usage()}

    def _usage(self) -> dict[str, int]:
        completion = sum(len(ids) for ids in self.choices) + self.usage_off_by
        total = len(self.prompt) + completion
        counts = {"prompt_tokens": len(self.prompt), "completion_tokens": completion}
        return {**counts, "total_tokens": total}

    async def _stream(self, request: web.Request, fields: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await asyncio.sleep(self.pause)
        await response.prepare(request)
        for number, event in enumerate(self.events(request.path, fields)):
            if number == self.stop_after:
                assert request.transport is not None
                request.transport.abort()
                return response
            if number == self.hang_after:
                await asyncio.sleep(60)
            for piece in self._pieces(self.error_event if number == self.error_after else event):
                self.sent += piece
                await response.write(piece)
            await asyncio.sleep(self.pause)
        return response

    def _pieces(self, event: bytes) -> Iterable[bytes]:
        size = self.piece_bytes or len(event)
        return (event[start : start + size] for start in range(0, len(event), size))

    def events(self, path: str, fields: dict[str, Any]) -> list[bytes]:
        """The whole stream, an event each."""
        is_chat = path.endswith("chat/completions")
        chunks: list[dict[str, Any]] = []
        if is_chat:
            chunks = [
                {"index": index, "delta": {"role": "assistant", "content": ""}}
                for index in range(len(self.choices))
            ]
        for place in range(max(len(ids) for ids in self.choices)):
            for index, ids in enumerate(self.choices):
                if place < len(ids):
                    chunks.append(self._chunk(is_chat, index, ids, place))
        if is_chat:
            chunks += self._call_chunks()
        name = "chat.completion.chunk" if is_chat else "text_completion"
        head = {"id": "x", "object": name, "created": 1, "model": fields["model"]}
        bodies = [{**head, "choices": [chunk]} for chunk in chunks]
        if is_chat:
            bodies[0]["prompt_token_ids"] = self.prompt
        if self.has_usage and fields.get("stream_options", {}).get("include_usage"):
            bodies.append({**head, "choices": [], "usage": self._usage()})
        dumped = [json.dumps(body, separators=(",", ":")).encode() for body in bodies]
        events = [b"data: %s\n\n" % body for body in dumped]
        if self.keep_alive:
            events.insert(1, b": keep-alive\n\n")
        return [*events, b"data: [DONE]\n\n"]

    def _call_chunks(self) -> list[dict[str, Any]]:
        """vLLM names the function first, then come its arguments."""
        parts = [
            part
            for place, call in enumerate(self.calls)
            for part in (
                {**call_of(call, arguments=""), "index": place},
                {"index": place, "function": {"arguments": call["arguments"]}},
            )
        ]
        return [{"index": 0, "delta": {"tool_calls": [part]}} for part in parts]

    def _chunk(self, is_chat: bool, index: int, ids: list[int], place: int) -> dict[str, Any]:
        # The text imitates what the gateway looks for, as a model's answer may.
        word = f' {self.word}{ids[place]} "choices":[] data: [DONE]'
        last = place == len(ids) - 1
        chunk: dict[str, Any] = {
            "index": index, "token_ids": [ids[place]],
            "finish_reason": self.finish_reason if last else None,
        }  # fmt: skip
        if is_chat:
            return {**chunk, "delta": {"content": word}}
        return {**chunk, "text": word, "prompt_token_ids": None if place else self.prompt}
