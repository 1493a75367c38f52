"""What an application has used and paid, what it has left, and each inference of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse

from byline.archive.cursor import Cursor
from byline.archive.database import Archive
from byline.archive.days import iso_day
from byline.archive.periods import exported
from byline.archive.usage import Funds, Usage, UsageLine, Used, funds_of, usage_lines, usage_of
from byline.errors import Forbidden, InvalidInput
from byline.money import usd
from byline.posting.postings import ACCOUNT
from byline.records import Caller, KeyRole
from gateway.archive_fields import money_fields, page_fields, period_fields
from gateway.auth import ASKERS, caller_of
from gateway.queries import LinesAsked, lines_asked
from gateway.services import Services


@dataclass(frozen=True, slots=True)
class Account:
    """One state of an application's account."""

    funds: Funds
    usage: Usage
    lines: list[UsageLine]
    following: Cursor | None
    exported: Mapping[str, int]


def usage_routes(services: Services) -> APIRouter:
    """GET /v1/usage."""
    routes = APIRouter()

    @routes.get("/v1/usage", response_model=None)
    async def usage(request: Request) -> JSONResponse:
        caller = await caller_of(request, services.keys, ASKERS)
        application = _application(request, caller)
        asked = lines_asked(request)
        found = await services.archive.ask(lambda archive: _account(archive, application, asked))
        return JSONResponse(_fields(application, found) | period_fields(asked.period))

    return routes


def _account(archive: Archive, application: str, asked: LinesAsked) -> Account:
    with archive.reading() as connection:
        lines, following = usage_lines(
            connection, application, limit=asked.limit, cursor=asked.cursor, period=asked.period
        )
        return Account(
            funds=funds_of(connection, application),
            usage=usage_of(connection, application, asked.period),
            lines=lines,
            following=following,
            exported=exported(connection),
        )


def _fields(application: str, found: Account) -> dict[str, object]:
    funds, usage = found.funds, found.usage
    return {
        "object": "usage",
        "application": application,
        "currency": "USD",
        **money_fields(balance=funds.balance_nano, held=funds.held_nano),
        "holds": funds.holds,
        "total": {**_used(usage.total), **money_fields(refunded=usage.refunded_nano)},
        "by_day": [
            {
                "day": iso_day(day),
                **_used(usage.by_day.get(day, Used())),
                **money_fields(refunded=usage.refunded_by_day.get(day, 0)),
            }
            for day in sorted(usage.by_day.keys() | usage.refunded_by_day.keys(), reverse=True)
        ],
        "by_model": [
            {"model": model, "served_by": served_by, **_used(used)}
            for (model, served_by), used in usage.by_model.items()
        ],
        "lines": [_line(line) for line in found.lines],
        **page_fields(found.exported, found.following),
    }


def _used(used: Used) -> dict[str, object]:
    return {
        "inferences": used.inferences,
        "partial": used.partial,
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        **money_fields(charge=used.charge_nano),
    }


def _line(line: UsageLine) -> dict[str, object]:
    return {
        **asdict(line),
        "charge_usd": usd(line.charge_nano),
        "refunded_usd": usd(line.refunded_nano),
    }


def _application(request: Request, caller: Caller) -> str:
    """Whose usage is asked for: one's own, or anyone's for an operator."""
    asked = request.query_params.get("application")
    if caller.role is KeyRole.APPLICATION:
        if asked not in (None, caller.subject):
            raise Forbidden("An application's key reads its own usage only.")
        return caller.subject
    if asked is None or not ACCOUNT.fullmatch(f"app:{asked}"):
        raise InvalidInput("An operator names whose usage: ?application=<id>.", param="application")
    return asked
