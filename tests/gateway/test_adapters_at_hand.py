"""Which adapters an engine has at hand: cold requests, evictions, and what is warmed up unasked."""

import asyncio
from collections import Counter
from dataclasses import dataclass, replace

import pytest

from gateway.engines.uses import HOUR_SECONDS, Uses
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import CYBER, MED, eventually
from tests.gateway.test_engines import BOUNDS, Row, ask, row_of

pytestmark = pytest.mark.anyio
ONE_PLACE = replace(BOUNDS, loras_max=1)


def counts(row: Row) -> tuple[float, float]:
    """Cold requests, evictions."""
    (name,) = row.engines.described()
    return (
        row.metric("byline_adapter_cold_total", engine=name),
        row.metric("byline_adapter_evictions_total", engine=name),
    )


async def asked(row: Row, *versions: str) -> None:
    for version in versions:
        await row.engines.ask(ask(version))


async def test_an_adapter_that_makes_room_for_another_is_an_eviction_and_comes_back_cold() -> None:
    async with row_of(FakeEngine(), bounds=ONE_PLACE) as row:
        await asked(row, MED.version, MED.version, CYBER.version, MED.version)
        assert counts(row) == (3, 2)
        await asked(row, MED.version)
        await row.engines.ask(ask(None))  # the base model needs no place
        assert counts(row) == (3, 2)


async def test_while_there_is_room_nothing_is_evicted() -> None:
    async with row_of(FakeEngine(), bounds=replace(BOUNDS, loras_max=2)) as row:
        await asked(row, *[MED.version, CYBER.version] * 5)
        assert counts(row) == (2, 0)


async def test_adapters_of_the_release_are_pinned_however_seldom_they_are_asked_for() -> None:
    """An eviction is from a place: loaded they stay, and one that the engine lost comes back."""
    async with row_of(FakeEngine(), bounds=ONE_PLACE) as row:
        (fake,) = row.fakes
        await asked(row, *[MED.version] * 20)
        await eventually(lambda: len(fake.probed) >= 4)
        assert fake.adapters.keys() == {MED.version, CYBER.version}
        del fake.adapters[CYBER.version]
        await eventually(lambda: CYBER.version in fake.adapters)
        assert [version for version, _ in fake.loads].count(MED.version) == 1


async def test_a_release_is_loaded_and_checked_before_its_first_request() -> None:
    async with row_of(FakeEngine()) as row:
        (fake,) = row.fakes
        assert not fake.asked
        assert Counter(version for version, _ in fake.loads) == {MED.version: 1, CYBER.version: 1}
        await asked(row, MED.version)
        assert len(fake.loads) == 2


@pytest.mark.parametrize("most", [MED.version, CYBER.version])
async def test_a_restarted_engine_gets_the_hours_most_used_first_and_has_it_at_hand(
    most: str,
) -> None:
    async with row_of(FakeEngine(), bounds=ONE_PLACE) as row:
        (fake,) = row.fakes
        (least,) = {MED.version, CYBER.version} - {most}
        await asked(row, most, most, least)
        before = counts(row)
        fake.loads.clear()
        fake.probed.clear()
        fake.adapters.clear()
        await eventually(lambda: len(fake.probed) == 5)
        await asyncio.sleep(0.1)  # the last answer comes, and nothing after it
        assert len(fake.probed) == 5
        assert [version for version, _ in fake.loads] == [most, least]
        assert fake.probed[-1] == most, "the checks of the others had taken its place"
        await asked(row, most)
        assert counts(row) == before, "the first request after the restart is not cold"
        await asked(row, least)
        assert counts(row) == (before[0] + 1, before[1] + 1)


async def test_an_engine_that_came_back_at_once_gets_nothing_that_nobody_asked_for() -> None:
    async with row_of(FakeEngine(), bounds=replace(BOUNDS, loras_max=2)) as row:
        (fake,) = row.fakes
        await asked(row, MED.version)
        fake.probed.clear()
        fake.adapters.clear()
        await eventually(lambda: len(fake.probed) == 5)
        await asyncio.sleep(0.1)
        await asked(row, MED.version)
        assert len(fake.probed) == 5
        assert fake.probed[-1] == MED.version
        assert fake.probed.count(CYBER.version) == 1, "checked, and not warmed up"


# --- the last hour -------------------------------------------------------------------------------


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_hour_old_use_is_forgotten_and_a_younger_one_is_not() -> None:
    clock = Clock()
    uses = Uses(clock)
    for _ in range(3):
        uses.used("old")
    clock.now = 0.9 * HOUR_SECONDS
    uses.used("new")
    assert uses.most_used() == ["old", "new"]
    clock.now = 1.2 * HOUR_SECONDS
    assert uses.most_used() == ["new"]
    clock.now = 3 * HOUR_SECONDS
    assert uses.most_used() == []


def test_uses_of_a_long_day_take_no_more_memory_than_those_of_an_hour() -> None:
    clock = Clock()
    uses = Uses(clock)
    for minute in range(24 * 60):
        clock.now = minute * 60.0
        uses.used("a")
    assert len(uses._parts) <= 14
