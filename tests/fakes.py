"""Fakes for unit tests: the contracts' methods in memory, failing before or after writing.

They subclass the real classes, so that a method whose signature drifts fails the type check.
"""

import asyncio
import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from byline.api_keys import ApiKeys
from byline.canonical import canonical_bytes, sha256_hex
from byline.errors import (
    InsufficientFunds,
    KeyConflict,
    LedgerRefused,
    LedgerUnavailable,
    Unauthenticated,
)
from byline.ledger.ledger import Ledger, Standing
from byline.posting.postings import Posting
from byline.quotas.quotas import Quotas
from byline.quotas.scopes import Admitted, Overdue, Refused, Scope, Want
from byline.records import (
    Attribution,
    AttributionState,
    Caller,
    Capture,
    InferenceRecord,
    Posted,
)
from byline.records_json import attribution_fields, capture_fields, capture_from

Failure = Literal["before", "after"]  # without having written, or having written: both unknown


class FakeLedger(Ledger):
    """Holds, captures, voids and attributions in memory; balances of applications only."""

    def __init__(self) -> None:
        self.funds: dict[str, int] = {"shop": 10**9}
        self.holds: dict[str, tuple[str, int, int]] = {}
        self.captures: dict[str, Capture] = {}
        self.voids: list[str] = []
        self.attributions: dict[str, list[Attribution]] = {}
        self.blocked: dict[str, str] = {}  # accounts whose payouts are held back
        self.attempts: list[str] = []  # the operations that were tried, in order
        self.failures: dict[str, deque[Failure]] = {}
        self.refusals: dict[str, deque[Exception]] = {}
        self.away = False
        self.capture_pause = 0.0
        self._posted: dict[str, object] = {}

    def fail(self, operation: str, *failures: Failure) -> None:
        """Fail the next posts of an operation, in this order."""
        self.failures[operation] = deque(failures)

    def _post(self, operation: str, inference: str, payload: object) -> bool:
        """True if this is new; raises as the real ledger would."""
        self.attempts.append(operation)
        if refusals := self.refusals.get(operation):
            raise refusals.popleft()
        failure = self._next_failure(operation)
        if failure == "before":
            raise LedgerUnavailable(f"{operation}: no answer")
        key = f"{inference}/{operation}"
        known = self._posted.setdefault(key, payload)
        if known != payload:
            raise KeyConflict(f"{key} came with another payload")
        return known is payload

    def _next_failure(self, operation: str) -> Failure | None:
        if self.away:
            return "before"
        queue = self.failures.get(operation)
        return queue[0] if queue else None

    def _answered(self, operation: str, *, new: bool) -> Posted:
        if queue := self.failures.get(operation):
            queue.popleft()
            raise LedgerUnavailable(f"{operation}: the answer was lost")
        return Posted(len(self._posted), duplicate=not new)

    def _begin(self, operation: str, inference: str, payload: object) -> bool:
        try:
            return self._post(operation, inference, payload)
        except LedgerUnavailable:
            if queue := self.failures.get(operation):
                queue.popleft()
            raise

    async def close(self) -> None:
        self.attempts.append("close")

    async def ping(self) -> None:
        if self.away:
            raise LedgerUnavailable("ping: no answer")

    async def hold(
        self, inference: str, application: str, nano: int, *, expires_ms: int, time_ms: int
    ) -> Posted:
        new = self._begin("hold", inference, (application, nano, expires_ms))
        if new:
            if self.funds.get(application, 0) < nano:
                del self._posted[f"{inference}/hold"]
                raise InsufficientFunds(f"'{application}' can't pay {nano} nano-USD")
            self.funds[application] -= nano
            self.holds[inference] = (application, nano, expires_ms)
        return self._answered("hold", new=new)

    async def rejoin(self) -> None:
        self.attempts.append("rejoin")

    async def post(self, posting: Posting) -> Posted | None:
        fields = json.loads(posting.payload)
        if posting.operation == "capture":
            return await self.capture(capture_from(fields), time_ms=0)
        return await self.void(posting.inference, fields["application"], time_ms=0)

    async def capture(self, capture: Capture, *, time_ms: int) -> Posted:
        await asyncio.sleep(self.capture_pause)
        new = self._begin("capture", capture.inference, capture)
        if new:
            application, nano, _ = self.holds.pop(capture.inference)
            assert nano == capture.held_nano >= capture.charge_nano
            parts = sum(leg.nano for leg in capture.credits) + sum(capture.pools)
            assert parts == capture.charge_nano
            self.funds[application] += nano - capture.charge_nano
            self.captures[capture.inference] = capture
            self.attributions.setdefault(capture.inference, _first_states(capture))
        return self._answered("capture", new=new)

    async def void(self, inference: str, application: str, *, time_ms: int) -> Posted:
        new = self._begin("void", inference, application)
        if new:
            if inference not in self.holds:
                raise LedgerRefused(f"nothing is held for {inference}")
            _, nano, _ = self.holds.pop(inference)
            self.funds[application] += nano
            self.voids.append(inference)
        return self._answered("void", new=new)

    async def expired_holds(self, *, now_ms: int, limit: int = 100) -> list[str]:
        return [name for name, (_, _, expires) in self.holds.items() if expires <= now_ms][:limit]

    async def expire(self, inference: str, *, time_ms: int) -> Posted | None:
        if inference not in self.holds:
            return None
        application, nano, _ = self.holds.pop(inference)
        self.funds[application] += nano
        return Posted(0)

    async def inference(self, inference: str) -> InferenceRecord | None:
        if self.away:
            raise LedgerUnavailable("read: no answer")
        capture = self.captures.get(inference)
        if capture is None:
            return None
        legs = {leg.account: leg.nano for leg in capture.credits}
        if capture.pools:
            legs[f"open:{inference}"] = sum(capture.pools)
        return InferenceRecord(capture, 1_000, legs, tuple(self.attributions[inference]))

    async def manifest_hashes(self, inference: str) -> Mapping[str, str]:
        capture = canonical_bytes(capture_fields(self.captures[inference]))
        settled = {
            f"settle/{a.ordinal}": sha256_hex(canonical_bytes(attribution_fields(a)))
            for a in self.attributions[inference]
            if a.state in (AttributionState.DONE, AttributionState.FAILED)
        }
        return {"capture/0": sha256_hex(capture), **settled}

    async def standing(self, inference: str) -> Standing | None:
        if inference not in self.holds:
            return None
        application, nano, _ = self.holds[inference]
        return Standing("held", application, nano)

    async def payout_blocks(self) -> Mapping[str, str]:
        if self.away:
            raise LedgerUnavailable("read the payout blocks: no answer")
        return self.blocked


def _first_states(capture: Capture) -> list[Attribution]:
    state = AttributionState.SKIPPED if capture.skipped else AttributionState.PENDING
    return [
        Attribution(
            capture.inference, ordinal, state, capture.skipped, capture.adapter_version,
            capture.index, pool_nano=capture.pools[ordinal] if capture.pools else 0,
        )
        for ordinal in range(len(capture.usage.completion_tokens))
    ]  # fmt: skip


class FakeKeys(ApiKeys):
    """Keys by their secret."""

    def __init__(self, callers: Mapping[str, Caller]) -> None:
        self.callers = dict(callers)
        self.away = False

    async def find(self, secret: str) -> Caller:
        if self.away:
            raise LedgerUnavailable("look up an API key: no answer")
        if secret not in self.callers:
            raise Unauthenticated("the API key is not known")
        return self.callers[secret]

    async def close(self) -> None:
        pass


class FakeQuotas(Quotas):
    """One answer for every admission; what was taken and corrected, in order."""

    def __init__(self) -> None:
        self.answer: Admitted | Refused = Admitted(is_limited=False)
        self.away = False
        self.wants: list[Want] = []
        self.corrections: list[tuple[str, int, int, int]] = []  # inference, requests, tokens, nano

    async def admit(self, want: Want, *, lasts_ms: int) -> Admitted | Refused:
        self.wants.append(want)
        if self.away:
            raise LedgerUnavailable("quotas: no answer")
        return self.answer

    async def correct(
        self,
        inference: str,
        scopes: Iterable[Scope],
        *,
        requests: int = 1,
        tokens: int,
        nano: int,
        keep_ms: int = 0,
    ) -> bool:
        if self.away:
            raise LedgerUnavailable("quotas: no answer")
        self.corrections.append((inference, requests, tokens, nano))
        return True

    async def overdue(self, *, limit: int = 1_000) -> list[Overdue]:
        return []

    async def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class FakeRoute:
    """What a router answers."""

    adapter: str | None
    confidence: float
    runner_up: str | None


class FakeRouter:
    """Routes by a word in the text; nothing found is below the floor."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self.words = words

    def route(self, text: str) -> FakeRoute:
        for word, adapter in self.words.items():
            if word in text:
                return FakeRoute(adapter, 0.9, "cyber")
        return FakeRoute(None, 0.21, "cyber")


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
