"""What tests of the ledger post and do, with everything that one test doesn't care about."""

import random
import uuid
from collections.abc import Awaitable
from dataclasses import replace

import pytest

from byline.ledger.ledger import Ledger
from byline.limits import PPB
from byline.posting import postings
from byline.posting.postings import Posting
from byline.records import Attribution, AttributionState, Capture, Leg, Share, Usage, UsageSource

NOW_MS = 1_795_000_000_000
HOLD_MS = 900_000
ADAPTER = "healthcare@0123456789ab"


class Killed(BaseException):
    """What a SIGKILL does to the program."""


def event_id(time_ms: int = NOW_MS, rng: random.Random | None = None) -> str:
    """A UUIDv7 of that millisecond."""
    tail = (rng or random).getrandbits(74)
    high, low = tail >> 62, tail & ((1 << 62) - 1)
    return str(uuid.UUID(int=time_ms << 80 | 7 << 76 | high << 64 | 2 << 62 | low))


def a_capture(
    inference: str,
    *,
    application: str = "demo",
    held: int = 1_000,
    credit: int = 400,
    pools: tuple[int, ...] = (500,),
) -> Capture:
    """A capture that credits the platform `credit` and opens `pools`."""
    attributed = any(pools)
    return Capture(
        inference=inference,
        application=application,
        held_nano=held,
        charge_nano=credit + sum(pools),
        credits=(Leg("platform", credit),) if credit else (),
        pools=pools,
        skipped=None if attributed else "the base model answered",
        model="auto",
        served_by=ADAPTER,
        adapter_version=ADAPTER,
        index="healthcare-index@0123456789ab",
        usage=Usage(12, tuple(7 for _ in pools) or (7,), UsageSource.ENGINE),
        partial=False,
        tokens_sha256="0" * 64,
        policy="2026-11",
    )


def an_attribution(
    inference: str, ordinal: int = 0, *, pool: int = 500, unattributed: int = 0
) -> Attribution:
    """A done attribution that pays `alice` what is not unattributed."""
    paid = pool - unattributed
    ppb = PPB * unattributed // pool
    return Attribution(
        inference=inference,
        ordinal=ordinal,
        state=AttributionState.DONE,
        adapter_version=ADAPTER,
        index="healthcare-index@0123456789ab",
        lift_nats=1.25,
        pool_nano=pool,
        unattributed_nano=unattributed,
        unattributed_ppb=ppb,
        shares=(Share("alice", 0.5, PPB - ppb, paid),),
        scores={"alice": 500_000_000, "bob": -250_000_000},
    )


def a_failure(inference: str, ordinal: int = 0, *, pool: int = 500) -> Attribution:
    """An attribution that failed."""
    return replace(
        an_attribution(inference, ordinal, pool=pool),
        state=AttributionState.FAILED,
        reason="the worker gave up",
        shares=(),
        scores={},
    )


async def held(ledger: Ledger, nano: int = 1_000, *, funds: int = 10_000) -> str:
    """An inference that holds `nano` of what `demo` has."""
    inference = event_id()
    if funds:
        await ledger.deposit(event_id(), "demo", funds, time_ms=NOW_MS)
    await ledger.hold(inference, "demo", nano, expires_ms=NOW_MS + HOLD_MS, time_ms=NOW_MS)
    return inference


async def captured(ledger: Ledger, pools: tuple[int, ...] = (500,)) -> str:
    """An inference that is captured with these pools."""
    inference = await held(ledger)
    await ledger.capture(a_capture(inference, pools=pools), time_ms=NOW_MS)
    return inference


async def expired(ledger: Ledger) -> str:
    """An inference whose hold went back."""
    inference = await held(ledger, funds=1_000)
    assert await ledger.expire(inference, time_ms=NOW_MS + HOLD_MS)
    return inference


async def refuses(
    ledger: Ledger, call: Awaitable[object], error: type[Exception], says: str
) -> None:
    """The call raises and the books are as before."""
    before, entries = await ledger.balances(), (await ledger.check()).journal_entries
    with pytest.raises(error, match=says):
        await call
    assert await ledger.balances() == before
    books = await ledger.check()
    assert books.balanced
    assert books.journal_entries == entries


def a_posting(inference: str | None = None) -> Posting:
    """A capture as the spool keeps it."""
    return postings.capture(a_capture(inference or event_id()), time_ms=NOW_MS)
