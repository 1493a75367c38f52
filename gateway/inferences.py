"""The journey of one inference through this program: admit, generate, capture."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uuid_utils
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from byline.errors import EngineBroke
from byline.money import POLICY
from byline.records import Caller
from gateway.answers import read_plain, read_stream
from gateway.auth import ASKERS, caller_of
from gateway.charging import CAPTURE_WAIT_SECONDS, Charging, Inference, hold_nano
from gateway.engine_client import Ask
from gateway.errors import ClientGone
from gateway.middleware import Observed, observed
from gateway.models import Models, Target
from gateway.relay import Relay, RelayResponse, first_event_timer
from gateway.services import Services
from gateway.streaming import Tape
from gateway.wire import Endpoint, Question, engine_body, read_question

Result = TypeVar("Result")


class Inferences:
    """Answers questions: one hold before the first token, one capture or void after the last."""

    def __init__(self, services: Services, models: Models, charging: Charging) -> None:
        self._services = services
        self._engine = services.engine
        self._models = models
        self._charging = charging

    async def answer(self, request: Request, endpoint: Endpoint) -> Response:
        """One question's answer, whole or streamed. Raises the domain's errors."""
        seen = observed(request)
        caller = await caller_of(request, self._services.keys, ASKERS)
        question = read_question(endpoint, await request.body())
        target = self._models.target(question)
        seen.model = target.label
        if target.routed:
            self._services.telemetry.auto_routed.labels(target.label).inc()
        inference = self._inference(caller, question, target)
        await self._charging.hold(inference)
        seen.asks_engine = True
        if question.stream:
            return await self._stream(request, inference)
        return await self._plain(request, inference)

    def _inference(self, caller: Caller, question: Question, target: Target) -> Inference:
        context = self._services.release.context_tokens
        return Inference(
            id=str(uuid_utils.uuid7()),
            application=caller.subject,
            question=question,
            target=target,
            held_nano=hold_nano(POLICY, question, target, context),
            time_ms=self._services.clock_ms(),
        )

    async def _plain(self, request: Request, inference: Inference) -> Response:
        work = self._engine.ask(_ask(inference))
        body = await self._voiding(request, inference, work)
        choices = inference.question.choices
        try:
            answer = read_plain(body, choices=choices, inference=inference.id)
        except EngineBroke:
            self._charging.void(inference)
            raise
        capture = self._charging.finish(inference, lambda: answer)
        await asyncio.wait({capture}, timeout=CAPTURE_WAIT_SECONDS)
        return Response(body, headers=answer_headers(inference), media_type="application/json")

    async def _stream(self, request: Request, inference: Inference) -> Response:
        work = self._engine.stream(_ask(inference))
        upstream = await self._voiding(request, inference, work)
        seen = observed(request)
        tape = Tape(shows_usage=inference.question.shows_usage)
        choices = inference.question.choices

        def settle(ended_early: bool) -> "asyncio.Task[None]":
            return self._charging.finish(
                inference,
                lambda: read_stream(tape.kept(), choices=choices),
                ended_early=ended_early,
            )

        relay = Relay(upstream, tape, settle, seen, self._first_token(inference, seen))
        return RelayResponse(relay, answer_headers(inference))

    def _first_token(self, inference: Inference, seen: Observed) -> Callable[[], None]:
        histogram = self._services.telemetry.first_token_seconds.labels(inference.target.label)
        return first_event_timer(histogram.observe, seen.started)

    async def _voiding(
        self, request: Request, inference: Inference, work: Coroutine[Any, Any, Result]
    ) -> Result:
        """The engine's answer; the hold is given back if none comes or the client goes away."""
        seen = observed(request)
        started = time.perf_counter()
        answered = False
        try:
            result = await unless_gone(request, work)
            answered = True
            return result
        finally:
            seen.upstream_seconds += time.perf_counter() - started
            if not answered:
                self._charging.void(inference)


def _ask(inference: Inference) -> Ask:
    body = engine_body(inference.question, inference.target.served_by)
    return Ask(inference.question.endpoint, body, inference.id)


def answer_headers(inference: Inference) -> dict[str, str]:
    """The headers that name what answered and where its attribution will be."""
    headers = {
        "x-byline-inference-id": inference.id,
        "x-byline-adapter": inference.target.served_by,
        "x-byline-attribution": f"/v1/attributions/{inference.id}",
    }
    if routed := inference.target.routed:
        headers["x-byline-route-confidence"] = f"{routed.confidence:.4f}"
        if routed.runner_up:
            headers["x-byline-route-runner-up"] = routed.runner_up
    return headers


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client disconnects: then ClientGone.

    The request's body must have been read: what else arrives is thrown away.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone("the client went away before its answer was ready")
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def inference_routes(inferences: Inferences) -> APIRouter:
    """POST /v1/chat/completions and POST /v1/completions."""
    routes = APIRouter()

    @routes.post(Endpoint.CHAT, response_model=None)
    async def chat(request: Request) -> Response:
        return await inferences.answer(request, Endpoint.CHAT)

    @routes.post(Endpoint.COMPLETION, response_model=None)
    async def complete(request: Request) -> Response:
        return await inferences.answer(request, Endpoint.COMPLETION)

    return routes
