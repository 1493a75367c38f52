"""What an entry leaves in the ledger beside the journal and the balances: its mark, its facts.

They are drawn up from the entry and its manifest as the posting scripts write them. One thing is in
neither: when a hold expires. A hold that is put back expires at once, and a second arrival of its
post is a conflict: its payload can't be compared.
"""

import json
from typing import Any

from byline.archive.rows import CAPTURES, Found
from byline.canonical import canonical_text, sha256_hex
from byline.errors import ArchiveMismatch
from byline.inference_records import REFUND
from byline.posting import postings
from byline.posting.keys import Keys
from byline.posting.postings import DAY_MS, DIGEST_DIGITS, OPERATIONS, event_ms
from byline.posting.redis_client import Client
from byline.records import JournalEntry

OF_INFERENCES = ("hold", "capture", "void", "expire", "settle")  # their marks are kept by the day
WITHOUT_MANIFEST = ("deposit", "hold", "void", "expire")
UNKNOWN_DIGEST = "0" * DIGEST_DIGITS
STATES = {"void": "voided", "expire": "expired"}


async def write_traces(redis: Client, keys: Keys, found: Found) -> None:
    """Write what the entry has left. Written again, it is the same."""
    entry = found.entry
    event, operation, ordinal = entry.key.split("/")
    if found.manifest is None and operation not in WITHOUT_MANIFEST:
        raise ArchiveMismatch(
            f"entry {entry.seq} ({entry.key}) can't be put back: the archive has no text behind it"
        )
    charged = keys.inference(entry.inference or "")  # of a refund: what is known of its charge
    refunded = await redis.hgetall(charged) if operation == "refund" else {}
    is_permanent = operation not in OF_INFERENCES
    bucket = OPERATIONS if is_permanent else event_ms(event) // DAY_MS
    flag = "late" if entry.kind == "capture_late" else ""
    async with redis.pipeline(transaction=True) as pipe:
        mark = f"{entry.seq}:{_digest(found, operation)}:{flag}"
        pipe.hsetnx(keys.marks(bucket), entry.key, mark)  # one that is there knows its payload
        if operation == "deposit":
            pipe.hsetnx(keys.limits, _application(entry), "0")
        else:
            pipe.hset(keys.inference(event), mapping=_facts(found, operation, ordinal))
        if operation == "hold":
            pipe.hsetnx(keys.inference(event), "expires_ms", str(entry.time_ms))
        if operation == "refund" and REFUND + event not in refunded:
            asked = json.loads(found.manifest or "")
            total = int(refunded.get("refunded", 0)) + int(asked["nano"])
            more = {"refunded": str(total), REFUND + event: found.manifest}
            pipe.hset(charged, mapping=more)
        if operation == "payout":
            pipe.hset(keys.paid, *_paid(json.loads(found.manifest or "")))
        await pipe.execute()


def _digest(found: Found, operation: str) -> str:
    """Of the payload that was posted."""
    entry, text = found.entry, found.manifest or ""
    event, time_ms = entry.key.partition("/")[0], entry.time_ms
    if operation == "hold":
        return UNKNOWN_DIGEST
    if operation == "deposit":
        application = _application(entry)
        nano = next(leg.nano for leg in entry.legs if leg.nano > 0)
        return postings.deposit(event, application, nano, time_ms=time_ms).digest
    if operation == "void":
        return postings.void(event, _application(entry), time_ms=time_ms).digest
    if operation == "expire":
        return postings.expire(event, time_ms=time_ms).digest
    if operation == "refund":  # what was asked, without the parts that came of it
        decision = json.loads(text)
        text = canonical_text({name: decision[name] for name in ("inference", "nano", "reason")})
    return sha256_hex(text.encode())[:DIGEST_DIGITS]


def _facts(found: Found, operation: str, ordinal: str) -> dict[str, str]:
    entry, manifest = found.entry, found.manifest or ""
    if operation == "hold":
        held = next(leg.nano for leg in entry.legs if leg.nano > 0)
        return {"state": "held", "application": _application(entry), "held": str(held)}
    if entry.kind in CAPTURES:
        return {
            "state": "captured", "capture": manifest, "captured_ms": str(entry.time_ms),
            "adapter_version": entry.adapter_version or "",
            **({"late": "1"} if entry.kind == "capture_late" else {}),
        }  # fmt: skip
    if operation in STATES:
        return {"state": STATES[operation]}
    if operation == "settle":
        return {f"attribution:{ordinal}": manifest, f"settle_seq:{ordinal}": str(entry.seq)}
    return {"manifest": manifest}


def _paid(payout: dict[str, Any]) -> tuple[str, str]:
    """Up to which entry the account's lines are paid, and what the payout left."""
    left = int(payout["opening_nano"]) + int(payout["lines_nano"]) - int(payout["nano"])
    return payout["account"], f"{payout['last_seq']}:{left}"


def _application(entry: JournalEntry) -> str:
    return next(leg.account[4:] for leg in entry.legs if leg.account.startswith("app:"))
