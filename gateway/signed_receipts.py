"""A captured inference's receipt, signed, and its proof: what an application keeps and checks."""

import re

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from byline.canonical import Json
from byline.errors import ArchiveUnavailable, InvalidInput, NotFound, NotProven
from byline.ledger.ledger import Standing
from byline.notary.reader import LogReader
from byline.records import AttributionState, InferenceRecord
from byline.transparency import receipts
from byline.transparency.proofs import EXTENSION, shown_to_application
from gateway.proofs import attached, logs_of
from gateway.receipts import asked_for
from gateway.services import Services

BASE = "base:"  # how the account of a base model's owner begins
CAPTURE = "capture/0"
ENTRY = re.compile(r"capture/0|settle/[0-7]")


def signed_receipts_routes(services: Services) -> APIRouter:
    """GET /v1/receipts/{inference}.receipt and .tlog-proof."""
    routes = APIRouter()

    @routes.get("/v1/receipts/{inference}.receipt", response_model=None)
    async def receipt(request: Request, inference: str) -> Response:
        ledger, record = await _captured(request, services, inference)
        key = await logs_of(services, ledger).receipts_key(ledger)
        fields = await _fields(services, ledger, record)
        name = f"byline-{inference}{receipts.EXTENSION}"
        return PlainTextResponse(receipts.receipt_text(fields, key), headers=attached(name))

    @routes.get("/v1/receipts/{inference}.tlog-proof", response_model=None)
    async def proof(request: Request, inference: str) -> Response:
        entry = request.query_params.get("entry", CAPTURE)
        if not ENTRY.fullmatch(entry):
            raise InvalidInput("'entry' is capture/0 or settle/<choice>.", param="entry")
        ledger, record = await _captured(request, services, inference)
        if entry != CAPTURE and not any(record.capture.pools[int(entry[-1]) :][:1]):
            raise NotFound("That choice has no pool that could be settled.", param="entry")
        key = f"{inference}/{entry}"
        text = await logs_of(services, ledger).ask(ledger, lambda log: _proof(log, key))
        ending = "" if entry == CAPTURE else f"-{entry.replace('/', '-')}"
        return PlainTextResponse(text, headers=attached(f"byline-{inference}{ending}{EXTENSION}"))

    return routes


def _proof(log: LogReader, key: str) -> str:
    """The whole entry; contributors' legs stay closed, their shares are in the manifest."""
    seq = log.seq_of(key)
    shown = sorted(shown_to_application(log.entry(seq).entry))
    return log.entry_proof(seq, shown, with_manifest=True)


async def _captured(
    request: Request, services: Services, inference: str
) -> tuple[str, InferenceRecord]:
    """The ledger that has it, and its record. NotFound for what is another's or cost nothing."""
    found = await asked_for(request, services, inference)
    if isinstance(found, Standing):
        if found.is_open:
            raise NotProven("The answer, or its charge, is still under way: ask again.")
        raise NotFound("Nothing was charged for this inference: nothing is promised or proven.")
    within = await services.shards.ledger_of_inference(inference)
    return next(n for n, each in services.shards.ledgers.items() if each is within), found


async def _fields(services: Services, ledger: str, record: InferenceRecord) -> dict[str, Json]:
    """What docs/proofs.md has of a receipt."""
    capture, inference = record.capture, record.capture.inference
    hashes = await services.shards.ledgers[ledger].manifest_hashes(inference)
    settles: list[Json] = [
        {"key": f"{inference}/{entry}", "manifest_sha256": hashes[entry], "state": each.state.value}
        for each in record.attributions
        if (entry := f"settle/{each.ordinal}") in hashes and each.state in SETTLED
    ]
    return {
        "v": 1,
        "inference": inference,
        "application": capture.application,
        "model": capture.model,
        "served_by": capture.served_by,
        "adapter_version": capture.adapter_version,
        "index": capture.index,
        "base_model": _base_model(services, record),
        "policy": capture.policy,
        "prompt_tokens": capture.usage.prompt_tokens,
        "completion_tokens": list(capture.usage.completion_tokens),
        "charge": str(capture.charge_nano),
        "late": record.is_late,
        "state": await _state(services, ledger, record),
        "time_ms": record.time_ms,
        "capture": {"key": f"{inference}/{CAPTURE}", "manifest_sha256": hashes[CAPTURE]},
        "settles": settles,
    }


SETTLED = frozenset({AttributionState.DONE, AttributionState.SKIPPED, AttributionState.FAILED})


async def _state(services: Services, ledger: str, record: InferenceRecord) -> str:
    """`captured`, `settled` once no pool is open, `proven` once all its entries are covered."""
    if any(each.state is AttributionState.PENDING for each in record.attributions):
        return "captured"
    inference, pools = record.capture.inference, record.capture.pools
    keys = [f"{inference}/settle/{n}" for n, pool in enumerate(pools) if pool]
    keys.append(f"{inference}/{CAPTURE}")
    try:
        covered = await logs_of(services, ledger).ask(ledger, lambda log: log.is_covered(keys))
    except ArchiveUnavailable:  # what is promised does not wait for what can be proven
        covered = False
    return "proven" if covered else "settled"


def _base_model(services: Services, record: InferenceRecord) -> str | None:
    """The base model with its hash, where it is the one that is being served."""
    accounts = [leg.account for leg in record.capture.credits]
    name = next((a.removeprefix(BASE) for a in accounts if a.startswith(BASE)), None)
    release = services.release
    is_served = name in (None, release.base_model)  # None: a charge too small to be split
    return release.base_path.rpartition("/")[2] if is_served else name
