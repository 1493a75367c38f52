"""The ledger: one Redis script a posting, each at most once, every leg validated before a write.

(contract: see the class; implementation to follow)
"""

from collections.abc import AsyncIterator, Callable, Mapping

from byline.records import (
    Attribution,
    AttributionState,
    Books,
    Capture,
    EarningsLine,
    InferenceRecord,
    JournalEntry,
    Posted,
)


class Ledger:
    """Posts to one ledger (one Redis hash tag). Never retries by itself.

    Raises LedgerUnavailable when there was no answer (the outcome may be unknown: call again with
    the same arguments), LedgerRefused and its children when nothing was written, InsufficientFunds when
    an account would fall below what it may.
    """

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        name: str = "usd",
        observe: Callable[[str, str, float], None] | None = None,
    ) -> "Ledger":
        """Connect and check the server: AOF `always`, `noeviction`; else LedgerMisconfigured.

        `observe(operation, outcome, seconds)` is told of each post; the outcome is one of posted,
        duplicate, refused, unknown.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Close the connections."""
        raise NotImplementedError

    async def ping(self) -> None:
        """Raise LedgerUnavailable unless the server answers."""
        raise NotImplementedError

    async def deposit(self, operation: str, application: str, nano: int, *, time_ms: int) -> Posted:
        """`funding` -> `app:<application>`. `operation` is a UUIDv7."""
        raise NotImplementedError

    async def hold(
        self, inference: str, application: str, nano: int, *, expires_ms: int, time_ms: int
    ) -> Posted:
        """`app:` -> `hold:<inference>`. InsufficientFunds where the limit forbids."""
        raise NotImplementedError

    async def capture(self, capture: Capture, *, time_ms: int) -> Posted:
        """Post the charge; open the pools; write the attribution jobs and the inference's record."""
        raise NotImplementedError

    async def void(self, inference: str, application: str, *, time_ms: int) -> Posted:
        """Give the whole hold back: nothing was served."""
        raise NotImplementedError

    async def expire(self, inference: str, *, time_ms: int) -> Posted | None:
        """Give a hold back whose time is over; None if it was captured or voided meanwhile."""
        raise NotImplementedError

    async def expired_holds(self, *, now_ms: int, limit: int = 100) -> list[str]:
        """Inferences whose holds are past their time."""
        raise NotImplementedError

    async def settle(self, attribution: Attribution, *, time_ms: int) -> Posted:
        """Close the choice's open pool to contributors and `unattributed`; keep the attribution."""
        raise NotImplementedError

    async def inference(self, inference: str) -> InferenceRecord | None:
        """The record of a captured inference, or None."""
        raise NotImplementedError

    async def balances(self) -> Mapping[str, int]:
        """Every account that is not zero."""
        raise NotImplementedError

    async def balance(self, account: str) -> int:
        """One account; zero if nothing was ever posted to it."""
        raise NotImplementedError

    async def earnings_lines(self, contributor: str, *, limit: int = 50) -> list[EarningsLine]:
        """The newest lines of a contributor, newest first."""
        raise NotImplementedError

    def entries(self, *, after_seq: int = 0) -> AsyncIterator[JournalEntry]:
        """The journal in order."""
        raise NotImplementedError

    async def check(self) -> Books:
        """Fold the whole journal and hold it against the balances."""
        raise NotImplementedError


__all__ = ["AttributionState", "Ledger"]
