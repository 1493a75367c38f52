"""A ledger in a hundred lines of Python: what each operation must do, without Redis or speed.

Each method moves the money and counts the entry, or raises the ledger's own error and does neither.
What has been posted before is not its business: the test sends that again and looks for a change.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from byline.errors import InsufficientFunds, LedgerRefused
from byline.limits import CENT_NANO, CONTRIBUTOR_DEBT_NANO_MAX
from byline.money import largest_remainder
from byline.records import Payout
from tests.byline.cases import ADAPTER

CLEARING = ("funding", "payout", "refund")
UNATTRIBUTED = f"unattributed:{ADAPTER}"


class State(StrEnum):
    """How far an inference is."""

    HELD = "held"
    EXPIRED = "expired"
    VOIDED = "voided"
    CAPTURED = "captured"


@dataclass
class Inference:
    """What the model knows of one inference."""

    id: str
    application: str
    held: int
    state: State = State.HELD
    charge: int = 0
    refunded: int = 0
    pools: dict[int, int] = field(default_factory=dict)  # the open ones
    credits: Counter[str] = field(default_factory=Counter)  # net of what was refunded

    def open_account(self, ordinal: int) -> str:
        """Where the choice's pool lies."""
        return f"open:{self.id}" + (f"/{ordinal}" if ordinal else "")


class Model:
    """Accounts, credit limits, blocks and inferences."""

    def __init__(self) -> None:
        self.accounts: Counter[str] = Counter()
        self.limits: Counter[str] = Counter()
        self.blocked: set[str] = set()
        self.paid: Counter[str] = Counter()  # the last entry whose lines were paid, by payee
        self.inferences: list[Inference] = []
        self.entries = 0

    @property
    def balances(self) -> dict[str, int]:
        """Every account that is not zero."""
        return {account: nano for account, nano in self.accounts.items() if nano}

    def deposit(self, application: str, nano: int) -> None:
        self._post({"funding": -nano, f"app:{application}": nano})

    def hold(self, inference: str, application: str, nano: int) -> None:
        self._post({f"app:{application}": -nano, f"hold:{inference}": nano})
        self.inferences.append(Inference(inference, application, nano))

    def capture(self, inference: Inference, credit: int, pools: list[int]) -> bool:
        """True where it comes late."""
        charge, late = credit + sum(pools), inference.state is State.EXPIRED
        if inference.state not in (State.HELD, State.EXPIRED) or charge > inference.held:
            raise LedgerRefused
        inference.pools = {ordinal: pool for ordinal, pool in enumerate(pools) if pool}
        opened = {inference.open_account(ordinal): n for ordinal, n in inference.pools.items()}
        held = 0 if late else inference.held
        application = f"app:{inference.application}"
        legs = {f"hold:{inference.id}": -held, application: held - charge, "platform": credit}
        self._post(legs | opened, overdraft=late)
        inference.state, inference.charge = State.CAPTURED, charge
        inference.credits["platform"] = credit
        return late

    def give_back(self, inference: Inference, state: State) -> None:
        """Void and expire."""
        if inference.state is not State.HELD:
            raise LedgerRefused
        held = inference.held
        self._post({f"hold:{inference.id}": -held, f"app:{inference.application}": held})
        inference.state = state

    def settle(self, inference: Inference, ordinal: int, pool: int, unattributed: int) -> None:
        if inference.pools.get(ordinal) != pool:
            raise LedgerRefused
        paid = {"contrib:alice": pool - unattributed, UNATTRIBUTED: unattributed}
        self._post({inference.open_account(ordinal): -pool, **paid})
        inference.credits.update(paid)
        del inference.pools[ordinal]

    def adjust(self, legs: Mapping[str, int]) -> None:
        self._post(legs, contributor_debt=CONTRIBUTOR_DEBT_NANO_MAX)

    def release(self, legs: Mapping[str, int]) -> None:
        self._post({UNATTRIBUTED: -sum(legs.values()), **legs})

    def refund(self, inference: Inference, nano: int, operation: str) -> None:
        left = inference.charge - inference.refunded
        if inference.state is not State.CAPTURED or inference.pools or nano > left:
            raise LedgerRefused
        parts = largest_remainder(nano, +inference.credits, salt=operation)
        taken = {who: min(part, max(self.accounts[who], 0)) for who, part in parts.items()}
        legs = {who: -part for who, part in taken.items()}
        short = nano - sum(taken.values())
        self._post({**legs, "refund": -short, f"app:{inference.application}": nano})
        inference.credits.subtract(parts)
        inference.refunded += nano

    def payout(self, payout: Payout) -> None:
        account, nano = payout.account, payout.nano
        is_next = payout.first_seq == self.paid[account] + 1 and payout.last_seq <= self.entries
        if account in self.blocked or nano % CENT_NANO or not is_next:
            raise LedgerRefused
        self._post({account: -nano, "payout": nano})
        self.paid[account] = payout.last_seq

    def _post(
        self, legs: Mapping[str, int], *, overdraft: bool = False, contributor_debt: int = 0
    ) -> None:
        assert sum(legs.values()) == 0
        for account, nano in legs.items():
            after = self.accounts[account] + nano
            if nano >= 0 or after >= 0 or account in CLEARING:
                continue
            kind, _, name = account.partition(":")
            if kind == "app":
                if not overdraft and after < -self.limits[name]:
                    raise InsufficientFunds
            elif kind not in ("contrib", "unattributed") or after < -contributor_debt:
                raise LedgerRefused
        self.accounts.update(legs)
        self.entries += 1
