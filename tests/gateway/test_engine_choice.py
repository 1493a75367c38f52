"""Which engine gets a request, and when none does: the choice, the cap, the breaker."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byline.errors import (
    AdapterUnavailable,
    EngineBroke,
    EngineBusy,
    EngineError,
    EngineUnavailable,
    RequestFailed,
)
from gateway.engine_client import Ask, EngineClient
from gateway.engines.breaker import FAILURES_TO_OPEN, OPEN_SECONDS_MAX, Breaker
from gateway.engines.choosing import SLACK_TOKENS, SPILL_TOKENS, choose, prefix_of
from gateway.engines.engine import AdapterState, Engine, Turn
from gateway.engines.places import Places

pytestmark = pytest.mark.anyio
ADAPTERS = ["a@1", "b@1", "c@1", "d@1", "e@1"]


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Stand:
    """An engine as the choice sees it."""

    name: str
    in_flight_tokens: int
    near: int

    def nearness(self, adapter: str | None) -> int:
        return self.near


def engines_of(count: int, clock: Clock, *, loras_max: int = 2) -> list[Engine]:
    client = cast(EngineClient, None)  # nothing is sent
    found = [Engine(f"e{n}", client, loras_max=loras_max, clock=clock) for n in range(count)]
    for engine in found:
        engine.adapters = dict.fromkeys(ADAPTERS, AdapterState.READY)
    return found


def ask(adapter: str | None = None, *, tokens: int = 100, prefix: int = 0) -> Ask:
    return Ask("/v1/completions", b"{}", "i", adapter=adapter, tokens=tokens, prefix=prefix)


STANDS = st.lists(
    st.tuples(st.integers(0, 4 * SPILL_TOKENS), st.integers(0, 2)), min_size=1, max_size=9
).map(lambda facts: [Stand(f"e{n}", *fact) for n, fact in enumerate(facts)])


@given(STANDS, st.integers(0, 2**32))
def test_no_engine_is_chosen_far_above_the_least_busy(stands: list[Stand], prefix: int) -> None:
    least = min(stand.in_flight_tokens for stand in stands)
    assert choose(stands, "a@1", prefix).in_flight_tokens <= least + SPILL_TOKENS


@given(STANDS, st.integers(0, 2**32))
def test_the_adapters_place_decides_among_engines_alike(stands: list[Stand], prefix: int) -> None:
    for stand in stands:
        stand.in_flight_tokens = 0
    assert choose(stands, "a@1", prefix).near == max(stand.near for stand in stands)


@given(st.integers(0, 2**32), st.integers(0, SLACK_TOKENS))
def test_a_prefix_stays_where_it_was_while_loads_are_alike(prefix: int, more: int) -> None:
    idle = [Stand(f"e{n}", 0, 2) for n in range(5)]
    home = choose(idle, None, prefix)
    home.in_flight_tokens = more
    assert choose(idle, None, prefix) is home
    home.in_flight_tokens = SLACK_TOKENS + 1
    assert choose(idle, None, prefix) is not home


def test_prefixes_spread_over_all_engines() -> None:
    stands = [Stand(f"10.0.0.{n}:8081", 0, 2) for n in range(4)]
    homes = Counter(choose(stands, None, prefix).name for prefix in range(4_000))
    assert min(homes.values()) > 800


def test_a_prefix_is_of_the_messages_the_model_and_the_application() -> None:
    def body(head: str, text: str) -> bytes:
        return b'{"temperature":%s,"messages":[{"content":"%s"}]}' % (head.encode(), text.encode())

    shared = "x" * 600
    one = prefix_of(body("0", shared + "1"), "a@1", "shop")
    assert prefix_of(body("0.25", shared + "2"), "a@1", "shop") == one
    assert prefix_of(body("0", "y" + shared), "a@1", "shop") != one
    assert prefix_of(body("0", shared + "1"), "b@1", "shop") != one
    assert prefix_of(body("0", shared + "1"), "a@1", "other") != one


# --- the cap -------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 10_000))
async def test_no_engine_gets_more_adapters_than_it_mixes_and_everyone_is_served(
    count: int, loras_max: int, seed: int
) -> None:
    dice, clock = random.Random(seed), Clock()
    engines = engines_of(count, clock, loras_max=loras_max)
    places = Places(engines, clock=clock, wait_seconds=30)
    served: list[str | None] = []

    async def one(adapter: str | None) -> None:
        turn = await places.take(ask(adapter, prefix=dice.randrange(9)))
        assert all(len(engine.adapters_in_flight) <= loras_max for engine in engines)
        for _ in range(dice.randrange(4)):
            clock.now += 0.3
            await asyncio.sleep(0)
        turn.end()
        places.look_again()
        served.append(adapter)

    asked = [dice.choice([*ADAPTERS, None]) for _ in range(40)]
    await asyncio.gather(*(one(adapter) for adapter in asked))
    assert Counter(served) == Counter(asked)
    assert [(e.in_flight_tokens, e.in_flight_requests) for e in engines] == [(0, 0)] * count
    assert not any(engine.adapters_in_flight for engine in engines)


async def test_a_request_without_a_place_waits_for_a_bounded_time() -> None:
    clock = Clock()
    (engine,) = engines_of(1, clock, loras_max=1)
    places = Places([engine], clock=clock, wait_seconds=0.05)
    turn = await places.take(ask("a@1"))
    with pytest.raises(EngineBusy, match="No engine had a place"):
        await places.take(ask("b@1"))
    assert places.waiting == 0
    assert engine.adapters_in_flight == {"a@1": 1}
    await places.take(ask("a@1"))  # joins its own
    await places.take(ask(None))  # and the base model needs no place
    turn.end()


async def test_a_stream_of_one_adapter_does_not_starve_another() -> None:
    """Each request for a overlaps the next: without a promise b would wait for ever."""
    clock = Clock()
    (engine,) = engines_of(1, clock, loras_max=1)
    places = Places([engine], clock=clock, wait_seconds=30)
    first = await places.take(ask("a@1"))
    rare = asyncio.create_task(places.take(ask("b@1")))
    await asyncio.sleep(0)
    second = await places.take(ask("a@1"))  # not long enough yet
    clock.now += 2.0
    late = asyncio.create_task(places.take(ask("a@1")))
    await asyncio.sleep(0)
    assert not late.done()
    first.end()
    second.end()
    places.look_again()
    (await rare).end()
    places.look_again()
    (await late).end()


async def test_a_waiter_that_goes_away_keeps_no_place() -> None:
    clock = Clock()
    (engine,) = engines_of(1, clock, loras_max=1)
    places = Places([engine], clock=clock, wait_seconds=30)
    turn = await places.take(ask("a@1"))
    waiting = asyncio.create_task(places.take(ask("b@1")))
    await asyncio.sleep(0)
    turn.end()
    places.look_again()  # the turn is there, and its waiter is cancelled in the same moment
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (engine.in_flight_requests, dict(engine.adapters_in_flight)) == (0, {})


async def test_an_adapter_that_is_nowhere_ready_is_refused_at_once() -> None:
    clock = Clock()
    engines = engines_of(2, clock)
    for state in (AdapterState.NOT_APPLIED, AdapterState.LOADED, AdapterState.FAILED):
        for engine in engines:
            engine.adapters["a@1"] = state
        with pytest.raises(AdapterUnavailable):
            await Places(engines, clock=clock).take(ask("a@1"))
    assert (await Places(engines, clock=clock).take(ask(None))).engine in engines


# --- the breaker ---------------------------------------------------------------------------------


def fail(engine: Engine, problem: EngineError, times: int = 1) -> None:
    for _ in range(times):
        engine.take(ask()).end(problem)


async def test_an_engine_that_keeps_failing_is_left_alone_then_tried_with_one_request() -> None:
    clock = Clock()
    (engine,) = engines_of(1, clock)
    places = Places([engine], clock=clock)
    fail(engine, EngineUnavailable("refused"), FAILURES_TO_OPEN)
    with pytest.raises(EngineUnavailable, match="No engine answers"):
        await places.take(ask())
    clock.now += 1.0
    trial = await places.take(ask())
    with pytest.raises(EngineUnavailable):  # one at a time
        await places.take(ask())
    trial.end(EngineBroke("again"))
    clock.now += 1.0
    with pytest.raises(EngineUnavailable):  # twice as long
        await places.take(ask())
    clock.now += 1.0
    (await places.take(ask())).end()
    assert not engine.breaker.is_open


@pytest.mark.parametrize(
    "problem", [EngineBusy("full"), RequestFailed("500"), AdapterUnavailable("404")]
)
def test_what_a_client_can_cause_does_not_open_the_breaker(problem: EngineError) -> None:
    (engine,) = engines_of(1, Clock())
    fail(engine, problem, 10 * FAILURES_TO_OPEN)
    assert not engine.breaker.is_open


def test_a_trial_whose_client_leaves_hands_the_trial_on() -> None:
    clock = Clock()
    (engine,) = engines_of(1, clock)
    fail(engine, EngineBroke("cut"), FAILURES_TO_OPEN)
    clock.now += 1.0
    engine.take(ask()).end(answered=False)
    assert engine.breaker.is_open
    assert engine.breaker.allows


@given(st.lists(st.sampled_from(["answer", "break", "leave", "wait", "end"]), max_size=60))
def test_while_open_one_request_at_most_is_under_way_and_it_always_opens_again(
    steps: list[str],
) -> None:
    clock = Clock()
    breaker = Breaker(clock)
    trial = False
    for step in steps:
        if step == "wait":
            clock.now += OPEN_SECONDS_MAX
        elif breaker.allows:
            assert not (breaker.is_open and trial)
            trial = breaker.begin()
            if step == "answer":
                breaker.succeeded()
            elif step == "break":
                breaker.failed(deciding=trial)
            else:
                breaker.undecided(deciding=trial)
            trial = False
        else:
            assert breaker.is_open
    clock.now += OPEN_SECONDS_MAX
    assert breaker.allows


def test_a_turn_is_ended_once() -> None:
    (engine,) = engines_of(1, Clock())
    turn: Turn = engine.take(ask("a@1"))
    turn.end()
    with pytest.raises(AssertionError):
        turn.end()
