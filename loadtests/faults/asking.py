"""What is asked for: answered, given up, late and repeated inferences, operators' work. Pure.

Some of it is hostile and must be refused: a capture that nobody held, another payload under a used
key, more than there is.
"""

from collections import deque
from dataclasses import replace
from random import Random

from byline.limits import CENT_NANO, HOLD_SECONDS, LEG_NANO_MAX
from byline.records import (
    Adjustment,
    Capture,
    Leg,
    Payout,
    Refund,
    UnattributedRelease,
    Usage,
    UsageSource,
)
from loadtests.faults.operations import (
    CONTRIBUTORS,
    Deposit,
    Expect,
    Flow,
    Hold,
    Operation,
    Unbalanced,
    Void,
)

RICH = tuple(f"app-{number}" for number in range(6))
POOR = "app-poor"  # is refused at times, and asks again when it has been given money
EMPTY = "app-empty"  # never has anything
HOLD_MS = HOLD_SECONDS * 1_000
OLD_MS = 36 * 86_400_000
VERSIONS = ("health@0123456789ab", "law@123456789abc", "code@23456789abcd")
BASE_MODEL = "smol"
REMEMBERED = 600  # flows and captures that later turns may come back to
FUNDS_NANO = LEG_NANO_MAX - 7


def event_id(now_ms: int, rng: Random) -> str:
    """A UUIDv7 of that millisecond."""
    tail = (rng.getrandbits(12) << 64) | (2 << 62) | rng.getrandbits(62)
    digits = f"{now_ms << 80 | 7 << 76 | tail:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


class Asking:
    """Draws what is asked for; remembers what later turns come back to."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._now_ms = 0
        self._flows: deque[Flow] = deque(maxlen=REMEMBERED)
        self._captures: deque[Capture] = deque(maxlen=REMEMBERED)  # of earlier turns
        self._captured: list[Capture] = []  # of this turn: nothing may build on them yet
        self._abandoned: deque[Hold] = deque(maxlen=REMEMBERED)
        self._kinds = {
            self._answered: 66, self._voided: 8, self._abandoned_hold: 4, self._late: 3,
            self._cancelled: 3, self._repeated: 5, self._poor: 2, self._deposit: 2,
            self._refund: 2, self._adjust: 1, self._release: 1, self._payout: 1, self._hostile: 3,
        }  # fmt: skip

    def flows(self, now_ms: int, count: int) -> tuple[Flow, ...]:
        """What is asked for in one turn."""
        self._now_ms = now_ms
        drawn: list[Flow] = []
        for kind in self._rng.choices(list(self._kinds), list(self._kinds.values()), k=count):
            flow = kind()
            drawn.append(flow)
            if flow.expect is not Expect.REFUSED:
                self._flows.append(flow)
        self._captures.extend(self._captured)
        self._captured.clear()
        return tuple(drawn)

    def funding(self, now_ms: int) -> tuple[Flow, ...]:
        """What everybody but the poor and the empty is given before the first turn."""
        return tuple(
            Flow((Deposit(event_id(now_ms, self._rng), application, FUNDS_NANO),))
            for application in RICH
        )

    def _id(self) -> str:
        return event_id(self._now_ms, self._rng)

    def _hold(self, application: str | None = None) -> Hold:
        nano = self._rng.randrange(10_000, 3_000_000)
        application = application or self._rng.choice(RICH)
        return Hold(self._id(), application, nano, self._now_ms + HOLD_MS)

    def _capture(self, hold: Hold) -> Capture:
        """An answer that costs all or a part of what is held, by the base model or an adapter."""
        rng = self._rng
        charge = hold.nano if rng.random() < 0.1 else rng.randrange(100, hold.nano)
        version = rng.choice(VERSIONS) if rng.random() < 0.85 else None
        choices = rng.choice((1, 1, 1, 1, 2, 3)) if version else 0
        cuts = sorted(rng.sample(range(1, charge), 3 + choices))
        parts = [high - low for low, high in zip((0, *cuts), (*cuts, charge), strict=True)]
        adapter = (version or "none").partition("@")[0]
        accounts = ("platform", "host", f"base:{BASE_MODEL}", f"owner:{adapter}")
        return Capture(
            inference=hold.inference, application=hold.application, held_nano=hold.nano,
            charge_nano=charge,
            credits=tuple(Leg(*leg) for leg in zip(accounts, parts[:4], strict=True)),
            pools=tuple(parts[4:]), skipped=None if version else "base_model", model="auto",
            served_by=version or BASE_MODEL, adapter_version=version,
            index="index@0123456789ab" if version else None,
            usage=Usage(12, tuple(7 for _ in parts[4:]) or (7,), UsageSource.ENGINE),
            partial=rng.random() < 0.1, tokens_sha256="0" * 64 if version else None,
            policy="2026-11",
        )  # fmt: skip

    def _answered(self) -> Flow:
        hold = self._hold()
        capture = self._capture(hold)
        self._captured.append(capture)
        return Flow((hold, capture))

    def _voided(self) -> Flow:
        hold = self._hold()
        return Flow((hold, Void(hold.inference, hold.application)))

    def _abandoned_hold(self) -> Flow:
        hold = self._hold()
        self._abandoned.append(hold)
        return Flow((hold,))

    def _late(self) -> Flow:
        """The answer to a hold of an earlier turn, which may have expired."""
        if not self._abandoned:
            return self._answered()
        hold = self._abandoned.popleft()
        return Flow((self._capture(hold),), Expect.EITHER)

    def _cancelled(self) -> Flow:
        """The caller goes away in the midst of it; the gateway posts it all the same."""
        return replace(self._answered(), cancelled_after=self._rng.uniform(0.0, 0.02))

    def _repeated(self) -> Flow:
        """A flow of this turn or of an earlier one, under the same keys."""
        if not self._flows:
            return self._answered()
        return replace(self._rng.choice(self._flows), expect=Expect.EITHER)

    def _poor(self) -> Flow:
        if self._rng.random() < 0.4:
            return Flow((Deposit(self._id(), POOR, 1_500_000),))
        hold = self._hold(POOR)
        return Flow((hold, self._capture(hold)), Expect.EITHER)

    def _deposit(self) -> Flow:
        nano = self._rng.randrange(1, 10**9)
        return Flow((Deposit(self._id(), self._rng.choice(RICH), nano),))

    def _refund(self) -> Flow:
        if not self._captures:
            return self._deposit()
        capture = self._rng.choice(self._captures)
        nano = self._rng.choice((capture.charge_nano, 1 + capture.charge_nano // 3))
        refund = Refund(self._id(), capture.inference, nano, "the answer was empty")
        return Flow((refund,), Expect.EITHER)

    def _adjust(self) -> Flow:
        rng, nano = self._rng, self._rng.randrange(1, 1_000_000)
        payer = rng.choice((*RICH, "contributor"))
        account = f"app:{payer}" if payer in RICH else f"contrib:c{rng.randrange(CONTRIBUTORS)}"
        legs = (Leg(account, -nano), Leg("platform", nano))
        return Flow((Adjustment(self._id(), legs, "a wrong price", "ada"),), Expect.EITHER)

    def _release(self) -> Flow:
        names = self._rng.sample(range(CONTRIBUTORS), 3)
        legs = tuple(Leg(f"contrib:c{name}", self._rng.randrange(1, 50_000)) for name in names)
        decision = "https://example.org/decisions/7"
        version = self._rng.choice(VERSIONS)
        return Flow((UnattributedRelease(self._id(), version, legs, decision),), Expect.EITHER)

    def _payout(self) -> Flow:
        account = self._rng.choice((f"contrib:c{self._rng.randrange(CONTRIBUTORS)}", "platform"))
        nano = CENT_NANO * self._rng.randrange(1, 4)
        payout = Payout(
            operation=self._id(), account=account, nano=nano, statement=f"{account}/2026-11",
            first_seq=1, last_seq=0, opening_nano=0, lines_nano=nano, reference="wire 17",
        )  # fmt: skip  # of no lines, so that no payout need know of the one before it
        return Flow((payout,), Expect.EITHER)

    def _hostile(self) -> Flow:
        operation = self._rng.choice(
            (self._never_held, self._beyond_means, self._too_old, self._unbalanced, self._conflict)
        )()
        return Flow(operation, Expect.REFUSED)

    def _never_held(self) -> tuple[Operation, ...]:
        return (self._capture(self._hold()),)

    def _beyond_means(self) -> tuple[Operation, ...]:
        return (self._hold(EMPTY),)

    def _too_old(self) -> tuple[Operation, ...]:
        return (replace(self._hold(), inference=event_id(self._now_ms - OLD_MS, self._rng)),)

    def _unbalanced(self) -> tuple[Operation, ...]:
        """Legs that do not sum to zero, for an inference that is held."""
        if not self._abandoned:
            return self._never_held()
        return (Unbalanced(self._capture(self._abandoned[-1])),)

    def _conflict(self) -> tuple[Operation, ...]:
        """Another payload under the key of a capture, or a charge after a void."""
        if not self._captures:
            return self._never_held()
        capture = self._rng.choice(self._captures)
        return (replace(capture, model="another"),)
