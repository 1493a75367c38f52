"""Any account's history, for operators: every line with the balance after it."""

from collections.abc import Mapping

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse

from byline.archive.database import Archive
from byline.archive.history import History, history_of
from byline.archive.periods import exported
from byline.errors import InvalidInput
from byline.posting.postings import ACCOUNT
from byline.records import KeyRole
from gateway.archive_fields import account_line_fields, money_fields, page_fields
from gateway.auth import caller_of
from gateway.queries import LinesAsked, lines_asked
from gateway.services import Services

OPERATORS = frozenset({KeyRole.OPERATOR})


def history_routes(services: Services) -> APIRouter:
    """GET /v1/accounts/{account}/history."""
    routes = APIRouter()

    @routes.get("/v1/accounts/{account:path}/history", response_model=None)
    async def history(request: Request, account: str) -> JSONResponse:
        await caller_of(request, services.keys, OPERATORS)
        asked = lines_asked(request)
        if not ACCOUNT.fullmatch(account):
            raise InvalidInput("An account is named as app:demo or contrib:ann.", param="account")
        found, as_of = await services.archive.ask(lambda archive: _history(archive, account, asked))
        return JSONResponse(_fields(found) | page_fields(as_of, found.next))

    return routes


def _history(
    archive: Archive, account: str, asked: LinesAsked
) -> tuple[History, Mapping[str, int]]:
    with archive.reading() as connection:
        found = history_of(connection, account, limit=asked.limit, cursor=asked.cursor)
        return found, exported(connection)


def _fields(found: History) -> dict[str, object]:
    return {
        "object": "account_history",
        "account": found.account,
        "currency": "USD",
        **money_fields(opening=found.opening_nano, closing=found.closing_nano),
        "lines": [
            {**account_line_fields(line), **money_fields(balance=balance)}
            for line, balance in found.lines
        ],
    }
