"""Proofs for payees: a line, or a statement with every line of it. Only their own leg is opened."""

import re
from collections.abc import AsyncIterator
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from byline.errors import NotFound
from byline.statements import frozen as store
from byline.statements.months import Month
from byline.transparency.proofs import EXTENSION, SET_EXTENSION
from gateway.logs import NO_LOG, Logs
from gateway.models import Models
from gateway.payees import asked_of, only
from gateway.services import Services

SEQ = re.compile(r"[1-9][0-9]{0,14}")
NOT_KEPT = {"cache-control": "private, no-cache"}  # the next head makes another proof of the same


def proofs_routes(services: Services, models: Models) -> APIRouter:
    """GET /v1/contributors/me/proofs/{seq}.tlog-proof and .../statements/{month}.tlog-proofs."""
    routes = APIRouter()

    @routes.get("/v1/contributors/me/proofs/{seq}.tlog-proof", response_model=None)
    async def line(request: Request, seq: str) -> Response:
        accounts, ledger = await asked_of(request, services, models)
        account, logs = only(accounts), logs_of(services, ledger)
        if not SEQ.fullmatch(seq):
            raise NotFound("No line of this account has that number.", param="seq")
        text = await logs.ask(ledger, lambda log: log.line_proof(int(seq), account))
        return PlainTextResponse(text, headers=attached(f"byline-{ledger}-{seq}{EXTENSION}"))

    @routes.get("/v1/contributors/me/statements/{month}.tlog-proofs", response_model=None)
    async def statement(request: Request, month: str) -> Response:
        accounts, ledger = await asked_of(request, services, models)
        account, wanted, logs = only(accounts), Month.parse(month), logs_of(services, ledger)
        frozen = await services.archive.ask(
            lambda archive: store.find(archive, ledger, account, wanted)
        )
        seqs = (frozen.from_seq, frozen.to_seq)
        pieces = logs.stream(
            ledger, lambda log: log.statement_proof(account, str(frozen.month), seqs)
        )
        first = await anext(pieces)  # what can be refused is refused before the answer begins
        name = f"byline-statement-{frozen.month}{SET_EXTENSION}"
        return StreamingResponse(
            _whole(first, pieces), headers=attached(name), media_type="application/jsonl"
        )

    return routes


def proof_url(ledger: str, seq: int, **asked: str) -> str:
    """Where a line's proof is; `asked` are the parameters that the asking key must give."""
    query = urlencode(asked | ({} if ledger == "usd" else {"ledger": ledger}), safe=":@")
    path = f"/v1/contributors/me/proofs/{seq}{EXTENSION}"
    return f"{path}?{query}" if query else path


def logs_of(services: Services, ledger: str) -> Logs:
    """The logs, if this ledger has one. Raises NotFound."""
    if services.logs is None or ledger not in services.shards.ledgers:
        raise NotFound(NO_LOG)
    return services.logs


def attached(name: str) -> dict[str, str]:
    """The headers of a file that is saved under this name."""
    return {**NOT_KEPT, "content-disposition": f'attachment; filename="{name}"'}


async def _whole(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
