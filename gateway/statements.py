"""Frozen statements and payouts of contributors and adapter owners: listed, and in three forms."""

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from byline.archive.database import Archive
from byline.errors import InvalidInput
from byline.statements import frozen as store
from byline.statements.forms import Form, rendered
from byline.statements.frozen import Frozen
from byline.statements.months import Month
from byline.statements.paid import Paid, payouts_of
from byline.statements.statement import money
from byline.transparency.proofs import SET_EXTENSION
from gateway.models import Models
from gateway.payees import asked_of, only
from gateway.proofs import proof_url
from gateway.services import Services

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
        accounts, ledger = await asked_of(request, services, models)
        found = await services.archive.ask(
            lambda archive: [
                each for account in accounts for each in store.of_account(archive, ledger, account)
            ]
        )
        return JSONResponse({"object": "list", "data": [statement_fields(each) for each in found]})

    @routes.get("/v1/contributors/me/statements/{month}", response_model=None)
    async def statement(request: Request, month: str) -> Response:
        accounts, ledger = await asked_of(request, services, models)
        account, wanted, form = only(accounts), Month.parse(month), _form(request)
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
        accounts, ledger = await asked_of(request, services, models)
        paid = await services.archive.ask(lambda archive: _payouts(archive, ledger, accounts))
        data = [payout_fields(each, ledger) for each in paid]
        return JSONResponse({"object": "list", "data": data})

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
        "proof": f"/v1/contributors/me/statements/{frozen.month}{SET_EXTENSION}?"
        f"account={frozen.account}&ledger={frozen.ledger}",
    }


def payout_fields(paid: Paid, ledger: str) -> dict[str, object]:
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
        "proof": proof_url(ledger, paid.seq, account=payout.account),
    }


def _payouts(archive: Archive, ledger: str, accounts: list[str]) -> list[Paid]:
    with archive.reading() as connection:
        paid = [each for name in accounts for each in payouts_of(connection, ledger, name)]
    return sorted(paid, key=lambda each: each.seq, reverse=True)


def _form(request: Request) -> Form:
    given = request.query_params.get("format", Form.JSON)
    if given not in list(Form):
        raise InvalidInput("'format' is json, csv or pdf.", param="format")
    return Form(given)


def _has(request: Request, sha256: str) -> bool:
    """Does the client say that it has this very statement?"""
    tags = request.headers.get("if-none-match", "").split(",")
    return any(tag.strip().removeprefix("W/") in (f'"{sha256}"', "*") for tag in tags)
