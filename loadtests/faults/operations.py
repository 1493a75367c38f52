"""What the actors are asked to post, and what each of it must do to the accounts. Pure.

The expected legs are written down here anew, from the ledger's rules and not from its code: the
checker holds the journal against them.
"""

from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import TypeAlias

from byline.attribution import Measurement, attribute, failed, skipped
from byline.records import (
    Adjustment,
    Attribution,
    AttributionJob,
    Capture,
    Payout,
    Refund,
    UnattributedRelease,
)

Legs: TypeAlias = dict[str, int]
CONTRIBUTORS = 12
CROWD = 300  # payees of a very broad attribution


@dataclass(frozen=True, slots=True)
class Deposit:
    """Money for an application."""

    operation: str
    application: str
    nano: int


@dataclass(frozen=True, slots=True)
class Hold:
    """The largest charge of an inference, set aside."""

    inference: str
    application: str
    nano: int
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Void:
    """A hold that goes back: nothing was served."""

    inference: str
    application: str


@dataclass(frozen=True, slots=True)
class Unbalanced:
    """A capture whose legs are made wrong after every check of the client; must be refused."""

    capture: Capture


Operation: TypeAlias = (
    Deposit | Hold | Capture | Void | Adjustment | Refund | UnattributedRelease | Payout
    | Unbalanced
)  # fmt: skip


VERBS = {
    Deposit: "deposit", Hold: "hold", Capture: "capture", Void: "void", Adjustment: "adjust",
    Refund: "refund", UnattributedRelease: "release", Payout: "payout",
}  # fmt: skip


class Expect(StrEnum):
    """What an operation may come to."""

    POSTED = "posted"
    REFUSED = "refused"
    EITHER = "either"  # it depends on what was posted before it


@dataclass(frozen=True, slots=True)
class Flow:
    """Operations that one caller asks for, each when the one before is answered."""

    operations: tuple[Operation, ...]
    expect: Expect = Expect.POSTED
    cancelled_after: float | None = None  # seconds after which the caller goes away once


def key_of(operation: Operation) -> str:
    """The event key that the operation is posted under."""
    if isinstance(operation, Unbalanced):
        operation = operation.capture
    if isinstance(operation, Hold | Capture | Void):
        return f"{operation.inference}/{VERBS[type(operation)]}/0"
    return f"{operation.operation}/{VERBS[type(operation)]}/0"


def legs_of(operation: Operation, *, late: bool = False) -> Legs | None:
    """What the operation does to the accounts; None where the journal decides (a refund)."""
    match operation:
        case Hold(inference, application, nano, _):
            return {f"app:{application}": -nano, f"hold:{inference}": nano}
        case Deposit(_, application, nano):
            return {"funding": -nano, f"app:{application}": nano}
        case Capture():
            return _legs_of_capture(operation, late=late)
        case Adjustment():
            return {leg.account: leg.nano for leg in operation.legs}
        case UnattributedRelease():
            credits_ = {leg.account: leg.nano for leg in operation.credits}
            return {
                f"unattributed:{operation.adapter_version}": -sum(credits_.values()),
                **credits_,
            }
        case Payout():
            return {operation.account: -operation.nano, "payout": operation.nano}
        case _:
            return None


def _legs_of_capture(capture: Capture, *, late: bool) -> Legs:
    legs = {leg.account: leg.nano for leg in capture.credits}
    legs |= {
        open_account(capture.inference, ordinal): pool
        for ordinal, pool in enumerate(capture.pools)
        if pool
    }
    if late:
        return {f"app:{capture.application}": -capture.charge_nano, **legs}
    legs[f"hold:{capture.inference}"] = -capture.held_nano
    if rest := capture.held_nano - capture.charge_nano:
        legs[f"app:{capture.application}"] = rest
    return legs


def open_account(inference: str, ordinal: int) -> str:
    """Where a choice's pool lies until it is settled."""
    return f"open:{inference}/{ordinal}" if ordinal else f"open:{inference}"


def attribution_of(seed: int, job: AttributionJob) -> Attribution:
    """An invented attribution; the same for each delivery of one job, as a model's would be."""
    rng = Random(f"{seed}/{job.inference}/{job.ordinal}")
    luck = rng.random()
    if luck < 0.05:
        return failed(job, "an invented failure")
    if luck < 0.08:
        return skipped(job, "an invented reason")
    payees = CROWD if luck > 0.995 else rng.randrange(1, CONTRIBUTORS + 1)
    names = [f"c{number}" for number in range(max(payees, CONTRIBUTORS))]
    scores = {name: rng.uniform(-0.3, 1.0) for name in rng.sample(names, payees)}
    lift = rng.uniform(-0.2, 3.0)
    return attribute(job, Measurement(lift_nats=lift, scores=scores, examples=()))


def legs_of_settle(attribution: Attribution) -> Legs:
    """What settling does: the pool to the shares, and the rest to `unattributed`."""
    legs = {
        f"contrib:{share.contributor}": share.nano for share in attribution.shares if share.nano
    }
    rest = attribution.pool_nano - sum(legs.values())
    if rest:
        legs[f"unattributed:{attribution.adapter_version}"] = rest
    legs[open_account(attribution.inference, attribution.ordinal)] = -attribution.pool_nano
    return legs


def job_of(capture: Capture, ordinal: int) -> AttributionJob:
    """The job that a capture writes for one of its choices, but for its time."""
    assert capture.adapter_version is not None
    assert capture.index is not None
    assert capture.tokens_sha256 is not None
    return AttributionJob(
        inference=capture.inference, ordinal=ordinal, application=capture.application,
        adapter_version=capture.adapter_version, index=capture.index,
        tokens_sha256=capture.tokens_sha256, pool_nano=capture.pools[ordinal], enqueued_ms=0,
    )  # fmt: skip
