"""Text to token ids and back, by the engine's own tokenizer. Not charged, and bounded."""

import asyncio
from typing import Literal

import uuid_utils
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from byline.errors import EngineBusy, EngineTimedOut, InvalidInput
from gateway.auth import ASKERS, caller_of
from gateway.engine_client import Ask
from gateway.leaving import unless_gone
from gateway.models import Models
from gateway.services import Services
from gateway.wire import JsonObject, dumped, invalid, read_object
from gateway.wire.bodies import MODEL_NAME_CHARACTERS_MAX, TOKENS_MAX, ChatMessage

SECONDS_MAX = 10.0
AT_ONCE_MAX = 8  # of this process: the engine tokenizes beside its answers
IDS_MAX = 131_072

Route = Literal["/tokenize", "/detokenize"]


class Named(BaseModel):
    """What both bodies have in common; a field that is not known is refused."""

    model_config = ConfigDict(strict=True, extra="forbid")
    model: str = Field(min_length=1, max_length=MODEL_NAME_CHARACTERS_MAX)


class TokenizeBody(Named):
    """POST /v1/tokenize: a prompt, or a chat."""

    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(default=None, min_length=1)
    tools: list[JsonObject] | None = None
    chat_template_kwargs: JsonObject | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(Named):
    """POST /v1/detokenize."""

    tokens: list[int] = Field(max_length=IDS_MAX)


BODIES: dict[Route, type[Named]] = {"/tokenize": TokenizeBody, "/detokenize": DetokenizeBody}


class Tokens:
    """Asks the engine's tokenizer."""

    def __init__(self, services: Services, models: Models) -> None:
        self._services = services
        self._models = models
        self._places = asyncio.Semaphore(AT_ONCE_MAX)

    async def answer(self, request: Request, route: Route) -> Response:
        """The tokenizer's answer, as the engine gives it."""
        await caller_of(request, self._services.keys, ASKERS)
        body = self._engine_body(route, read_object(await request.body()))
        ask = Ask(route, body, str(uuid_utils.uuid7()))
        answer = await unless_gone(request, self._ask(ask))
        return Response(answer, media_type="application/json")

    async def _ask(self, ask: Ask) -> bytes:
        if self._places.locked():
            raise EngineBusy("Too many texts are being tokenized now.")
        try:
            async with self._places, asyncio.timeout(SECONDS_MAX):
                return await self._services.engines.ask(ask)
        except TimeoutError as problem:
            raise EngineTimedOut("The engine's tokenizer did not answer in time.") from problem

    def _engine_body(self, route: Route, fields: JsonObject) -> bytes:
        try:
            body = BODIES[route].model_validate(fields)
        except ValidationError as problem:
            raise invalid(problem) from problem
        if isinstance(body, TokenizeBody) and (body.prompt is None) == (body.messages is None):
            raise InvalidInput("Say either 'prompt' or 'messages'.", param="prompt")
        if isinstance(body, DetokenizeBody) and not all(0 <= i <= TOKENS_MAX for i in body.tokens):
            raise InvalidInput("A token id is not negative.", param="tokens")
        given = {name: value for name, value in fields.items() if value is not None}
        return dumped({**given, "model": self._base_of(body.model)})

    def _base_of(self, name: str) -> str:
        """The base model's name: its tokenizer is every adapter's. NotFound for an unknown name."""
        self._models.described(name)
        return self._models.release.base_model


def tokens_routes(tokens: Tokens) -> APIRouter:
    """POST /v1/tokenize and POST /v1/detokenize."""
    routes = APIRouter()

    @routes.post("/v1/tokenize", response_model=None)
    async def tokenize(request: Request) -> Response:
        return await tokens.answer(request, "/tokenize")

    @routes.post("/v1/detokenize", response_model=None)
    async def detokenize(request: Request) -> Response:
        return await tokens.answer(request, "/detokenize")

    return routes
