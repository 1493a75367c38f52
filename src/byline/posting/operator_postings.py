"""What an operator's operations post: adjust, release, refund, payout. Pure.

There are few of them, so their marks are kept for ever and they have no time window. What was
decided is kept as the manifest of the entry, its amounts as strings.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from byline.canonical import Json, canonical_text
from byline.errors import LedgerRefused
from byline.limits import CENT_NANO
from byline.money import largest_remainder
from byline.posting.postings import (
    Posting,
    account_name,
    entry_pieces,
    event_ms,
    flat,
    require_amount,
)
from byline.records import Adjustment, Leg, Payout, Refund, Refundable, UnattributedRelease

ADJUSTED = ("app:", "base:", "contrib:", "funding", "host", "owner:", "payout", "platform",
            "refund", "unattributed:")  # fmt: skip
RELEASED_TO = ("app:", "base:", "contrib:", "owner:")
PAID_OUT = ("base:", "contrib:", "host", "owner:", "platform")


def adjust(adjustment: Adjustment, *, time_ms: int) -> Posting:
    """Any legs that sum to zero; not a hold nor an open pool, which their inference closes."""
    what = f"adjust {adjustment.operation}"
    _require_text(what, "a reason", adjustment.reason)
    _require_text(what, "who decided it", adjustment.by)
    for leg in adjustment.legs:
        _require_kind(what, leg.account, ADJUSTED)
        require_amount(f"{what}: {leg.account}", abs(leg.nano))
    if not adjustment.legs or sum(leg.nano for leg in adjustment.legs) != 0:
        raise LedgerRefused(f"{what}: the legs must sum to zero")
    decision = canonical_text({
        "operation": adjustment.operation, "legs": _pairs(adjustment.legs),
        "reason": adjustment.reason, "by": adjustment.by,
    })  # fmt: skip
    arguments = (decision, *flat(adjustment.legs))
    return _decided(
        "adjust", adjustment.operation, decision, arguments, time_ms=time_ms,
        adapter_version=adjustment.adapter_version,
    )  # fmt: skip


def release(release: UnattributedRelease, *, time_ms: int) -> Posting:
    """`unattributed:<adapter version>` -> whom the decision names."""
    what = f"release {release.operation}"
    _require_text(what, "where the decision is published", release.decision)
    for leg in release.credits:
        _require_kind(what, leg.account, RELEASED_TO)
        require_amount(f"{what}: {leg.account}", leg.nano)
    total = sum(leg.nano for leg in release.credits)
    require_amount(what, total)
    account_name(f"unattributed:{release.adapter_version}")
    decision = canonical_text({
        "operation": release.operation, "adapter_version": release.adapter_version,
        "credits": _pairs(release.credits), "decision": release.decision,
    })  # fmt: skip
    arguments = (decision, release.adapter_version, str(total), *flat(release.credits, added=1))
    return _decided(
        "release", release.operation, decision, arguments, time_ms=time_ms,
        adapter_version=release.adapter_version,
    )  # fmt: skip


def refund(refund: Refund, refundable: Refundable, *, time_ms: int) -> Posting:
    """`refund.nano` back to the application, from the payees in proportion to what each has left.

    Only what was asked for is the payload: sent again when more has been refunded since, the parts
    would be others and the refund still the same. Where nothing can be refunded there are no parts,
    and the script says why.
    """
    _require_text(f"refund {refund.operation}", "a reason", refund.reason)
    require_amount(f"refund {refund.operation}", refund.nano)
    event_ms(refund.inference)
    parts: list[Leg] = []
    if refund.nano <= sum(refundable.credits.values()):
        split = largest_remainder(refund.nano, refundable.credits, salt=refund.operation)
        parts = [Leg(account, nano) for account, nano in split.items() if nano]
    asked: dict[str, Json] = {
        "inference": refund.inference, "nano": str(refund.nano), "reason": refund.reason,
    }  # fmt: skip
    decision = canonical_text({**asked, "operation": refund.operation, "parts": _pairs(parts)})
    arguments = (
        decision, refund.operation, refund.inference, str(refund.nano),
        str(refundable.refunded_nano), *flat(parts, added=2),
    )  # fmt: skip
    posting = _decided(
        "refund", refund.operation, decision, arguments, time_ms=time_ms,
        adapter_version=refundable.adapter_version, inference=refund.inference,
    )  # fmt: skip
    return replace(posting, payload=canonical_text(asked))


def payout(payout: Payout, *, time_ms: int) -> Posting:
    """`payout.account` -> `payout`, in whole cents; no line is paid by two payouts."""
    what = f"payout {payout.operation}"
    _require_kind(what, payout.account, PAID_OUT)
    require_amount(what, payout.nano)
    if payout.nano % CENT_NANO:
        raise LedgerRefused(f"{what}: {payout.nano} nano-USD are no whole cents")
    decision = canonical_text({
        "operation": payout.operation, "account": payout.account, "nano": str(payout.nano),
        "statement": payout.statement, "first_seq": payout.first_seq, "last_seq": payout.last_seq,
        "opening_nano": str(payout.opening_nano), "lines_nano": str(payout.lines_nano),
        "reference": payout.reference,
    })  # fmt: skip
    remainder = payout.opening_nano + payout.lines_nano - payout.nano
    arguments = (
        decision, payout.account, str(payout.nano), str(payout.first_seq), str(payout.last_seq),
        str(payout.opening_nano), str(remainder),
    )  # fmt: skip
    return _decided("payout", payout.operation, decision, arguments, time_ms=time_ms)


def require_payee(account: str) -> None:
    """Raise LedgerRefused unless the account is of a kind that is paid out."""
    _require_kind("payouts", account, PAID_OUT)


def _decided(
    kind: str,
    operation: str,
    decision: str,
    arguments: Sequence[str],
    *,
    time_ms: int,
    adapter_version: str | None = None,
    inference: str | None = None,
) -> Posting:
    """A posting whose payload is the decision itself."""
    event_ms(operation)
    entry = entry_pieces(
        f"{operation}/{kind}/0", time_ms, inference=inference, adapter_version=adapter_version,
        manifest=decision,
    )  # fmt: skip
    return Posting(
        kind, operation, kind, 0, payload=decision, entry=entry,
        arguments=tuple(arguments), is_permanent=True, concerns=inference,
    )  # fmt: skip


def _require_kind(what: str, account: str, kinds: Sequence[str]) -> None:
    """Refuse an account that such an operation must not touch, or whose name has a slip in it."""
    kind, colon, _ = account_name(account).partition(":")
    if kind + colon not in kinds:
        raise LedgerRefused(f"{what}: '{account}' is none of {', '.join(kinds)}")


def _require_text(what: str, meaning: str, text: str) -> None:
    if not text.strip():
        raise LedgerRefused(f"{what}: it needs {meaning}")


def _pairs(legs: Iterable[Leg]) -> list[list[str]]:
    return [[leg.account, str(leg.nano)] for leg in legs]
