"""What operators decide in tests, with everything that one test doesn't care about."""

from byline.limits import CENT_NANO
from byline.records import Adjustment, Leg, Payout, Refund, UnattributedRelease
from tests.byline.cases import ADAPTER, event_id


def an_adjustment(operation: str | None = None, /, **nano: int) -> Adjustment:
    """Legs by account, a colon written as two underscores: `contrib__alice=5, platform=-5`."""
    legs = tuple(Leg(account.replace("__", ":"), amount) for account, amount in nano.items())
    return Adjustment(operation or event_id(), legs, "counted twice", "ann")


def a_release(operation: str | None = None, /, **nano: int) -> UnattributedRelease:
    """Credits by account, out of what is unattributed of the one adapter version."""
    named = tuple(Leg(account.replace("__", ":"), amount) for account, amount in nano.items())
    return UnattributedRelease(operation or event_id(), ADAPTER, named, "https://example.org/1")


def a_refund(inference: str, nano: int, operation: str | None = None) -> Refund:
    """A refund of so much of the inference's charge."""
    return Refund(operation or event_id(), inference, nano, "the answer was cut")


def a_payout(
    account: str, cents: int = 1, operation: str | None = None, *, first_seq: int = 1
) -> Payout:
    """A payout of so many cents, for the line of one entry."""
    nano = cents * CENT_NANO
    return Payout(
        operation or event_id(), account, nano, f"{account}/2026-11", first_seq, first_seq,
        0, nano, "",
    )  # fmt: skip
