"""What became of one inference's money, for the application that asked; at once, or not yet."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse

from byline.errors import NotFound
from byline.ledger.ledger import Standing
from byline.ledger.shards import Shards
from byline.money import usd
from byline.records import Caller, InferenceRecord, KeyRole
from byline.served import INFERENCE_ID
from gateway.auth import ASKERS, caller_of
from gateway.services import Services

Fields = dict[str, object]


def receipts_routes(services: Services) -> APIRouter:
    """GET /v1/receipts/{inference}."""
    routes = APIRouter()

    @routes.get("/v1/receipts/{inference}", response_model=None)
    async def receipt(request: Request, inference: str) -> JSONResponse:
        found = await asked_for(request, services, inference)
        if isinstance(found, Standing):
            return JSONResponse(_standing_fields(inference, found), 202 if found.is_open else 200)
        return JSONResponse(_captured_fields(found))

    return routes


async def asked_for(
    request: Request, services: Services, inference: str
) -> InferenceRecord | Standing:
    """The record, or what is known before there is one. Raises one NotFound for what is not there
    and what is another's."""
    caller = await caller_of(request, services.keys, ASKERS)
    if INFERENCE_ID.match(inference):
        found = await receipt_of(services.shards, inference, caller)
        if found is not None:
            return found
    raise NotFound(f"No receipt '{inference[:64]}' for this key.", param="id")


async def receipt_of(
    shards: Shards, inference: str, caller: Caller
) -> InferenceRecord | Standing | None:
    """The record, or what is known before there is one; None where it is not the caller's."""
    is_application = caller.role is KeyRole.APPLICATION
    payer = caller.subject if is_application else None
    if found := await shards.find(inference, payer=payer):
        record = found[1]
        return record if payer in (None, record.capture.application) else None
    for ledger in shards.ledgers.values():
        standing = await ledger.standing(inference)
        if standing is not None:
            if payer not in (None, standing.application):
                return None
            # It may have been captured since it was looked for: then it has a record now.
            return standing if standing.state != "captured" else await ledger.inference(inference)
    return None


def _standing_fields(inference: str, standing: Standing) -> Fields:
    """A receipt without a charge: the hold stands, or went back whole."""
    charge = None if standing.is_open else 0
    return {
        "object": "receipt",
        "id": inference,
        "state": standing.state,
        "application": standing.application,
        "held_nano": standing.held_nano,
        "charge_nano": charge,
        "charge_usd": None if charge is None else usd(charge),
    }


def _captured_fields(record: InferenceRecord) -> Fields:
    capture = record.capture
    return {
        "object": "receipt",
        "id": capture.inference,
        "state": "captured",
        "application": capture.application,
        "held_nano": capture.held_nano,
        "charge_nano": capture.charge_nano,
        "charge_usd": usd(capture.charge_nano),
        "time_ms": record.time_ms,
        "model": capture.model,
        "adapter": capture.served_by,
        "prompt_tokens": capture.usage.prompt_tokens,
        "completion_tokens": sum(capture.usage.completion_tokens),
        "usage_source": capture.usage.source,
        "partial": capture.partial,
        "late": record.is_late,
        "policy": capture.policy,
        "legs": dict(record.legs),
        "attribution": f"/v1/attributions/{capture.inference}",
        "receipt": f"/v1/receipts/{capture.inference}.receipt",
        "proof": f"/v1/receipts/{capture.inference}.tlog-proof",
    }
