"""Quotas against a plain model, with a clock that the test moves; and at a real server's own clock.

The theorem: whatever is admitted, corrected, repeated, and however the clock moves, the scripts
answer as a model that sums every single use would; so no limit is ever passed, all limits are taken
together or none, and what was not used is there again.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from byline.errors import InvalidInput, LedgerUnavailable
from byline.posting.redis_client import Client
from byline.quotas import quotas as module
from byline.quotas.line import Line
from byline.quotas.quotas import LIMITS, TAG, Quotas, reservation_key, use_key
from byline.quotas.scopes import (
    Admitted,
    LimitName,
    Quota,
    Refused,
    Scope,
    ScopeKind,
    Used,
    Want,
    Window,
)
from byline.quotas.scripts import script_texts

pytestmark = pytest.mark.anyio
TIME = f"{TAG}:test-time"
LASTS_MS = 900_000
START_MS = 1_795_651_200_000  # 2026-11-26 00:00 UTC


def scope(kind: ScopeKind = ScopeKind.APPLICATION) -> Scope:
    return Scope(kind, uuid.uuid4().hex)


def want(*scopes: Scope, tokens: int = 10, nano: int = 100, inference: str = "") -> Want:
    return Want(inference or uuid.uuid4().hex, "shop", scopes, tokens, nano)


@pytest.fixture
async def quotas(redis_url: str) -> AsyncIterator[Quotas]:
    opened = Quotas.of(redis_url)
    yield opened
    await opened.close()


class Clocked:
    """Quotas whose scripts read a clock that the test sets."""

    def __init__(self, redis_url: str, redis: Client) -> None:
        texts = {
            name: text.replace("call('TIME')", f"call('LRANGE', '{TIME}', 0, 1)")
            for name, text in script_texts().items()
        }
        assert all(TIME in text for text in texts.values())
        self.quotas = Quotas(Line(redis_url, TAG, texts, timeout_seconds=5.0))
        self.redis = redis

    async def set(self, now_ms: int) -> None:
        await self.redis.delete(TIME)
        await self.redis.rpush(TIME, now_ms // 1_000, now_ms % 1_000 * 1_000)


@pytest.fixture
async def clocked(redis_url: str, redis: Client) -> AsyncIterator[Clocked]:
    opened = Clocked(redis_url, redis)
    await redis.delete(module.CLOCK, module.OPEN)
    await opened.set(START_MS)
    yield opened
    await opened.quotas.close()
    await redis.delete(module.CLOCK, module.OPEN)


# --- the model ---


@dataclass
class Use:
    """One inference that was admitted, and what counts of it."""

    at_ms: int
    scopes: tuple[Scope, ...]
    requests: int
    tokens: int
    nano: int
    is_open: bool = True


@dataclass
class Model:
    """Every use for ever; sums are made anew each time."""

    quotas: dict[Scope, Quota]
    uses: dict[str, Use] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)

    def used(self, of: Scope, now_ms: int) -> Used:
        def day(ms: int) -> tuple[int, ...]:
            return datetime.fromtimestamp(ms // 1_000, UTC).timetuple()[:3]

        mine = [use for use in self.uses.values() if of in use.scopes]
        recent = [use for use in mine if now_ms // 1_000 - use.at_ms // 1_000 <= 60]
        return Used(
            sum(use.requests for use in recent),
            sum(use.tokens for use in recent),
            sum(use.nano for use in mine if day(use.at_ms) == day(now_ms)),
            sum(use.nano for use in mine if day(use.at_ms)[:2] == day(now_ms)[:2]),
        )

    def fits(self, wanted: Want, now_ms: int) -> bool:
        asked = (1, wanted.tokens, wanted.nano, wanted.nano)
        for of in wanted.scopes:
            used = self.used(of, now_ms)
            sums = (used.requests, used.tokens, used.nano_of_day, used.nano_of_month)
            quota = self.quotas.get(of, Quota())
            limits = [getattr(quota, name) for name in LimitName]
            for more, total, limit in zip(asked, sums, limits, strict=True):
                if limit is not None and total + more > limit:
                    return False
        return True

    def admit(self, wanted: Want, now_ms: int) -> bool | None:
        """None: it was given up before."""
        limited = tuple(of for of in wanted.scopes if of in self.quotas)
        if not limited:
            return True
        if wanted.inference in self.closed:
            return None
        if wanted.inference in self.uses:
            return True
        if not self.fits(wanted, now_ms):
            return False
        self.uses[wanted.inference] = Use(now_ms, limited, 1, wanted.tokens, wanted.nano)
        return True

    def correct(self, inference: str, requests: int, tokens: int, nano: int, keep: bool) -> bool:
        use = self.uses.get(inference)
        if use is None or not use.is_open:
            self.closed.add(inference)
            return False
        use.requests, use.tokens, use.nano, use.is_open = requests, tokens, nano, keep
        if not keep:
            self.closed.add(inference)
        return True


limits = st.one_of(st.none(), st.integers(0, 6))
a_quota = st.builds(
    Quota,
    requests_per_minute=limits,
    tokens_per_minute=st.one_of(st.none(), st.integers(0, 40)),
    nano_per_day=st.one_of(st.none(), st.integers(0, 400)),
    nano_per_month=st.one_of(st.none(), st.integers(0, 900)),
).filter(lambda quota: quota.given())
step = st.one_of(
    st.tuples(st.just("move"), st.sampled_from([1, 999, 7_000, 60_000, 86_400_000])),
    st.tuples(
        st.just("admit"), st.integers(0, 9), st.sets(st.integers(0, 2), min_size=1),
        st.integers(0, 20), st.integers(0, 200),
    ),
    st.tuples(
        st.just("correct"), st.integers(0, 9), st.integers(0, 1), st.integers(0, 20),
        st.integers(0, 200), st.booleans(),
    ),
)  # fmt: skip


@pytest.mark.slow
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    given_quotas=st.lists(a_quota, min_size=1, max_size=3),
    steps=st.lists(step, min_size=15, max_size=40),
)
async def test_the_scripts_answer_as_a_model_that_sums_every_use(
    clocked: Clocked, given_quotas: list[Quota], steps: list[tuple[object, ...]]
) -> None:
    quotas, now_ms = clocked.quotas, START_MS
    await clocked.redis.delete(module.CLOCK)
    await clocked.set(now_ms)
    run = uuid.uuid4().hex
    scopes = [Scope(kind, f"{run}-{kind}") for kind in ScopeKind]
    model = Model(dict(zip(scopes, given_quotas, strict=False)))
    for of, quota in model.quotas.items():
        await quotas.set(of, quota)
    for one in steps:
        match one:
            case ("move", int(ms)):
                now_ms += ms
                await clocked.set(now_ms)
            case ("admit", number, set(places), int(tokens), int(nano)):
                chosen = tuple(scopes[place] for place in sorted(places))
                wanted = want(*chosen, tokens=tokens, nano=nano, inference=f"{run}-{number}")
                expected = model.admit(wanted, now_ms)
                try:
                    answer = await quotas.admit(wanted, lasts_ms=LASTS_MS)
                except LedgerUnavailable:
                    assert expected is None
                else:
                    assert isinstance(answer, Admitted) is expected
                    await _check_refusal(clocked, model, wanted, answer, now_ms)
            case ("correct", number, int(requests), int(tokens), int(nano), bool(keep)):
                inference = f"{run}-{number}"
                corrected = await quotas.correct(
                    inference, scopes, requests=requests, tokens=tokens, nano=nano,
                    keep_ms=LASTS_MS if keep else 0,
                )  # fmt: skip
                assert corrected is model.correct(inference, requests, tokens, nano, keep)
        for of in model.quotas:
            assert await quotas.used(of) == model.used(of, now_ms)


async def _check_refusal(
    clocked: Clocked, model: Model, wanted: Want, answer: Admitted | Refused, now_ms: int
) -> None:
    """What is said of when it fits is true to the millisecond, for that limit."""
    if not isinstance(answer, Refused) or answer.wait_ms is None:
        return
    quota = model.quotas[answer.scope]
    alone = Model({answer.scope: Quota(**{answer.limit_name.value: answer.limit})}, model.uses)
    assert getattr(quota, answer.limit_name.value) == answer.limit
    assert not alone.fits(wanted, now_ms + answer.wait_ms - 1)
    assert alone.fits(wanted, now_ms + answer.wait_ms)


# --- what is promised, one by one ---


async def test_a_scope_without_a_limit_costs_nothing_and_leaves_nothing(
    quotas: Quotas, redis: Client
) -> None:
    unlimited = scope()
    wanted = want(unlimited)
    assert await quotas.admit(wanted, lasts_ms=LASTS_MS) == Admitted(is_limited=False)
    left = await redis.exists(use_key(unlimited), reservation_key(wanted.inference))
    assert left == 0


async def test_all_limits_are_taken_or_none(quotas: Quotas) -> None:
    key, application, organisation = (scope(kind) for kind in ScopeKind)
    await quotas.set(key, Quota(requests_per_minute=5))
    await quotas.set(application, Quota(tokens_per_minute=100))
    await quotas.set(organisation, Quota(nano_per_day=1_000))
    refused = await quotas.admit(
        want(key, application, organisation, nano=1_001), lasts_ms=LASTS_MS
    )
    assert isinstance(refused, Refused)
    assert (refused.scope, refused.limit_name, refused.wait_ms) == (
        organisation,
        LimitName.DAY,
        None,
    )
    for each in (key, application, organisation):
        assert await quotas.used(each) == Used(0, 0, 0, 0)


async def test_what_was_not_used_is_there_again_and_only_once(quotas: Quotas) -> None:
    shop = scope()
    await quotas.set(shop, Quota(tokens_per_minute=100, nano_per_month=1_000))
    wanted = want(shop, tokens=90, nano=900)
    first = await quotas.admit(wanted, lasts_ms=LASTS_MS)
    assert isinstance(first, Admitted)
    assert first.tokens is not None
    assert (first.tokens.limit, first.tokens.remaining, first.requests) == (100, 10, None)
    assert isinstance(await quotas.admit(want(shop, tokens=11), lasts_ms=LASTS_MS), Refused)
    assert await quotas.correct(wanted.inference, [shop], tokens=7, nano=70)
    assert not await quotas.correct(wanted.inference, [shop], tokens=7, nano=70)
    assert await quotas.used(shop) == Used(1, 7, 70, 70)


async def test_more_than_was_taken_counts_in_full(quotas: Quotas) -> None:
    shop = scope()
    await quotas.set(shop, Quota(tokens_per_minute=100))
    wanted = want(shop, tokens=5)
    await quotas.admit(wanted, lasts_ms=LASTS_MS)
    await quotas.correct(wanted.inference, [shop], tokens=20, nano=100)
    assert (await quotas.used(shop)).tokens == 20


async def test_an_admission_that_comes_after_it_was_given_up_takes_nothing(quotas: Quotas) -> None:
    shop = scope()
    await quotas.set(shop, Quota(requests_per_minute=1))
    wanted = want(shop)
    assert not await quotas.correct(wanted.inference, [shop], requests=0, tokens=0, nano=0)
    with pytest.raises(LedgerUnavailable, match="given up"):
        await quotas.admit(wanted, lasts_ms=LASTS_MS)
    assert await quotas.used(shop) == Used(0, 0, 0, 0)


async def test_what_nobody_corrects_is_overdue_and_can_be_given_back(clocked: Clocked) -> None:
    quotas, shop = clocked.quotas, scope()
    await quotas.set(shop, Quota(nano_per_month=1_000))
    wanted = want(shop, nano=900)
    await quotas.admit(wanted, lasts_ms=LASTS_MS)
    await clocked.set(START_MS + LASTS_MS - 1)
    assert await quotas.overdue() == []
    await clocked.set(START_MS + LASTS_MS)
    (overdue,) = await quotas.overdue()
    assert (overdue.inference, overdue.application) == (wanted.inference, "shop")
    assert (overdue.scopes, overdue.is_looked_at) == ((shop,), False)
    await quotas.correct(overdue.inference, overdue.scopes, tokens=0, nano=0, keep_ms=5_000)
    assert (await quotas.used(shop)).nano_of_month == 0
    assert await quotas.overdue() == []
    await clocked.set(START_MS + LASTS_MS + 5_000)
    (again,) = await quotas.overdue()
    assert again.is_looked_at
    await quotas.correct(overdue.inference, overdue.scopes, tokens=0, nano=40)
    assert await quotas.overdue() == []
    assert (await quotas.used(shop)).nano_of_month == 40


async def test_a_reservation_whose_keys_were_lost_does_not_stay_overdue(
    clocked: Clocked, redis: Client
) -> None:
    await redis.zadd(module.OPEN, {"lost": 1})
    assert await clocked.quotas.overdue() == []
    assert await redis.zcard(module.OPEN) == 0


async def test_a_use_counts_for_sixty_seconds_and_the_rest_of_its_own(clocked: Clocked) -> None:
    quotas, shop = clocked.quotas, scope()
    await quotas.set(shop, Quota(requests_per_minute=1))
    await clocked.set(START_MS + 999)
    await quotas.admit(want(shop), lasts_ms=LASTS_MS)
    await clocked.set(START_MS + 60_999)
    refused = await quotas.admit(want(shop), lasts_ms=LASTS_MS)
    assert isinstance(refused, Refused)
    assert refused.wait_ms == 1
    await clocked.set(START_MS + 61_000)
    assert isinstance(await quotas.admit(want(shop), lasts_ms=LASTS_MS), Admitted)


async def test_a_correction_changes_the_day_and_the_minute_that_it_was_taken_from(
    clocked: Clocked,
) -> None:
    quotas, shop = clocked.quotas, scope()
    await quotas.set(shop, Quota(nano_per_day=10_000, tokens_per_minute=100))
    yesterdays, todays = want(shop, nano=500), want(shop, nano=300)
    await quotas.admit(yesterdays, lasts_ms=LASTS_MS)
    await clocked.set(START_MS + 86_400_000)
    await quotas.admit(todays, lasts_ms=LASTS_MS)
    await quotas.correct(yesterdays.inference, [shop], tokens=3, nano=20)
    assert await quotas.used(shop) == Used(1, 10, 300, 320)


async def test_a_clock_that_goes_back_a_little_frees_nothing(clocked: Clocked) -> None:
    quotas, shop = clocked.quotas, scope()
    await quotas.set(shop, Quota(requests_per_minute=1, nano_per_day=100))
    await quotas.admit(want(shop), lasts_ms=LASTS_MS)
    for back_ms in (1_000, 30_000, 60_000):  # over midnight
        await clocked.set(START_MS - back_ms)
        assert isinstance(await quotas.admit(want(shop), lasts_ms=LASTS_MS), Refused)


async def test_a_clock_that_is_set_back_far_does_not_refuse_for_ever(clocked: Clocked) -> None:
    quotas, shop = clocked.quotas, scope()
    await quotas.set(shop, Quota(requests_per_minute=1))
    lost = want(shop)
    await quotas.admit(lost, lasts_ms=LASTS_MS)
    await clocked.set(START_MS - 7 * 86_400_000)
    assert isinstance(await quotas.admit(want(shop), lasts_ms=LASTS_MS), Admitted)
    await quotas.correct(lost.inference, [shop], requests=0, tokens=0, nano=0)
    assert (await quotas.used(shop)).requests == 1


async def test_a_correction_for_a_minute_that_was_forgotten_takes_nothing_from_others(
    clocked: Clocked,
) -> None:
    quotas, shop = clocked.quotas, scope()
    await quotas.set(shop, Quota(requests_per_minute=9))
    lost = want(shop)
    await quotas.admit(lost, lasts_ms=LASTS_MS)
    for at_ms in (-90_000, -40_000, 5_000):  # set back too far to be believed, then around it
        await clocked.set(START_MS + at_ms)
        await quotas.admit(want(shop), lasts_ms=LASTS_MS)
    before = await quotas.used(shop)
    await quotas.correct(lost.inference, [shop], requests=0, tokens=0, nano=0)
    assert (await quotas.used(shop)).requests == before.requests == 2


async def test_a_limit_that_changes_is_obeyed_at_once(quotas: Quotas) -> None:
    shop = scope()
    await quotas.set(shop, Quota(requests_per_minute=1))
    await quotas.admit(want(shop), lasts_ms=LASTS_MS)
    await quotas.set(shop, Quota(requests_per_minute=2, tokens_per_minute=1_000))
    second = await quotas.admit(want(shop), lasts_ms=LASTS_MS)
    assert isinstance(second, Admitted)
    assert second.requests == Window(2, 0, second.requests.reset_ms if second.requests else 0)
    await quotas.set(shop, Quota(requests_per_minute=1))
    refused = await quotas.admit(want(shop), lasts_ms=LASTS_MS)
    assert isinstance(refused, Refused)
    assert (refused.limit, refused.used, refused.wanted) == (1, 2, 1)


async def test_limits_are_set_one_by_one_listed_and_removed(quotas: Quotas) -> None:
    shop = scope()
    await quotas.set(shop, Quota(requests_per_minute=5))
    await quotas.set(shop, Quota(nano_per_month=7))
    assert (await quotas.quotas())[shop] == Quota(requests_per_minute=5, nano_per_month=7)
    assert await quotas.remove(shop)
    assert not await quotas.remove(shop)
    assert shop not in await quotas.quotas()


async def test_a_limit_that_cannot_be_read_lets_nothing_pass(quotas: Quotas, redis: Client) -> None:
    shop = scope()
    await redis.hset(LIMITS, f"{shop} requests_per_minute", "many")
    with pytest.raises(LedgerUnavailable, match="no number"):
        await quotas.admit(want(shop), lasts_ms=LASTS_MS)
    await quotas.remove(shop)


@pytest.mark.parametrize("value", [-1, 10**16])
def test_a_limit_out_of_bounds_is_refused(value: int) -> None:
    with pytest.raises(InvalidInput, match="nano_per_day"):
        Quota(nano_per_day=value)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "x" * 65])
def test_a_name_that_could_be_taken_for_another_key_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="name"):
        Scope(ScopeKind.APPLICATION, name)


async def test_every_scope_of_one_request_at_once_within_a_minute_of_months(
    clocked: Clocked,
) -> None:
    """A budget begins anew with its UTC day and month, also in a leap year."""
    quotas, shop = clocked.quotas, scope()
    await quotas.set(shop, Quota(nano_per_day=100, nano_per_month=150))
    for day, expected in [
        (datetime(2028, 2, 28, 23, 59, 59, tzinfo=UTC), Admitted),
        (datetime(2028, 2, 29, tzinfo=UTC), Refused),  # the month's
        (datetime(2028, 3, 1, tzinfo=UTC), Admitted),
        (datetime(2028, 3, 1, 23, 59, 59, tzinfo=UTC), Refused),
        (datetime(2028, 12, 31, 12, tzinfo=UTC), Admitted),
        (datetime(2029, 1, 1, tzinfo=UTC), Admitted),
    ]:
        await clocked.set(int(day.timestamp() * 1_000))
        assert isinstance(await quotas.admit(want(shop), lasts_ms=LASTS_MS), expected), day


async def test_one_event_loops_requests_share_one_connection(quotas: Quotas, redis: Client) -> None:
    shop = scope()
    await quotas.set(shop, Quota(requests_per_minute=7))
    answers = await asyncio.gather(
        *(quotas.admit(want(shop), lasts_ms=LASTS_MS) for _ in range(50))
    )
    assert sum(isinstance(answer, Admitted) for answer in answers) == 7
    assert await quotas.used(shop) == Used(7, 70, 700, 700)
