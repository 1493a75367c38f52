"""What each operation posts: its event key, its payload's digest, its entry's text. Pure.

A posting is everything that its Redis script needs. Only the script knows the entry's sequence
number, and whether a capture comes late; so the canonical text is sent cut around those places and
the script joins it. Accounts are restricted so that nothing in it ever needs escaping.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from byline.canonical import Json, canonical_text, sha256_hex
from byline.errors import LedgerRefused
from byline.limits import EVENT_AGE_DAYS_MAX, LEG_NANO_MAX, LEGS_PER_ENTRY_MAX, PPB
from byline.money import usd
from byline.records import (
    Attribution,
    AttributionJob,
    AttributionState,
    Capture,
    JournalEntry,
    Leg,
)
from byline.records_json import attribution_fields, capture_fields, job_fields

# A kind, and after a colon whose it is; never empty.
ACCOUNT = re.compile(r"(?=.{1,128}\Z)[A-Za-z0-9_-]+(?::[A-Za-z0-9:@._/-]+)?")
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
DAY_MS = 86_400_000
TIME_MS_MAX = 2**53 - 1  # canonical JSON has no larger integer
DIGEST_DIGITS = 32  # 128 bits tell two payloads of one key apart; a mark is kept for each event
OPERATIONS = "operations"  # the bucket of the marks that are kept for ever
VERSION = 1


@dataclass(frozen=True, slots=True)
class Posting:
    """One event, as its script is given it."""

    script: str
    inference: str  # the inference, or the operation's own UUIDv7
    operation: str
    ordinal: int
    payload: str  # canonical JSON of the request, without its time
    entry: tuple[str, str, str, str]  # the canonical text around kind, legs and seq
    arguments: tuple[str, ...]  # the script's own
    is_permanent: bool = False  # its mark is never dropped: an operator's operation
    concerns: str | None = None  # the inference of a refund, whose facts the script needs too

    @property
    def key(self) -> str:
        """The event key: what is posted under it is posted at most once."""
        return f"{self.inference}/{self.operation}/{self.ordinal}"

    @property
    def bucket(self) -> str:
        """Which marks are looked at: the day in the event's UUIDv7, or those kept for ever."""
        return OPERATIONS if self.is_permanent else str(event_ms(self.inference) // DAY_MS)

    @property
    def digest(self) -> str:
        """Tells this payload from another one under the same key."""
        return sha256_hex(self.payload.encode())[:DIGEST_DIGITS]

    def words(self) -> tuple[str, ...]:
        """The arguments of the event, in prelude.lua's order."""
        return (self.key, self.digest, *self.entry, *self.arguments)


def event_ms(event: str) -> int:
    """The milliseconds in a UUIDv7 (RFC 9562, 5.7). Raises LedgerRefused for anything else."""
    if not UUID7.fullmatch(event):
        raise LedgerRefused(f"'{event}' is no UUIDv7 in its canonical form")
    return int(event[:8] + event[9:13], 16)


def deposit(operation: str, application: str, nano: int, *, time_ms: int) -> Posting:
    """`funding` -> `app:<application>`."""
    event_ms(operation)
    require_amount("a deposit", nano)
    account_name(f"app:{application}")
    return Posting(
        "deposit", operation, "deposit", 0,
        payload=canonical_text({"application": application, "nano": str(nano)}),
        entry=entry_pieces(f"{operation}/deposit/0", time_ms),
        arguments=(application, str(nano)),
        is_permanent=True,
    )  # fmt: skip


def hold(inference: str, application: str, nano: int, *, expires_ms: int, time_ms: int) -> Posting:
    """`app:<application>` -> `hold:<inference>`."""
    _require_fresh(inference, time_ms)
    require_amount("a hold", nano)
    payload: dict[str, Json] = {
        "application": application, "nano": str(nano), "expires_ms": expires_ms,
    }  # fmt: skip
    account_name(f"app:{application}")
    return Posting(
        "hold", inference, "hold", 0,
        payload=canonical_text(payload),
        entry=entry_pieces(f"{inference}/hold/0", time_ms, inference=inference),
        arguments=(inference, application, str(nano), str(expires_ms)),
    )  # fmt: skip


def void(inference: str, application: str, *, time_ms: int) -> Posting:
    """`hold:<inference>` -> `app:<application>`, whole."""
    event_ms(inference)
    return Posting(
        "give_back", inference, "void", 0,
        payload=canonical_text({"application": application}),
        entry=entry_pieces(f"{inference}/void/0", time_ms, inference=inference),
        arguments=(inference, "void", application, str(time_ms)),
    )  # fmt: skip


def expire(inference: str, *, time_ms: int) -> Posting:
    """The same when the hold's time is over; the script knows whose it was."""
    event_ms(inference)
    return Posting(
        "give_back", inference, "expire", 0,
        payload="{}",
        entry=entry_pieces(f"{inference}/expire/0", time_ms, inference=inference),
        arguments=(inference, "expire", "", str(time_ms)),
    )  # fmt: skip


def capture(capture: Capture, *, time_ms: int) -> Posting:
    """The hold's end: the charge to those it credits and to the pools, the rest back."""
    inference = capture.inference
    _require_fresh(inference, time_ms)
    _require_whole(capture)
    record = canonical_text(capture_fields(capture))
    opened = [Leg(open_account(inference, ordinal), nano) for ordinal, nano in _pools(capture)]
    jobs = [canonical_text(job_fields(job)) for job in attribution_jobs(capture, time_ms)]
    legs = [*capture.credits, *opened]
    return Posting(
        "capture", inference, "capture", 0,
        payload=record,
        entry=entry_pieces(
            f"{inference}/capture/0", time_ms, inference=inference, charge=capture.charge_nano,
            adapter_version=capture.adapter_version, policy=capture.policy, manifest=record,
        ),
        arguments=(
            inference, capture.application, str(capture.held_nano), str(capture.charge_nano),
            str(capture.held_nano - capture.charge_nano), record, capture.adapter_version or "",
            str(time_ms), str(len(jobs)), *jobs, *flat(legs, added=2),
        ),
    )  # fmt: skip


def settle(attribution: Attribution, *, time_ms: int) -> Posting:
    """`open:<inference>` -> the contributors and `unattributed`, all of it.

    An attribution that is not `done` pays nobody: its whole pool goes to `unattributed`.
    """
    inference, ordinal = attribution.inference, attribution.ordinal
    event_ms(inference)
    version = attribution.adapter_version
    if attribution.state is AttributionState.PENDING or version is None:
        raise LedgerRefused(
            f"settle {inference}: a {attribution.state} attribution can't be settled"
        )
    attribution = _pays_nobody_unless_done(attribution)
    paid = [Leg(f"contrib:{s.contributor}", s.nano) for s in attribution.shares if s.nano]
    unattributed = Leg(f"unattributed:{version}", attribution.unattributed_nano)
    legs = [*paid, *([unattributed] if unattributed.nano else [])]
    if any(leg.nano < 0 for leg in legs) or sum(leg.nano for leg in legs) != attribution.pool_nano:
        raise LedgerRefused(f"settle {inference}: shares and unattributed don't sum to the pool")
    record = canonical_text(attribution_fields(attribution))
    return Posting(
        "settle", inference, "settle", ordinal,
        payload=record,
        entry=entry_pieces(
            f"{inference}/settle/{ordinal}", time_ms, inference=inference,
            adapter_version=version, manifest=record,
        ),
        arguments=(
            inference, str(ordinal), open_account(inference, ordinal), str(attribution.pool_nano),
            version, record, *flat(legs, added=1),
        ),
    )  # fmt: skip


def open_account(inference: str, ordinal: int) -> str:
    """The account that holds a choice's pool until it is settled."""
    return f"open:{inference}/{ordinal}" if ordinal else f"open:{inference}"


def parse_entry(text: str) -> JournalEntry:
    """The journal entry in `text`. Raises ValueError, KeyError or TypeError if it is none."""
    fields = json.loads(text)
    if not isinstance(fields, dict) or fields.pop("v") != VERSION:
        raise ValueError("not a journal entry of version 1")
    fields["charge"] = int(fields["charge"])
    fields["legs"] = tuple(Leg(account, int(nano)) for account, nano in fields["legs"])
    return JournalEntry(**fields)


def entry_pieces(
    key: str,
    time_ms: int,
    *,
    inference: str | None = None,
    adapter_version: str | None = None,
    charge: int = 0,
    policy: str = "",
    manifest: str | None = None,
) -> tuple[str, str, str, str]:
    """An entry's canonical text cut around kind, legs and seq, which only the script knows.

    Written out here, its fields in their order, since each post needs it.
    """
    if type(time_ms) is not int or not 0 <= time_ms <= TIME_MS_MAX:
        raise LedgerRefused(f"{key}: {time_ms!r} is no time in milliseconds")
    sha256 = None if manifest is None else sha256_hex(manifest.encode())
    return (
        f'{{"adapter_version":{_quoted(adapter_version)},"charge":"{charge}",'
        f'"inference":{canonical_text(inference)},"key":{canonical_text(key)},"kind":"',
        '","legs":',
        f',"manifest_sha256":{canonical_text(sha256)},"policy":{_quoted(policy)},"seq":',
        f',"time_ms":{time_ms},"v":{VERSION}}}',
    )


@lru_cache(maxsize=1_024)
def _quoted(name: str | None) -> str:
    """As canonical JSON, of what is the same in very many entries."""
    return canonical_text(name)


def _require_fresh(event: str, time_ms: int) -> None:
    """Older than a mark is kept, an event could post twice; far ahead, its clock is wrong."""
    age_ms = time_ms - event_ms(event)
    if age_ms > EVENT_AGE_DAYS_MAX * DAY_MS:
        raise LedgerRefused(f"event {event} is older than {EVENT_AGE_DAYS_MAX} days")
    if age_ms < -DAY_MS:
        raise LedgerRefused(f"event {event} is more than a day in the future")


def require_amount(what: str, nano: int) -> None:
    """Raise LedgerRefused unless one leg can carry so much."""
    if nano <= 0:
        raise LedgerRefused(f"{what} of {nano} nano-USD: it must be positive")
    if nano > LEG_NANO_MAX:
        raise LedgerRefused(
            f"{what} of {usd(nano)} USD: one operation moves {usd(LEG_NANO_MAX)} USD at most; "
            "send it in parts"
        )


@lru_cache(maxsize=4_096)  # each inference adds its own pool's name, which is not asked for again
def account_name(name: str) -> str:
    """The name itself. Raises LedgerRefused where it would need escaping or is too long."""
    if not ACCOUNT.fullmatch(name):
        raise LedgerRefused(f"'{name}' is no account: letters, digits and :@._/- only, 128 at most")
    return name


def _require_whole(capture: Capture) -> None:
    """Refuse a capture whose parts don't make up its charge, or that charges more than is held."""
    parts = [leg.nano for leg in capture.credits]
    pools = list(capture.pools)
    if min([*parts, 1]) <= 0 or min([*pools, 0]) < 0:
        raise LedgerRefused(f"capture {capture.inference}: a credit or a pool is not positive")
    if sum(parts) + sum(pools) != capture.charge_nano:
        raise LedgerRefused(
            f"capture {capture.inference}: credits and pools don't sum to the charge"
        )
    if capture.charge_nano > capture.held_nano:
        raise LedgerRefused(f"capture {capture.inference}: the charge is more than what is held")


def _pools(capture: Capture) -> list[tuple[int, int]]:
    return [(ordinal, nano) for ordinal, nano in enumerate(capture.pools) if nano]


def attribution_jobs(capture: Capture, time_ms: int) -> list[AttributionJob]:
    """One job for each pool that the capture opens."""
    pools = _pools(capture)
    version, index, tokens = capture.adapter_version, capture.index, capture.tokens_sha256
    if not pools:
        return []
    if version is None or index is None or tokens is None:
        raise LedgerRefused(
            f"capture {capture.inference}: a pool needs an adapter version, index and served tokens"
        )
    return [
        AttributionJob(
            inference=capture.inference, ordinal=ordinal, application=capture.application,
            adapter_version=version, index=index, tokens_sha256=tokens, pool_nano=nano,
            enqueued_ms=time_ms,
        )
        for ordinal, nano in pools
    ]  # fmt: skip


def _pays_nobody_unless_done(attribution: Attribution) -> Attribution:
    if attribution.state is AttributionState.DONE:
        return attribution
    if attribution.shares:
        raise LedgerRefused(f"settle {attribution.inference}: {attribution.state}, yet with shares")
    return replace(attribution, unattributed_nano=attribution.pool_nano, unattributed_ppb=PPB)


def flat(legs: Sequence[Leg], *, added: int = 0) -> list[str]:
    """Legs as script arguments; the script itself adds as many as `added` says, or fewer."""
    if len(legs) + added > LEGS_PER_ENTRY_MAX:
        raise LedgerRefused(f"{len(legs) + added} legs: an entry has {LEGS_PER_ENTRY_MAX} at most")
    return [word for leg in legs for word in (account_name(leg.account), str(leg.nano))]
