"""Domain error -> HTTP status, in OpenAI's error shape: one table, and the handlers that use it."""

import json
import logging
import re
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from byline.errors import (
    AdapterUnavailable,
    ArchiveUnavailable,
    BudgetSpent,
    BylineError,
    EngineBroke,
    EngineBusy,
    EngineRefused,
    EngineTimedOut,
    EngineUnavailable,
    Forbidden,
    InsufficientFunds,
    InvalidInput,
    LedgerFenced,
    LedgerFrozen,
    LedgerFull,
    LedgerUnavailable,
    NotFound,
    NotProven,
    RequestsLimitReached,
    SpoolFull,
    TokensLimitReached,
    Unauthenticated,
)
from gateway.observed import observed

log = logging.getLogger("gateway")

MESSAGE_CHARACTERS_MAX = 1_000
# An absolute path of two parts or more that is not the tail of a word or of a URL.
PATH = re.compile(r"(?<![\w/:.])/(?!v1/)(?:[\w.@+-]+/)+[\w.@+-]*")  # our own routes stay
CLIENT_GONE_STATUS = 499  # nobody reads it: it is what the metrics say


class BodyTooLarge(InvalidInput):
    """The request body is larger than it may be."""


class ClientGone(BylineError):
    """The client closed its connection before its answer was ready."""


@dataclass(frozen=True, slots=True)
class Answered:
    """How one kind of error is answered."""

    status: int
    type: str
    code: str


INVALID = Answered(400, "invalid_request_error", "invalid_value")
INTERNAL = Answered(500, "server_error", "internal_error")
NO_FUNDS_MESSAGE = (
    "Your balance does not cover the largest possible charge of this request, which is held before "
    "the first token. Deposit money, or ask for fewer tokens with max_tokens."
)
# In the place of what the ledger's server said, which is in the log: its words are for operators.
PLAIN: tuple[tuple[type[BylineError], str], ...] = (
    (SpoolFull, "Byline's ledger is away, and no more can be kept for it. Ask again later."),
    (LedgerUnavailable, "Byline's ledger does not answer. Nothing is served unmetered: ask again."),
    (LedgerFull, "Byline's ledger has no room for another hold. Ask again later."),
    (LedgerFrozen, "Byline's ledger is stopped until an operator has looked at it."),
    (LedgerFenced, "Byline's ledger has moved, and this gateway is about to follow. Ask again."),
)
INTERNAL_MESSAGE = "Byline failed to handle this request. It has been logged."

# The first class that matches decides, so children stand above their parents.
TABLE: tuple[tuple[type[BylineError], Answered], ...] = (
    (BodyTooLarge, Answered(413, "invalid_request_error", "request_too_large")),
    (InvalidInput, INVALID),
    (Unauthenticated, Answered(401, "invalid_request_error", "invalid_api_key")),
    (Forbidden, Answered(403, "permission_error", "permission_denied")),
    (NotProven, Answered(409, "invalid_request_error", "proof_pending")),
    (NotFound, Answered(404, "invalid_request_error", "not_found")),
    (InsufficientFunds, Answered(429, "insufficient_quota", "insufficient_quota")),
    (RequestsLimitReached, Answered(429, "requests", "rate_limit_exceeded")),
    (TokensLimitReached, Answered(429, "tokens", "rate_limit_exceeded")),
    (BudgetSpent, Answered(429, "insufficient_quota", "insufficient_quota")),
    (SpoolFull, Answered(503, "server_error", "spool_full")),
    (LedgerUnavailable, Answered(503, "server_error", "ledger_unavailable")),
    (LedgerFull, Answered(503, "server_error", "ledger_full")),
    (LedgerFrozen, Answered(503, "server_error", "ledger_frozen")),
    (LedgerFenced, Answered(503, "server_error", "ledger_fenced")),
    (ArchiveUnavailable, Answered(503, "server_error", "archive_unavailable")),
    (AdapterUnavailable, Answered(503, "server_error", "adapter_unavailable")),
    (EngineBusy, Answered(503, "server_error", "engine_busy")),
    (EngineUnavailable, Answered(503, "server_error", "engine_unavailable")),
    (EngineTimedOut, Answered(504, "server_error", "engine_timed_out")),
    (EngineBroke, Answered(502, "server_error", "engine_broke")),
    (ClientGone, Answered(CLIENT_GONE_STATUS, "invalid_request_error", "client_gone")),
)

RETRY_SECONDS = {409: "1", 503: "1"}


def clean(message: str) -> str:
    """A message fit for a client: one line, bounded, without paths of this machine."""
    flat = " ".join(PATH.sub("<path>", message).split())
    return flat[:MESSAGE_CHARACTERS_MAX]


def answered(problem: BylineError) -> Answered:
    """The row of the table for an error; what is not in it is a fault of ours."""
    if isinstance(problem, EngineRefused):
        return Answered(problem.status, "invalid_request_error", "engine_refused")
    if isinstance(problem, NotFound) and problem.param == "model":
        return Answered(404, "invalid_request_error", "model_not_found")
    return next((row for kind, row in TABLE if isinstance(problem, kind)), INTERNAL)


def error_fields(row: Answered, message: str, param: str | None = None) -> dict[str, object]:
    """OpenAI's error object."""
    fields = {"message": message, "type": row.type, "param": param, "code": row.code}
    return {"error": fields}


def error_response(row: Answered, message: str, param: str | None = None) -> JSONResponse:
    """OpenAI's error object as a response, with the headers its clients act on."""
    headers: dict[str, str] = {}
    if row.status in RETRY_SECONDS:
        headers["retry-after"] = RETRY_SECONDS[row.status]
    if row.code == "insufficient_quota":
        headers["x-should-retry"] = "false"  # OpenAI's clients would ask twice more
    if row.status == 401:
        headers["www-authenticate"] = "Bearer"
    if row.status == 413:
        headers["connection"] = "close"  # the rest of the body is not worth reading
    return JSONResponse(error_fields(row, message, param), row.status, headers)


def response_of(problem: BylineError) -> JSONResponse:
    """The response to an expected error."""
    row = answered(problem)
    if row is INTERNAL:
        log.error("%s: %s", type(problem).__name__, problem)
        return error_response(row, INTERNAL_MESSAGE)
    param = getattr(problem, "param", None)
    if isinstance(problem, InsufficientFunds):  # whose account, and how much it may owe, stays here
        return error_response(row, NO_FUNDS_MESSAGE, param)
    return error_response(row, told(problem), param)


def told(problem: BylineError) -> str:
    """What a client is told of an error that is in the table."""
    for kind, plain in PLAIN:
        if isinstance(problem, kind):
            log.warning("%s: %s", type(problem).__name__, problem)
            return plain
    return clean(str(problem))


def error_event(problem: BylineError) -> bytes:
    """The response to an error in the middle of a stream: one event in OpenAI's shape."""
    return b"data: %s\n\n" % json.dumps(error_object(problem)).encode()


def error_object(problem: BylineError) -> dict[str, object]:
    """OpenAI's error object for an error, without what must stay here."""
    row = answered(problem)
    message = INTERNAL_MESSAGE if row is INTERNAL else told(problem)
    return error_fields(row, message, getattr(problem, "param", None))


def add_error_handlers(app: FastAPI) -> None:
    """Answer every expected error, unknown route and wrong method in OpenAI's shape."""

    async def expected(request: Request, problem: Exception) -> Response:
        assert isinstance(problem, BylineError)
        observed(request).code = answered(problem).code
        return response_of(problem)

    async def http(request: Request, problem: Exception) -> Response:
        assert isinstance(problem, HTTPException)
        return _unrouted(request, problem)

    async def gone(request: Request, _problem: Exception) -> Response:
        observed(request).code = "client_gone"
        return response_of(ClientGone("the client went away"))

    async def invalid(_: Request, problem: Exception) -> Response:
        assert isinstance(problem, RequestValidationError)
        return error_response(INVALID, "A parameter of this request is not valid.")

    app.add_exception_handler(BylineError, expected)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(RequestValidationError, invalid)


def _unrouted(request: Request, problem: HTTPException) -> Response:
    asked = f"{request.method} {request.url.path}"[:200]
    code = {404: "unknown_url", 405: "method_not_allowed"}.get(problem.status_code, "http_error")
    message = {
        404: f"Unknown request URL: {asked}. See docs/api.md for the routes there are.",
        405: f"Not allowed to {asked}.",
    }.get(problem.status_code, problem.detail)
    row = Answered(problem.status_code, "invalid_request_error", code)
    response = error_response(row, message)
    response.headers.update(problem.headers or {})
    return response
