"""A circuit breaker: an engine that keeps failing is left alone, then tried with one request."""

from collections.abc import Callable

FAILURES_TO_OPEN = 3  # in a row
OPEN_SECONDS_MIN = 1.0
OPEN_SECONDS_MAX = 30.0


class Breaker:
    """Closed, open, or half-open: then exactly one request is under way, and decides."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._open_seconds = OPEN_SECONDS_MIN
        self._opened_at: float | None = None
        self._trying = False

    @property
    def is_open(self) -> bool:
        """True until a request has shown that the engine is well again."""
        return self._opened_at is not None

    @property
    def allows(self) -> bool:
        """May a request go to the engine now?"""
        if self._opened_at is None:
            return True
        return not self._trying and self._clock() - self._opened_at >= self._open_seconds

    def begin(self) -> bool:
        """A request goes out; True if it is the one that decides."""
        assert self.allows
        self._trying = self.is_open
        return self._trying

    def succeeded(self) -> None:
        """The engine answered."""
        self._failures = 0
        self._opened_at = None
        self._trying = False
        self._open_seconds = OPEN_SECONDS_MIN

    def failed(self, *, deciding: bool) -> None:
        """The engine did not answer: from the third time in a row on it is left alone.

        A deciding request that fails opens the breaker for twice as long. Failures of requests that
        went out before it opened change nothing.
        """
        self._failures += 1
        if deciding:
            self._open_seconds = min(self._open_seconds * 2, OPEN_SECONDS_MAX)
            self._open()
        elif not self.is_open and self._failures >= FAILURES_TO_OPEN:
            self._open()

    def undecided(self, *, deciding: bool) -> None:
        """A request ended and shows nothing: if it was to decide, the next one does."""
        if deciding:
            self._trying = False

    def _open(self) -> None:
        self._opened_at = self._clock()
        self._trying = False
