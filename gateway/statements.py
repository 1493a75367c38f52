"""Frozen statements and payouts of contributors and adapter owners: listed, and in three forms."""

import asyncio
import re

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from byline.archive.database import Archive
from byline.errors import Forbidden, InvalidInput, NotFound
from byline.records import Caller, KeyRole, Release
from byline.statements import frozen as store
from byline.statements.forms import Form, rendered
from byline.statements.frozen import Frozen
from byline.statements.months import Month
from byline.statements.paid import Paid, payouts_of
from byline.statements.statement import is_payee, money
from gateway.auth import caller_of
from gateway.models import Models
from gateway.services import Services

PAYEES = frozenset({KeyRole.CONTRIBUTOR, KeyRole.OWNER, KeyRole.OPERATOR})
LEDGER = re.compile(r"[A-Za-z0-9._-]{1,64}")
MEDIA_TYPES = {
    Form.JSON: "application/json",
    Form.CSV: "text/csv; charset=utf-8; header=present",
    Form.PDF: "application/pdf",
}


def statements_routes(services: Services, models: Models) -> APIRouter:
    """GET /v1/contributors/me/statements, one of them, and GET /v1/contributors/me/payouts."""
    routes = APIRouter()
    # A statement of a hundred thousand lines takes seconds: one at a time, beside the inferences.
    rendering = asyncio.Lock()

    @routes.get("/v1/contributors/me/statements", response_model=None)
    async def statements(request: Request) -> JSONResponse:
        accounts, ledger = await _asked(request, services, models)
        found = await services.archive.ask(
            lambda archive: [
                each for account in accounts for each in store.of_account(archive, ledger, account)
            ]
        )
        return JSONResponse({"object": "list", "data": [statement_fields(each) for each in found]})

    @routes.get("/v1/contributors/me/statements/{month}", response_model=None)
    async def statement(request: Request, month: str) -> Response:
        accounts, ledger = await _asked(request, services, models)
        account, wanted, form = _only(accounts), Month.parse(month), _form(request)
        frozen = await services.archive.ask(
            lambda archive: store.find(archive, ledger, account, wanted)
        )
        headers = {"etag": f'"{frozen.sha256}"', "cache-control": "private, no-cache"}
        if _has(request, frozen.sha256):
            return Response(status_code=304, headers=headers)
        name = f"byline-statement-{frozen.month}.{form}"
        headers["content-disposition"] = f'attachment; filename="{name}"'
        async with rendering:
            document = await services.archive.ask(
                lambda archive: rendered(store.text_of(archive, frozen), form)
            )
        return Response(document, headers=headers, media_type=MEDIA_TYPES[form])

    @routes.get("/v1/contributors/me/payouts", response_model=None)
    async def payouts(request: Request) -> JSONResponse:
        accounts, ledger = await _asked(request, services, models)
        paid = await services.archive.ask(lambda archive: _payouts(archive, ledger, accounts))
        return JSONResponse({"object": "list", "data": [payout_fields(each) for each in paid]})

    return routes


def statement_fields(frozen: Frozen) -> dict[str, object]:
    """A statement in a list: all but its lines."""
    return {
        "object": "statement",
        "ledger": frozen.ledger,
        "account": frozen.account,
        "month": str(frozen.month),
        "currency": "USD",
        "from_seq": frozen.from_seq,
        "to_seq": frozen.to_seq,
        **money("opening", frozen.opening_nano),
        **money("closing", frozen.closing_nano),
        "sha256": frozen.sha256,
    }


def payout_fields(paid: Paid) -> dict[str, object]:
    """A payout with the lines that it paid: opening + lines = paid + remainder."""
    payout = paid.payout
    return {
        "object": "payout",
        "id": payout.operation,
        "account": payout.account,
        "statement": payout.statement,
        "currency": "USD",
        "seq": paid.seq,
        "time_ms": paid.time_ms,
        "first_seq": payout.first_seq,
        "last_seq": payout.last_seq,
        **money("opening", payout.opening_nano),
        **money("lines", payout.lines_nano),
        **money("paid", payout.nano),
        **money("remainder", paid.remainder_nano),
        "reference": payout.reference,
    }


def _payouts(archive: Archive, ledger: str, accounts: list[str]) -> list[Paid]:
    with archive.reading() as connection:
        paid = [each for name in accounts for each in payouts_of(connection, ledger, name)]
    return sorted(paid, key=lambda each: each.seq, reverse=True)


async def _asked(request: Request, services: Services, models: Models) -> tuple[list[str], str]:
    """Whose statements are asked for, and of which ledger."""
    caller = await caller_of(request, services.keys, PAYEES)
    ledger = request.query_params.get("ledger", "usd")
    if not LEDGER.fullmatch(ledger):
        raise InvalidInput("That is no ledger's name.", param="ledger")
    return _accounts(request, caller, models.release), ledger


def _accounts(request: Request, caller: Caller, release: Release) -> list[str]:
    """The caller's accounts, or the one of them that it names; anybody's for an operator."""
    asked = request.query_params.get("account")
    if caller.role is KeyRole.OPERATOR:
        if asked is None or not is_payee(asked):
            raise InvalidInput(
                "An operator names whose statements: ?account=contrib:<id>, owner:<adapter>, "
                "base:<model>, host or platform.",
                param="account",
            )
        return [asked]
    own = [f"contrib:{caller.subject}"]
    if caller.role is KeyRole.OWNER:
        own = [f"owner:{each.adapter}" for each in release.adapters if each.owner == caller.subject]
    if asked is None:
        return own
    if asked not in own:
        raise Forbidden("That is not an account of this key.")
    return [asked]


def _only(accounts: list[str]) -> str:
    """The one account of which a statement is asked for."""
    if not accounts:
        raise NotFound("No adapter that is being served is yours.")
    if len(accounts) > 1:
        names = ", ".join(accounts)
        raise InvalidInput(f"Say which account's: ?account= one of {names}.", param="account")
    return accounts[0]


def _form(request: Request) -> Form:
    given = request.query_params.get("format", Form.JSON)
    if given not in list(Form):
        raise InvalidInput("'format' is json, csv or pdf.", param="format")
    return Form(given)


def _has(request: Request, sha256: str) -> bool:
    """Does the client say that it has this very statement?"""
    tags = request.headers.get("if-none-match", "").split(",")
    return any(tag.strip().removeprefix("W/") in (f'"{sha256}"', "*") for tag in tags)
