"""What is posted: captures of six legs, and settlements of fifty-one."""

import time
from collections.abc import Sequence

from uuid_utils import uuid7

from byline.attribution import integer_scores
from byline.limits import PPB
from byline.money import POLICY
from byline.records import Attribution, AttributionState, Capture, Leg, Share, Usage, UsageSource

APPLICATION = "bench"
VERSION = "healthcare@0123456789ab"
INDEX = "healthcare-index@0123456789ab"
HOLD_MS = 900_000
PAYEES = 50
POOL_NANO = 10 * PAYEES
# With the hold's and the pool's, the six legs of a capture.
CREDITS = (
    Leg("platform", 100),
    Leg("host", 150),
    Leg("base:smollm2", 50),
    Leg("owner:healthcare", 200),
)
CHARGE_NANO = sum(leg.nano for leg in CREDITS) + POOL_NANO
FUNDS_NANO = 10**11


def events(count: int) -> list[str]:
    """So many new UUIDv7."""
    return [str(uuid7()) for _ in range(count)]


def now_ms() -> int:
    """The wall clock, as the ledger counts."""
    return time.time_ns() // 1_000_000


def captures(inferences: Sequence[str]) -> list[Capture]:
    """An adapter's answers: the whole hold is charged, to four payees and one pool."""
    return [
        Capture(
            inference=inference, application=APPLICATION, held_nano=CHARGE_NANO,
            charge_nano=CHARGE_NANO, credits=CREDITS, pools=(POOL_NANO,), skipped=None,
            model="auto", served_by=VERSION, adapter_version=VERSION, index=INDEX,
            usage=Usage(212, (148,), UsageSource.ENGINE), partial=False,
            tokens_sha256=inference.replace("-", "") * 2, policy=POLICY.version,
        )
        for inference in inferences
    ]  # fmt: skip


def attributions(inferences: Sequence[str]) -> list[Attribution]:
    """Their attributions, which pay fifty contributors: 51 legs."""
    names = [f"contributor-{number:04}" for number in range(PAYEES)]
    scores = {name: 1.0 / (3 + number) for number, name in enumerate(names)}
    shares = tuple(Share(name, scores[name], PPB // PAYEES, POOL_NANO // PAYEES) for name in names)
    return [
        Attribution(
            inference=inference, ordinal=0, state=AttributionState.DONE, adapter_version=VERSION,
            index=INDEX, lift_nats=1.25, pool_nano=POOL_NANO, shares=shares,
            scores=integer_scores(scores),
        )
        for inference in inferences
    ]  # fmt: skip
