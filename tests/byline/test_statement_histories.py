"""Over random histories of months: each line is in one statement, and whole cents are paid once.

For each account, the statements' ranges cover the journal without gap or overlap; each opens where
the one before closed; opening + lines = closing; and each payout's opening + lines = paid +
remainder, where its lines are those that no payout cited before.
"""

import asyncio
import random
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from byline.archive.database import Archive
from byline.posting.postings import parse_entry
from byline.statements.freezing import Freezer
from byline.statements.months import Month
from byline.statements.paid import payouts_of
from byline.statements.payouts import PayoutRun
from byline.statements.statement import sha256_of, statement_text
from tests.byline.journals import DAY_MS
from tests.byline.months import CENT, OCTOBER, FakeBank, chain, export

ACCOUNTS = ("contrib:ann", "contrib:bob", "owner:med", "base:tiny", "host", "platform")
MONTHS = 5


def a_month(bank: FakeBank, rng: random.Random, month: Month) -> None:
    """Some entries in about the order of their times; some come late, some are corrections."""
    for time_ms in sorted(rng.randrange(month.start_ms, month.end_ms) for _ in range(12)):
        late_ms = rng.choice([0, 0, 0, rng.randrange(40 * DAY_MS)])
        account = rng.choice(ACCOUNTS)
        if rng.random() < 0.15:
            bank.lose(account, rng.choice([1, rng.randrange(1, 3 * CENT)]), time_ms - late_ms)
        else:
            nano = rng.choice([1, CENT - 1, CENT, rng.randrange(1, 300 * CENT)])
            bank.earn(account, nano, time_ms - late_ms)


async def live(archive: Archive, bank: FakeBank, rng: random.Random) -> None:
    """Months pass; each is frozen and paid some time later, or with the next one."""
    month = OCTOBER
    for _ in range(MONTHS):
        a_month(bank, rng, month)
        if rng.random() < 0.7:
            now_ms = month.end_ms + rng.randrange(1, 20) * DAY_MS
            export(archive, bank)
            Freezer(archive).freeze_all(month, now_ms=now_ms)
            for _ in range(rng.choice([1, 2])):
                await PayoutRun(bank, archive, minimum_nano=CENT).run(month, now_ms=now_ms)
                export(archive, bank)
        month = month.next
    export(archive, bank)
    Freezer(archive).freeze_all(month, now_ms=month.end_ms + 10 * DAY_MS)


def check_account(archive: Archive, bank: FakeBank, account: str) -> None:
    """What the docstring of this module says, for one account."""
    entries = [parse_entry(text) for text in bank.texts]
    own = {e.seq: leg.nano for e in entries for leg in e.legs if leg.account == account}
    statements = chain(archive, account)
    seen = [line.seq for statement in statements for line in statement.lines]
    assert seen == sorted(own)
    opening, previous = 0, None
    for statement in statements:
        assert statement.opening_nano == opening
        assert statement.previous_sha256 == previous
        assert statement.closing_nano == opening + sum(own[line.seq] for line in statement.lines)
        assert all(statement.from_seq <= x.seq <= statement.to_seq for x in statement.lines)
        assert all(x.time_ms < statement.month.end_ms for x in statement.lines)
        assert all(x.late == (x.time_ms < statement.month.start_ms) for x in statement.lines)
        opening, previous = statement.closing_nano, sha256_of(statement_text(statement))
    with archive.reading() as connection:
        paid = payouts_of(connection, "usd", account)
    cited, remainder = 1, 0
    kinds = {entry.seq: entry.kind for entry in entries}
    for each in paid:
        payout = each.payout
        assert (payout.first_seq, payout.opening_nano) == (cited, remainder)
        lines = range(payout.first_seq, payout.last_seq + 1)
        cited_nano = sum(n for seq, n in own.items() if seq in lines and kinds[seq] != "payout")
        assert payout.lines_nano == cited_nano
        assert payout.nano % CENT == 0 < payout.nano == -own[each.seq]
        assert payout.opening_nano + payout.lines_nano == payout.nano + each.remainder_nano
        assert each.remainder_nano >= 0
        cited, remainder = payout.last_seq + 1, each.remainder_nano
    assert len({each.payout.statement for each in paid}) == len(paid)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_each_line_is_stated_once_and_paid_once(seed: int) -> None:
    rng, bank = random.Random(seed), FakeBank(seed)
    with tempfile.TemporaryDirectory() as folder:
        archive = Archive.open(f"sqlite:///{folder}/archive.sqlite")
        try:
            asyncio.run(live(archive, bank, rng))
            for account in ACCOUNTS:
                check_account(archive, bank, account)
        finally:
            archive.close()
