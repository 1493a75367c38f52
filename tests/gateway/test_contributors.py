"""GET /v1/contributors/me/earnings under each role."""

import pytest

from byline.records import EarningsLine
from tests.gateway.conftest import ANN, BOB, MED, OPERATOR, OWNER, SHOP, House

pytestmark = pytest.mark.anyio

PATH = "/v1/contributors/me/earnings"


def earn(house: House) -> None:
    house.ledger.lines["ann"] = [
        EarningsLine(9, 2_000, "i2", MED.version, 1_000_000_001),
        EarningsLine(4, 1_000, "i1", MED.version, 7),
    ]


async def test_a_contributor_sees_its_balance_and_lines(house: House) -> None:
    earn(house)
    answer = await house.get(PATH, ANN)
    assert answer.fields == {
        "object": "earnings", "contributor": "ann", "currency": "USD",
        "available_nano": 1_000_000_008, "available_usd": "1.000000008",
        "lines": [
            {"seq": 9, "time_ms": 2_000, "inference": "i2", "adapter": MED.version,
             "nano": 1_000_000_001},
            {"seq": 4, "time_ms": 1_000, "inference": "i1", "adapter": MED.version, "nano": 7},
        ],
    }  # fmt: skip


async def test_nothing_earned_is_an_empty_list(house: House) -> None:
    answer = await house.get(PATH, BOB)
    assert (answer.fields["available_usd"], answer.fields["lines"]) == ("0.000000000", [])


async def test_the_newest_lines_may_be_asked_for_alone(house: House) -> None:
    earn(house)
    answer = await house.get(f"{PATH}?limit=1", ANN)
    assert [line["seq"] for line in answer.fields["lines"]] == [9]


@pytest.mark.parametrize("limit", ["0", "1001", "x"])
async def test_a_limit_out_of_bounds_answers_400(house: House, limit: str) -> None:
    assert (await house.get(f"{PATH}?limit={limit}", ANN)).status == 400


@pytest.mark.parametrize("key", [SHOP, OWNER])
async def test_other_roles_are_refused(house: House, key: str) -> None:
    assert (await house.get(PATH, key)).status == 403


async def test_a_contributor_may_name_nobody_else(house: House) -> None:
    assert (await house.get(f"{PATH}?contributor=ann", BOB)).status == 403
    assert (await house.get(f"{PATH}?contributor=bob", BOB)).status == 200


async def test_an_operator_names_the_contributor(house: House) -> None:
    earn(house)
    answer = await house.get(f"{PATH}?contributor=ann", OPERATOR)
    assert answer.fields["contributor"] == "ann"
    assert answer.fields["available_nano"] == 1_000_000_008
    assert (await house.get(PATH, OPERATOR)).status == 400
    assert (await house.get(f"{PATH}?contributor=../x", OPERATOR)).status == 400
