"""Every error that Byline expects, as one tree. A bug is an assertion; these are the world's doing.

BylineError
├── InvalidInput            a caller's value is wrong; `param` names it
├── Unauthenticated         no API key, or one that is not known
├── Forbidden               a known API key without the right
├── NotFound                no such model, inference or artifact
├── InsufficientFunds       an account would fall below what it may
├── LimitReached            an API key, application or organisation has used what it may for now
│   ├── RequestsLimitReached    its requests a minute
│   ├── TokensLimitReached      its tokens a minute
│   └── BudgetSpent             its money of a day or a month
├── LedgerError
│   ├── LedgerUnavailable   not reached, or no answer: the outcome may be unknown
│   │   ├── LedgerDamaged       what is stored is not as it must be: nothing was written
│   │   ├── LedgerUnconfirmed   posted, and not yet on as many replicas as asked for
│   │   └── SpoolFull       nothing more can be kept for a ledger that is away
│   ├── LedgerRefused       reached, and it refused: nothing was written
│   │   ├── KeyConflict     the same event key came with another payload
│   │   ├── LedgerFull      too little memory left to take another hold
│   │   ├── LedgerFrozen    the bookkeeper or an operator stopped posting
│   │   └── LedgerFenced    the writer's epoch is stale
│   └── LedgerMisconfigured the server could lose or evict money
├── ArchiveUnavailable      the SQL archive was not reached, or is not ours
├── ArchiveMismatch         the journal is not the one that the archive was written from
├── MonthOpen               a month can't be frozen: it is not over, or not wholly in the archive
├── EngineError
│   ├── EngineUnavailable   not reached
│   │   ├── EngineBusy      has no place for this now
│   │   └── AdapterUnavailable  no engine has the adapter loaded and checked
│   ├── EngineRefused       answered with an error of its own
│   └── EngineBroke         stopped in the middle of an answer
│       ├── EngineTimedOut  said nothing for too long
│       └── RequestFailed   reached, and failed at this one request before its first token
│           └── GenerationFailed    in making tokens, without a reason
├── ArtifactError           missing, half-built or changed on disk
├── ProofRefused            a proof, a tree head or a key is not what it must be
├── LogMismatch             the log is not of this journal or of this state: not continued
├── WitnessesAway           too few witnesses cosigned: nothing new is published
├── AttributionFailed       an answer was not attributed; a visible state, never an empty list
└── StartFailed             a part did not start; says what to do next
"""


class BylineError(Exception):
    """The root; its text says what was attempted."""


class InvalidInput(BylineError):
    """A caller's value is wrong."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Unauthenticated(BylineError):
    """No API key, or an unknown one."""


class Forbidden(BylineError):
    """The API key is known and lacks the right."""


class NotFound(BylineError):
    """No such model, inference, contributor or artifact."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class NotProven(NotFound):
    """It is there, and no published tree head covers it yet: a matter of seconds."""


class InsufficientFunds(BylineError):
    """An account would fall below what it may."""


class LimitReached(BylineError):
    """An API key, an application or an organisation has used what it may for now."""


class RequestsLimitReached(LimitReached):
    """Too many requests in a minute."""


class TokensLimitReached(LimitReached):
    """Too many tokens in a minute, or in this one request."""


class BudgetSpent(LimitReached):
    """The budget of a day or a month does not cover what this request may cost."""


class LedgerError(BylineError):
    """Something about the ledger."""


class LedgerUnavailable(LedgerError):
    """Not reached, or no answer in time. The outcome may be unknown: re-send under the same key."""


class LedgerDamaged(LedgerUnavailable):
    """What is stored is not as a ledger's must be: nothing was written. Re-send when mended."""


class LedgerUnconfirmed(LedgerUnavailable):
    """Posted on the primary, and not on as many replicas as asked for: re-send under the key."""


class SpoolFull(LedgerUnavailable):
    """The ledger is away and the durable spool takes no more."""


class LedgerRefused(LedgerError):
    """The ledger was reached and refused: nothing was written."""


class KeyConflict(LedgerRefused):
    """The same event key came with another payload."""


class LedgerFull(LedgerRefused):
    """The server's memory is nearly used up: no new holds."""


class LedgerFrozen(LedgerRefused):
    """Posting was stopped by the bookkeeper or an operator."""


class LedgerFenced(LedgerRefused):
    """The writer's epoch is not the ledger's."""


class LedgerMisconfigured(LedgerError):
    """The Redis server is configured so that it could lose or evict money."""


class ArchiveUnavailable(BylineError):
    """The SQL archive was not reached, or holds something else."""


class ArchiveMismatch(BylineError):
    """The journal is not the one that the archive was written from, or is broken: see the text."""


class MonthOpen(BylineError):
    """The month is not over, or the archive has not seen its end: no statement of it yet."""


class EngineError(BylineError):
    """Something about the inference engine."""


class EngineUnavailable(EngineError):
    """The engine was not reached."""


class EngineBusy(EngineUnavailable):
    """The engine has no place for this request now, or none became free in time."""


class AdapterUnavailable(EngineUnavailable):
    """No engine has this adapter loaded, and found to change its answers."""


class EngineRefused(EngineError):
    """The engine answered with an error of its own."""

    def __init__(self, message: str, *, status: int, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param


class EngineBroke(EngineError):
    """The engine stopped in the middle of an answer."""


class EngineTimedOut(EngineBroke):
    """The engine said nothing for too long: to its first token, or between two."""


class RequestFailed(EngineBroke):
    """The engine took the request and failed at it: its status 500."""


class GenerationFailed(RequestFailed):
    """The engine took the request, failed at it, and gave no reason: its status 500."""


class ArtifactError(BylineError):
    """An artifact is missing, half-built, or not what its hash says."""


class ProofRefused(BylineError):
    """A proof, a tree head, a policy or a key is not what it must be: nothing of it is believed."""


class LogMismatch(BylineError):
    """The transparency log is not one that this journal or this state continues: see the text."""


class WitnessesAway(BylineError):
    """Too few witnesses cosigned a tree head: it is not published, and tried again."""


class AttributionFailed(BylineError):
    """An answer could not be attributed."""


class StartFailed(BylineError):
    """A part of Byline did not start."""
