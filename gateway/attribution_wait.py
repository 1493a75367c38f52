"""The wait for an inference's attribution: asked for by id, or inside the answer."""

import asyncio
from collections.abc import Callable

from byline.errors import LedgerUnavailable
from byline.ledger.shards import Shards
from byline.records import AttributionState, Capture, InferenceRecord
from gateway.attribution_fields import Fields, payer_fields

POLL_SECONDS = 0.05  # at first; then a half longer each time
POLL_SECONDS_MAX = 0.25


def is_pending(record: InferenceRecord) -> bool:
    """True while any choice waits for its attribution."""
    return any(choice.state is AttributionState.PENDING for choice in record.attributions)


async def record_when_settled(
    shards: Shards,
    inference: str,
    *,
    payer: str | None,
    seconds: float,
    require: Callable[[InferenceRecord], None] | None = None,
) -> InferenceRecord | None:
    """Ask the shards until nothing is pending, at most so long; then what there is.

    `require` is called with each record that is found, and may raise.
    """
    ledger = None  # the one to ask, as soon as it is known
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    pause = POLL_SECONDS
    while True:
        if ledger is None:
            likely = shards.ledger_of(payer) if payer else None
            ledger, record = await shards.find(inference, payer=payer) or (likely, None)
        else:
            record = await ledger.inference(inference)
        if record is not None and require is not None:
            require(record)
        left = deadline - loop.time()
        if left <= 0 or (record is not None and not is_pending(record)):
            return record
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 1.5, POLL_SECONDS_MAX)


async def inline_fields(
    shards: Shards,
    inference: str,
    payer: str,
    charged: "asyncio.Task[Capture | None]",
    seconds: float,
) -> Fields:
    """The attribution as it stands in an answer: done, or still pending when the time is over."""
    started = asyncio.get_running_loop().time()
    await asyncio.wait({charged}, timeout=seconds)
    if _nothing_served(charged):
        return without_record(inference, AttributionState.SKIPPED, "no tokens were generated")
    left = max(seconds - (asyncio.get_running_loop().time() - started), 0.0)
    try:
        record = await record_when_settled(shards, inference, payer=payer, seconds=left)
    except LedgerUnavailable:
        record = None
    if record is None:
        return without_record(inference, AttributionState.PENDING, None)
    return payer_fields(record)


def _nothing_served(charged: "asyncio.Task[Capture | None]") -> bool:
    is_known = charged.done() and not charged.cancelled() and charged.exception() is None
    return is_known and charged.result() is None


def without_record(inference: str, state: AttributionState, reason: str | None) -> Fields:
    """What is told of an inference that has no record, or none yet."""
    return {"object": "attribution", "id": inference, "state": state, "reason": reason}
