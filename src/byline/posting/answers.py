"""What a posting script's answer means: a record, or one of the ledger's errors. Pure."""

from hiredis import ReplyError

from byline.errors import (
    BylineError,
    InsufficientFunds,
    KeyConflict,
    LedgerDamaged,
    LedgerFenced,
    LedgerFrozen,
    LedgerRefused,
    LedgerUnavailable,
    LedgerUnconfirmed,
)
from byline.posting.postings import Posting
from byline.posting.redis_client import refusal
from byline.records import Posted

REFUSALS: dict[str, type[BylineError]] = {
    "conflict": KeyConflict,
    "damaged": LedgerDamaged,
    "fenced": LedgerFenced,
    "frozen": LedgerFrozen,
    "funds": InsufficientFunds,
    "refused": LedgerRefused,
}
Answer = Posted | BylineError | None  # None: there was nothing to post


class ScriptForgotten(LedgerUnavailable):
    """The server does not know the script: nothing ran."""


class NotItsAnswer(Exception):
    """The answer is another event's, or no script's at all: replies have lost their order."""


def answer_to(posting: Posting, reply: object) -> Answer:
    """Read the reply to a posting; NotItsAnswer unless it names the posting's event key."""
    if isinstance(reply, ReplyError):
        if str(reply).startswith("NOSCRIPT"):
            return ScriptForgotten(f"{attempt(posting)}: {reply}")
        return refusal(attempt(posting), str(reply))
    match reply:
        case [str(status), str(text), str(flag), str(key)]:
            pass
        case _:
            raise NotItsAnswer(f"{posting.key} was given something that is no answer")
    if key != posting.key:
        raise NotItsAnswer(f"{posting.key} was given the answer to {key}")
    if status in ("posted", "duplicate") and text.isdecimal():
        return Posted(int(text), duplicate=status == "duplicate", late=flag == "late")
    if status == "nothing":
        return None
    if status not in REFUSALS:
        raise NotItsAnswer(f"{posting.key} was answered with '{status}'")
    return REFUSALS[status](f"{attempt(posting)}: {text}")


def outcome_of(answer: Answer) -> str:
    """How `observe` is told of it: posted, duplicate, refused, unconfirmed or unknown."""
    if isinstance(answer, Posted):
        return "duplicate" if answer.duplicate else "posted"
    if isinstance(answer, (LedgerRefused, InsufficientFunds)):
        return "refused"
    if isinstance(answer, LedgerUnconfirmed):
        return "unconfirmed"
    return "duplicate" if answer is None else "unknown"


def attempt(posting: Posting) -> str:
    """The words that say what was attempted."""
    return f"{posting.operation} {posting.inference}"
