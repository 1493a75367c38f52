"""The journey of one inference through this program: admit, generate, capture."""

import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, TypeVar

import uuid_utils
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from byline.errors import EngineBroke, EngineError
from byline.money import POLICY
from byline.records import Caller
from gateway.answers import Taped, read_plain, read_stream
from gateway.attribution_wait import inline_fields
from gateway.auth import ASKERS, caller_of
from gateway.charging import Charge, Charging, Ending, Inference, hold_nano
from gateway.engine_client import Ask
from gateway.engines.choosing import prefix_of, work_tokens
from gateway.errors import ClientGone
from gateway.leaving import unless_gone
from gateway.models import Models, Target
from gateway.observed import ENGINE, OTHER, Observed, observed
from gateway.presenting import Added, AsItCame, Presenter
from gateway.quotas import Admissions, want_of
from gateway.relay import Relay, RelayResponse
from gateway.services import Services
from gateway.streaming import Tape, refusal_in
from gateway.structured_outputs import explained
from gateway.wire import Endpoint, Question, engine_body, read_question

Result = TypeVar("Result")

APPLICATIONS_KEPT = 4_096  # whose salts are remembered

# What the engine calls its streams' chunks, and what their ids begin with.
CHUNKS = {
    Endpoint.CHAT: ("chat.completion.chunk", "chatcmpl"),
    Endpoint.COMPLETION: ("text_completion", "cmpl"),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and the form that its answer takes."""

    question: Question
    presenter: Callable[[Inference], Presenter]


class Inferences:
    """Answers questions: one hold before the first token, one capture or void after the last."""

    def __init__(
        self, services: Services, models: Models, charging: Charging, admissions: Admissions
    ) -> None:
        self._admissions = admissions
        self._services = services
        self._engines = services.engines
        self._models = models
        self._charging = charging

    async def answer(self, request: Request, read: Callable[[bytes], Asked]) -> Response:
        """One question's answer, whole or streamed. Raises the domain's errors."""
        seen = observed(request)
        caller = await caller_of(request, self._services.keys, ASKERS)
        with seen.elsewhere():
            raw = await request.body()
        asked = read(raw)
        question = asked.question
        id_ = str(uuid_utils.uuid7())
        seen.model = OTHER
        target = self._models.target(question, id_)
        seen.model, seen.inference, seen.streamed = target.label, id_, question.stream
        if tracing := self._services.tracing:
            seen.span = tracing.begin(seen, question, target.served_by, request.headers)
        if target.routed:
            self._services.telemetry.routed(target.label)
        inference = self._inference(seen, caller, question, target)
        context = self._services.release.context_tokens
        want = want_of(caller, inference.id, question, inference.held_nano, context)
        hold = partial(self._charging.hold, inference)
        await self._admissions.admit(caller, want, seen.headers, hold)
        seen.asks_engine = True
        presenter = asked.presenter(inference)
        if question.stream:
            return await self._stream(request, inference, presenter)
        return await self._plain(request, inference, presenter)

    def _inference(
        self, seen: Observed, caller: Caller, question: Question, target: Target
    ) -> Inference:
        assert seen.inference is not None
        context = self._services.release.context_tokens
        return Inference(
            id=seen.inference,
            application=caller.subject,
            question=question,
            target=target,
            held_nano=hold_nano(POLICY, question, target, context),
            time_ms=self._services.clock_ms(),
            seen=seen,
        )

    async def _plain(
        self, request: Request, inference: Inference, presenter: Presenter
    ) -> Response:
        work = self._engines.ask(self._ask(inference))
        body = await self._settling(request, inference, work)
        choices = inference.question.choices
        try:
            answer = read_plain(body, choices=choices, inference=inference.id)
            shown = presenter.whole(body, None)  # before its charge: it may be no answer after all
        except EngineBroke:
            self._charging.void(inference)
            raise
        charge = self._charging.finish(inference, answer)
        await charge.wait_kept()
        if inference.question.inline:
            added = await unless_gone(request, self._added(inference, charge))
            shown = presenter.whole(body, added)
        return Response(
            shown,
            headers=answer_headers(inference),
            media_type="application/json",
        )

    async def _stream(
        self, request: Request, inference: Inference, presenter: Presenter
    ) -> Response:
        work = self._engines.stream(self._ask(inference))
        upstream = await self._settling(request, inference, work)
        seen = observed(request)
        tape = Tape(shows_usage=presenter.shows_usage)
        question = inference.question
        if problem := refusal_in(upstream.first):
            upstream.close()
            self._charging.void(inference)
            raise explained(problem, question)

        def settle(ending: Ending) -> Charge:
            taped = Taped(tape.kept(), question.choices)
            return self._charging.finish(inference, taped, ending)

        def why(problem: EngineError, kept: bytes) -> EngineError:
            came = any(read_stream(kept, choices=question.choices).choices)
            return explained(problem, question, came=came)

        relay = Relay(
            upstream,
            tape,
            presenter,
            settle=settle,
            added=lambda charge: self._added(inference, charge),
            explained=why,
            seen=seen,
            piece=self._services.telemetry.pace(seen).piece,
        )
        return RelayResponse(relay, answer_headers(inference))

    def _ask(self, inference: Inference) -> Ask:
        ask = ask_of(inference, self._services.release.context_tokens)
        span = inference.seen.span
        return ask if span is None else replace(ask, trace=span.headers())

    async def _added(self, inference: Inference, charge: Charge) -> Added:
        """What the client asked of Byline itself, to stand in its answer."""
        if not inference.question.inline:
            return None
        with inference.seen.elsewhere():
            return await inline_fields(
                self._services.shards,
                inference.id,
                inference.application,
                charge.posted,
                self._services.limits.inline_seconds,
            )

    async def _settling(
        self, request: Request, inference: Inference, work: Coroutine[Any, Any, Result]
    ) -> Result:
        """What the engine answers. If nothing comes the hold is given back; a client that leaves
        before pays for its prompt."""
        seen = observed(request)
        engine = seen.part(ENGINE)
        try:
            with engine:
                return await unless_gone(request, work)
        except ClientGone:
            self._charging.abandon(inference)
            raise
        except BaseException as problem:
            self._charging.void(inference)
            if isinstance(problem, EngineError):
                raise explained(problem, inference.question) from problem
            raise
        finally:
            seen.upstream_seconds += engine.ended - engine.began


def ask_of(inference: Inference, context_tokens: int) -> Ask:
    """What the engine is sent for an inference, and what is needed to choose the engine."""
    question, adapter = inference.question, inference.target.adapter
    version = adapter.version if adapter else None
    body = engine_body(
        question, inference.target.served_by, cache_salt=cache_salt(inference.application)
    )
    longest = min(question.completion_tokens_max or context_tokens, context_tokens)
    return Ask(
        question.endpoint,
        body,
        inference.id,
        adapter=version,
        tokens=work_tokens(body, question.choices * longest, context_tokens),
        prefix=prefix_of(body, version, inference.application),
    )


@lru_cache(maxsize=APPLICATIONS_KEPT)
def cache_salt(application: str) -> str:
    """One prefix cache an application: how fast an answer begins tells nobody what another asked.

    No secret, because no client can set a salt: the gateway is the only one that does.
    """
    return hashlib.sha256(b"byline prefix cache\0" + application.encode()).hexdigest()


def answer_headers(inference: Inference) -> dict[str, str]:
    """The headers that name what answered and where its attribution will be."""
    headers = {
        "x-byline-inference-id": inference.id,
        "x-byline-adapter": inference.target.served_by,
        "x-byline-attribution": f"/v1/attributions/{inference.id}",
        "x-byline-receipt": f"/v1/receipts/{inference.id}",
    }
    if routed := inference.target.routed:
        headers["x-byline-route-confidence"] = f"{routed.confidence:.4f}"
        if routed.runner_up:
            headers["x-byline-route-runner-up"] = routed.runner_up
    return headers


def as_it_came(endpoint: Endpoint) -> Callable[[bytes], Asked]:
    """Reads a body of this endpoint; its answer is shown as the engine gives it."""
    name, prefix = CHUNKS[endpoint]

    def read(raw: bytes) -> Asked:
        question = read_question(endpoint, raw)

        def presenter(inference: Inference) -> Presenter:
            head = {
                "id": f"{prefix}-{inference.id}",
                "object": name,
                "created": inference.time_ms // 1_000,
                "model": inference.target.served_by,
            }
            return AsItCame(head, shows_usage=question.shows_usage)

        return Asked(question, presenter)

    return read


def inference_routes(inferences: Inferences) -> APIRouter:
    """POST /v1/chat/completions and POST /v1/completions.

    Starlette's plain routes: FastAPI's own look for parameters that these don't have, which takes
    three times as long.
    """
    routes = APIRouter()

    async def chat(request: Request) -> Response:
        return await inferences.answer(request, as_it_came(Endpoint.CHAT))

    async def complete(request: Request) -> Response:
        return await inferences.answer(request, as_it_came(Endpoint.COMPLETION))

    routes.add_route(Endpoint.CHAT, chat, methods=["POST"])
    routes.add_route(Endpoint.COMPLETION, complete, methods=["POST"])
    return routes
