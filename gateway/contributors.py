"""What a contributor has earned: the balance and its parts, sums, and the lines that made it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse

from byline.archive.cursor import Cursor
from byline.archive.database import Archive
from byline.archive.days import iso_day
from byline.archive.earnings import Balance, Breakdown, Sum, balance_of, breakdown_of
from byline.archive.lines import CONTRIBUTOR, AccountLine, account_lines
from byline.archive.periods import exported
from byline.errors import Forbidden, InvalidInput
from byline.records import Caller, KeyRole
from gateway.archive_fields import account_line_fields, money_fields, page_fields, period_fields
from gateway.auth import caller_of
from gateway.proofs import proof_url
from gateway.queries import LinesAsked, lines_asked
from gateway.services import Services

EARNERS = frozenset({KeyRole.CONTRIBUTOR, KeyRole.OPERATOR})
CONTRIBUTOR_ID = re.compile(r"[a-z0-9-]{1,120}")


@dataclass(frozen=True, slots=True)
class Earnings:
    """One state of a contributor's account."""

    balance: Balance
    breakdown: Breakdown
    lines: list[AccountLine]
    following: Cursor | None
    exported: Mapping[str, int]


def contributors_routes(services: Services) -> APIRouter:
    """GET /v1/contributors/me/earnings."""
    routes = APIRouter()

    @routes.get("/v1/contributors/me/earnings", response_model=None)
    async def earnings(request: Request) -> JSONResponse:
        caller = await caller_of(request, services.keys, EARNERS)
        contributor = _contributor(request, caller)
        asked = lines_asked(request)
        account = f"{CONTRIBUTOR}{contributor}"
        blocked = account in await services.shards.payout_blocks()
        now_ms = services.clock_ms()
        found = await services.archive.ask(
            lambda archive: _earnings(archive, account, asked, now_ms=now_ms, blocked=blocked)
        )
        named = {"account": account} if caller.role is KeyRole.OPERATOR else {}
        fields = _fields(contributor, found, named) | period_fields(asked.period)
        return JSONResponse({**fields, "payouts_blocked": blocked})

    return routes


def _earnings(
    archive: Archive, account: str, asked: LinesAsked, *, now_ms: int, blocked: bool
) -> Earnings:
    with archive.reading() as connection:
        lines, following = account_lines(
            connection, account, limit=asked.limit, cursor=asked.cursor, period=asked.period
        )
        return Earnings(
            balance=balance_of(connection, account, now_ms=now_ms, blocked=blocked),
            breakdown=breakdown_of(connection, account, asked.period),
            lines=lines,
            following=following,
            exported=exported(connection),
        )


def _fields(contributor: str, found: Earnings, named: Mapping[str, str]) -> dict[str, object]:
    balance, breakdown = found.balance, found.breakdown
    return {
        "object": "earnings",
        "contributor": contributor,
        "currency": "USD",
        **money_fields(
            balance=balance.balance_nano,
            available=balance.available_nano,
            pending=balance.pending_nano,
            held=balance.held_nano,
            paid=balance.paid_nano,
        ),
        "by_day": [{"day": iso_day(day), **_sum(each)} for day, each in breakdown.by_day.items()],
        "by_adapter": [{"adapter": name, **_sum(s)} for name, s in breakdown.by_adapter.items()],
        "by_dataset": [{"dataset": name, **_sum(s)} for name, s in breakdown.by_dataset.items()],
        "lines": [
            account_line_fields(line) | {"proof": proof_url(line.ledger, line.seq, **named)}
            for line in found.lines
        ],
        **page_fields(found.exported, found.following),
    }


def _sum(each: Sum) -> dict[str, object]:
    return {**money_fields(earned=each.earned_nano, paid=each.paid_nano), "lines": each.lines}


def _contributor(request: Request, caller: Caller) -> str:
    """Whose earnings are asked for: one's own, or anyone's for an operator."""
    asked = request.query_params.get("contributor")
    if caller.role is KeyRole.CONTRIBUTOR:
        if asked not in (None, caller.subject):
            raise Forbidden("A contributor's key reads its own earnings only.")
        return caller.subject
    if asked is None or not CONTRIBUTOR_ID.fullmatch(asked):
        raise InvalidInput(
            "An operator names whose earnings: ?contributor=<id>.", param="contributor"
        )
    return asked
