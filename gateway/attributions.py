"""One inference's attribution, its state, or the wait for it; each caller sees what is theirs."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse

from byline.errors import NotFound
from byline.ledger.ledger import Standing
from byline.ledger.shards import Shards
from byline.limits import ATTRIBUTION_WAIT_SECONDS_MAX
from byline.records import AttributionState, Caller, InferenceRecord, KeyRole
from byline.served import INFERENCE_ID
from gateway.attribution_fields import contributor_fields, payer_fields
from gateway.attribution_wait import record_when_settled, without_record
from gateway.auth import caller_of
from gateway.leaving import unless_gone
from gateway.queries import number
from gateway.receipts import receipt_of
from gateway.services import Services


def attributions_routes(services: Services) -> APIRouter:
    """GET /v1/attributions/{inference}."""
    routes = APIRouter()

    @routes.get("/v1/attributions/{inference}", response_model=None)
    async def attribution(request: Request, inference: str) -> JSONResponse:
        caller = await caller_of(request, services.keys)
        wait = number(request, "wait", default=0, least=0, most=ATTRIBUTION_WAIT_SECONDS_MAX)
        if not INFERENCE_ID.match(inference):
            raise _unknown(inference)
        return JSONResponse(await _wait(request, services.shards, caller, inference, wait))

    return routes


async def _wait(
    request: Request, shards: Shards, caller: Caller, inference: str, seconds: float
) -> dict[str, object]:
    """Wait until nothing is pending, at most so long; then show what there is."""
    is_application = caller.role is KeyRole.APPLICATION
    waiting = record_when_settled(
        shards,
        inference,
        payer=caller.subject if is_application else None,
        seconds=seconds,
        # Nobody waits for what is not theirs.
        require=(lambda record: _require_payer(record, caller)) if is_application else None,
    )
    record = await unless_gone(request, waiting)
    if record is None and caller.role is not KeyRole.CONTRIBUTOR:
        found = await receipt_of(shards, inference, caller)
        if isinstance(found, Standing):
            if found.is_open:  # its charge is on its way
                return without_record(inference, AttributionState.PENDING, None)
        else:
            record = found
    return _shown(record, caller, inference)


def _shown(record: InferenceRecord | None, caller: Caller, inference: str) -> dict[str, object]:
    """The record as this caller may see it. Raises NotFound where that is nothing."""
    if record is None:
        raise _unknown(inference)
    if caller.role is KeyRole.CONTRIBUTOR:
        fields = contributor_fields(record, caller.subject)
        if fields is None:
            raise _unknown(inference)
        return fields
    _require_payer(record, caller)
    return payer_fields(record)


def _require_payer(record: InferenceRecord, caller: Caller) -> None:
    if caller.role is KeyRole.OPERATOR:
        return
    pays = caller.role is KeyRole.APPLICATION and caller.subject == record.capture.application
    if not pays:
        raise _unknown(record.capture.inference)


def _unknown(inference: str) -> NotFound:
    """One answer to what does not exist, what is not yours and what was never charged."""
    return NotFound(
        f"No attribution '{inference[:64]}' for this key. An answer without tokens has none.",
        param="id",
    )
