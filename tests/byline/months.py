"""Histories of months: entries of payees at chosen times, archived and ready to be frozen."""

import random
from collections.abc import Mapping
from dataclasses import replace

from byline.archive.database import Archive
from byline.archive.rows import Found, entry_from
from byline.archive.writing import exported_seq, write_page
from byline.canonical import canonical_text
from byline.errors import InsufficientFunds, KeyConflict, LedgerRefused
from byline.limits import PPB
from byline.posting.operator_postings import payout as payout_posting
from byline.records import Payout, Posted, Share
from byline.records_json import attribution_fields
from byline.statements import frozen as store
from byline.statements.freezing import Freezer
from byline.statements.months import Month
from byline.statements.statement import Statement, parse_statement
from tests.byline.cases import ADAPTER, an_attribution, event_id
from tests.byline.journals import DAY_MS, FakeJournal

OCTOBER, NOVEMBER, DECEMBER = Month(2026, 10), Month(2026, 11), Month(2026, 12)
PAYDAY = NOVEMBER.end_ms + 10 * DAY_MS
ANN, HOST = "contrib:ann", "host"
CENT = 10_000_000
DOLLAR = 100 * CENT


class FakeBank(FakeJournal):
    """A journal that payouts can be posted to, as the ledger would."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.payouts: dict[str, tuple[int, str]] = {}  # operation -> entry, digest

    def earn(self, account: str, nano: int, time_ms: int, *, version: str = ADAPTER) -> int:
        """Settle one inference that pays one account."""
        inference = event_id(time_ms, self.rng)
        share = Share(account.removeprefix("contrib:"), 0.5, PPB, nano)
        paid = replace(
            an_attribution(inference), pool_nano=nano, adapter_version=version, shares=(share,)
        )
        return self.append(
            f"{inference}/settle/0", "settle", {f"open:{inference}": -nano, account: nano},
            manifest=canonical_text(attribution_fields(paid)), time_ms=time_ms, version=version,
        )  # fmt: skip

    def lose(self, account: str, nano: int, time_ms: int) -> int:
        """Adjust an account down."""
        key = f"{event_id(time_ms, self.rng)}/adjust/0"
        return self.append(key, "adjust", {account: -nano, "funding": nano}, time_ms=time_ms)

    async def payout_blocks(self) -> Mapping[str, str]:
        return dict(self.blocked)

    async def payout(self, payout: Payout, *, time_ms: int) -> Posted:
        posting = payout_posting(payout, time_ms=time_ms)
        if payout.operation in self.payouts:
            seq, digest = self.payouts[payout.operation]
            if digest != posting.digest:
                raise KeyConflict(f"{posting.key}: another payload")
            return Posted(seq, duplicate=True)
        if payout.account in self.blocked:
            raise LedgerRefused(f"blocked: {self.blocked[payout.account]}")
        if (await self.balances()).get(payout.account, 0) < payout.nano:
            raise InsufficientFunds(f"{payout.account} would fall below zero")
        legs = {payout.account: -payout.nano, "payout": payout.nano}
        seq = self.append(
            posting.key, "payout", legs, manifest=posting.arguments[0], time_ms=time_ms
        )
        self.payouts[payout.operation] = seq, posting.digest
        return Posted(seq)


def export(archive: Archive, journal: FakeJournal, *, name: str = "usd") -> None:
    """Archive what the journal has."""
    with archive.writing() as connection:
        after = exported_seq(connection, name)
        fresh = list(enumerate(journal.texts, start=1))[after:]
        entries = [(entry_from(seq, text), text) for seq, text in fresh]
        page = [Found(entry, text, journal.explained.get(entry.key)) for entry, text in entries]
        write_page(connection, name, page, lambda _: None)


def freeze(archive: Archive, account: str, month: Month, *, days: int = 1) -> Statement:
    """The account's statement, frozen so many days after the month."""
    frozen = Freezer(archive).freeze(account, month, now_ms=month.end_ms + days * DAY_MS)
    return parse_statement(store.text_of(archive, frozen))


def chain(archive: Archive, account: str) -> list[Statement]:
    """All statements of an account, the oldest first."""
    found = store.of_account(archive, "usd", account)
    return [parse_statement(store.text_of(archive, each)) for each in reversed(found)]
