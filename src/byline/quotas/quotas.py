"""The quotas: who is limited and by what, what is taken at the door, and what was used instead.

All of it lies in the ledger's server under one hash tag of its own, so that a few integer scripts
see every limit of a request at once, whichever gateway asks. The clock is the server's. The ledger
is the record of money; a budget here only decides whether the next inference may begin.
"""

from collections import defaultdict
from collections.abc import Iterable

from byline.errors import LedgerUnavailable
from byline.limits import LEDGER_TIMEOUT_SECONDS
from byline.quotas.answers import ClosedBefore, NotItsAnswer, admission_from, require_named
from byline.quotas.line import Line
from byline.quotas.scopes import Admitted, LimitName, Overdue, Quota, Refused, Scope, Used, Want
from byline.quotas.scripts import script_texts

TAG = "{byline:quotas}"
LIMITS = f"{TAG}:limits"  # `<scope> <limit's name>` -> the limit
CLOCK = f"{TAG}:clock"  # the latest time that was seen, in ms
OPEN = f"{TAG}:open"  # inference -> when its reservation is overdue, in ms


def use_key(scope: Scope) -> str:
    """Where it is kept what a scope has used."""
    return f"{TAG}:used:{scope}"


def reservation_key(inference: str) -> str:
    """Where it is kept what was taken for an inference."""
    return f"{TAG}:reservation:{inference}"


class Quotas:
    """Sets, takes and corrects. Every method raises LedgerUnavailable where no answer came."""

    def __init__(self, line: Line) -> None:
        self._line = line

    @classmethod
    def of(cls, url: str, *, timeout_seconds: float = LEDGER_TIMEOUT_SECONDS) -> "Quotas":
        """The quotas at a ledger's address. The first call connects."""
        return cls(Line(url, TAG, script_texts(), timeout_seconds=timeout_seconds))

    async def close(self) -> None:
        """Close the connection."""
        await self._line.close()

    async def set(self, scope: Scope, quota: Quota) -> None:
        """Set the limits that are given, and leave the others as they are."""
        pairs = [(f"{scope} {name}", value) for name, value in quota.given().items()]
        if pairs:
            await self._line.call("HSET", LIMITS, *(word for pair in pairs for word in pair))

    async def remove(self, scope: Scope) -> bool:
        """Remove every limit of a scope; False where there was none."""
        fields = [f"{scope} {name}" for name in LimitName]
        return bool(await self._line.call("HDEL", LIMITS, *fields))

    async def quotas(self) -> dict[Scope, Quota]:
        """Every scope that is limited, by name."""
        words = await self._line.call("HGETALL", LIMITS)
        given: dict[Scope, dict[str, int]] = defaultdict(dict)
        for field, value in zip(words[::2], words[1::2], strict=True):
            scope, _, name = field.partition(" ")
            given[Scope.parse(scope)][name] = int(value)
        return {scope: Quota(**given[scope]) for scope in sorted(given, key=str)}

    async def used(self, scope: Scope) -> Used:
        """What counts of a scope's use now. It is counted only while the scope has a limit."""
        return Used(*map(int, await self._line.run("used", [CLOCK, use_key(scope)], [])))

    async def admit(self, want: Want, *, lasts_ms: int) -> Admitted | Refused:
        """Take the most that an inference may use from each of its limits: all of them or none.

        Repeated for the same inference it takes nothing more. What is not corrected after
        `lasts_ms` is overdue.
        """
        keys = [LIMITS, CLOCK, OPEN, reservation_key(want.inference), *map(use_key, want.scopes)]
        amounts = (want.tokens, want.nano, lasts_ms)
        arguments: list[str | int] = [
            want.inference,
            want.application,
            *amounts,
            *map(str, want.scopes),
        ]
        reply = await self._line.run("admit", keys, arguments)
        try:
            return admission_from(reply, want.inference)
        except ClosedBefore as problem:
            raise LedgerUnavailable(str(problem)) from problem
        except NotItsAnswer as problem:
            raise self._disordered(problem) from problem

    async def correct(
        self,
        inference: str,
        scopes: Iterable[Scope],
        *,
        requests: int = 1,
        tokens: int,
        nano: int,
        keep_ms: int = 0,
    ) -> bool:
        """Put what was used in the place of what was taken; False where nothing was open.

        `scopes` may be more than were limited. With `keep_ms` it can be corrected once more.
        """
        names = list(scopes)
        keys = [CLOCK, OPEN, reservation_key(inference), *map(use_key, names)]
        arguments: list[str | int] = [inference, requests, tokens, nano, keep_ms, *map(str, names)]
        reply = await self._line.run("correct", keys, arguments)
        try:
            return require_named(reply, inference) == "corrected"
        except NotItsAnswer as problem:
            raise self._disordered(problem) from problem

    async def overdue(self, *, limit: int = 1_000) -> list[Overdue]:
        """Reservations that nobody has corrected in their time, the oldest first."""
        found = []
        for inference in await self._line.run("overdue", [CLOCK, OPEN], [limit]):
            state, application, scopes, looked = await self._line.call(
                "HMGET", reservation_key(inference), "state", "application", "scopes", "looked"
            )
            if state != "open":  # corrected a moment ago, or its keys were lost
                await self._line.call("ZREM", OPEN, inference)
            else:
                parsed = tuple(map(Scope.parse, scopes.split(" ")))
                found.append(Overdue(inference, application, parsed, looked is not None))
        return found

    def _disordered(self, problem: NotItsAnswer) -> LedgerUnavailable:
        self._line.break_off(str(problem))
        return LedgerUnavailable(f"quotas: {problem}")
