"""What a contributor has earned: the balance, and the newest lines that made it."""

import re

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse

from byline.errors import Forbidden, InvalidInput
from byline.money import usd
from byline.records import Caller, EarningsLine, KeyRole
from gateway.auth import caller_of
from gateway.queries import number
from gateway.services import Services

EARNERS = frozenset({KeyRole.CONTRIBUTOR, KeyRole.OPERATOR})
CONTRIBUTOR = re.compile(r"^[a-z0-9-]{1,128}$")
LINES_DEFAULT = 50
LINES_MAX = 1_000


def contributors_routes(services: Services) -> APIRouter:
    """GET /v1/contributors/me/earnings."""
    routes = APIRouter()

    @routes.get("/v1/contributors/me/earnings", response_model=None)
    async def earnings(request: Request) -> JSONResponse:
        caller = await caller_of(request, services.keys, EARNERS)
        contributor = _contributor(request, caller)
        limit = number(request, "limit", default=LINES_DEFAULT, least=1, most=LINES_MAX)
        available = await services.ledger.balance(f"contrib:{contributor}")
        lines = await services.ledger.earnings_lines(contributor, limit=int(limit))
        return JSONResponse(earnings_fields(contributor, available, lines))

    return routes


def earnings_fields(
    contributor: str, available_nano: int, lines: list[EarningsLine]
) -> dict[str, object]:
    """A contributor's earnings as JSON: money as integers, and once as a decimal for people."""
    return {
        "object": "earnings",
        "contributor": contributor,
        "currency": "USD",
        "available_nano": available_nano,
        "available_usd": usd(available_nano),
        "lines": [
            {
                "seq": line.seq,
                "time_ms": line.time_ms,
                "inference": line.inference,
                "adapter": line.adapter_version,
                "nano": line.nano,
            }
            for line in lines
        ],
    }


def _contributor(request: Request, caller: Caller) -> str:
    """Whose earnings are asked for: one's own, or anyone's for an operator."""
    asked = request.query_params.get("contributor")
    if caller.role is KeyRole.CONTRIBUTOR:
        if asked not in (None, caller.subject):
            raise Forbidden("A contributor's key reads its own earnings only.")
        return caller.subject
    if asked is None or not CONTRIBUTOR.match(asked):
        raise InvalidInput(
            "An operator names whose earnings: ?contributor=<id>.", param="contributor"
        )
    return asked
