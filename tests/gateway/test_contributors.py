"""GET /v1/contributors/me/earnings under each role."""

import time

import pytest

from tests.gateway.archived import DAY_MS, LONG_AGO_MS, Filling
from tests.gateway.conftest import ANN, BOB, MED, OPERATOR, OWNER, SHOP, House

pytestmark = pytest.mark.anyio

PATH = "/v1/contributors/me/earnings"


def today_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
async def filled(archive_url: str) -> Filling:
    """Ann earned 700 and 50 long ago, had 20 taken back and 600 paid, and earned 40 today."""
    filling = Filling()
    filling.deposit("shop", 10**9)
    filling.inference({"ann": 700, "bob": 300}, time_ms=LONG_AGO_MS)
    filling.inference({"ann": 50}, time_ms=LONG_AGO_MS + DAY_MS)
    filling.operation(
        "adjust", {"contrib:ann": -20, "platform": 20}, time_ms=LONG_AGO_MS + DAY_MS,
        reason="a row was counted twice",
    )  # fmt: skip
    filling.operation(
        "payout", {"contrib:ann": -600, "payout": 600}, time_ms=LONG_AGO_MS + 2 * DAY_MS
    )
    filling.inference({"ann": 40}, time_ms=today_ms())
    await filling.export(archive_url)
    return filling


async def test_a_contributor_sees_its_balance_and_what_may_be_done_with_it(
    house: House, filled: Filling
) -> None:
    fields = (await house.get(PATH, ANN)).fields
    amounts = {name: fields[f"{name}_nano"] for name in ("balance", "available", "pending", "held")}
    assert amounts == {"balance": 170, "available": 130, "pending": 40, "held": 0}
    assert (fields["paid_nano"], fields["paid_usd"]) == (600, "0.000000600")
    assert fields["payouts_blocked"] is False
    assert fields["as_of_seq"] == {"usd": len(filled.journal.texts)}
    assert (fields["object"], fields["contributor"], fields["currency"]) == (
        "earnings", "ann", "USD",
    )  # fmt: skip


async def test_blocked_payouts_hold_the_whole_balance(house: House, filled: Filling) -> None:
    house.ledger.blocked["contrib:ann"] = "a dispute"
    fields = (await house.get(PATH, ANN)).fields
    assert (fields["held_nano"], fields["available_nano"], fields["pending_nano"]) == (170, 0, 0)
    assert fields["payouts_blocked"] is True
    assert "dispute" not in str(fields)


async def test_earnings_are_summed_by_day_adapter_and_dataset(
    house: House, filled: Filling
) -> None:
    fields = (await house.get(f"{PATH}?to=2024-10-06", ANN)).fields
    assert [(d["day"], d["earned_nano"], d["paid_nano"], d["lines"]) for d in fields["by_day"]] == [
        ("2024-10-06", 0, 600, 1), ("2024-10-05", 30, 0, 2), ("2024-10-04", 700, 0, 1),
    ]  # fmt: skip
    by_adapter = {each["adapter"]: each["earned_nano"] for each in fields["by_adapter"]}
    assert by_adapter == {MED.version: 750, None: -20}
    by_dataset = {each["dataset"]: each["earned_nano"] for each in fields["by_dataset"]}
    assert by_dataset == {MED.dataset: 750, None: -20}
    assert (fields["from"], fields["to"]) == (None, "2024-10-06")


async def test_a_line_says_what_share_of_which_pool_it_is(house: House, filled: Filling) -> None:
    lines = (await house.get(f"{PATH}?from=2024-10-04&to=2024-10-04", ANN)).fields["lines"]
    (line,) = lines
    assert line == {
        "ledger": "usd", "seq": 4, "key": f"{line['inference']}/settle/0", "kind": "settle",
        "time_ms": LONG_AGO_MS, "inference": line["inference"], "adapter": MED.version,
        "dataset": MED.dataset, "nano": 700, "usd": "0.000000700", "share_ppb": 700_000_000,
        "pool_nano": 1_000, "reason": None, "proof": "/v1/contributors/me/proofs/4.tlog-proof",
    }  # fmt: skip


async def test_a_correction_says_why(house: House, filled: Filling) -> None:
    lines = (await house.get(PATH, ANN)).fields["lines"]
    assert [line["kind"] for line in lines] == ["settle", "payout", "adjust", "settle", "settle"]
    assert lines[2]["reason"] == "a row was counted twice"
    assert (lines[2]["share_ppb"], lines[2]["adapter"]) == (None, None)


async def test_a_cursor_walks_every_line_once(house: House, filled: Filling) -> None:
    seen, cursor = [], ""
    for _ in range(10):
        fields = (await house.get(f"{PATH}?limit=2{cursor}", ANN)).fields
        seen += [line["seq"] for line in fields["lines"]]
        if fields["next_cursor"] is None:
            break
        cursor = f"&cursor={fields['next_cursor']}"
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == len(set(seen)) == 5


async def test_nothing_earned_is_an_empty_list(house: House, archive_url: str) -> None:
    await Filling().export(archive_url)
    answer = await house.get(PATH, BOB)
    assert (answer.fields["available_usd"], answer.fields["lines"]) == ("0.000000000", [])
    assert answer.fields["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"),
        ("from=2024-13-01", "from"), ("to=20241004", "to"), ("to=2024-W40-5", "to"),
        ("from=2024-10-05&to=2024-10-04", "from"), ("cursor=", "cursor"), ("cursor=x", "cursor"),
        ("cursor=eyJ1c2QiOi0xfQ", "cursor"), ("cursor=%F0%9F%92%B0", "cursor"),
        ("cursor=" + "A" * 5_000, "cursor"), ("cursor=W10", "cursor"),
    ],
)  # fmt: skip
async def test_a_bad_parameter_answers_400_by_name(house: House, query: str, param: str) -> None:
    answer = await house.get(f"{PATH}?{query}", ANN)
    assert (answer.status, answer.fields["error"]["param"]) == (400, param)


@pytest.mark.parametrize("key", [SHOP, OWNER])
async def test_other_roles_are_refused(house: House, key: str) -> None:
    assert (await house.get(PATH, key)).status == 403


async def test_a_contributor_may_name_nobody_else(house: House, filled: Filling) -> None:
    assert (await house.get(f"{PATH}?contributor=ann", BOB)).status == 403
    assert (await house.get(f"{PATH}?contributor=bob", BOB)).status == 200


async def test_another_contributors_cursor_shows_ones_own_lines(
    house: House, filled: Filling
) -> None:
    cursor = (await house.get(f"{PATH}?limit=1", ANN)).fields["next_cursor"]
    lines = (await house.get(f"{PATH}?cursor={cursor}", BOB)).fields["lines"]
    assert [line["nano"] for line in lines] == [300]


async def test_an_operator_names_the_contributor(house: House, filled: Filling) -> None:
    answer = await house.get(f"{PATH}?contributor=ann", OPERATOR)
    assert (answer.fields["contributor"], answer.fields["balance_nano"]) == ("ann", 170)
    assert (await house.get(PATH, OPERATOR)).status == 400
    assert (await house.get(f"{PATH}?contributor=../x", OPERATOR)).status == 400


async def test_without_an_archive_earnings_answer_503_and_inferences_go_on(house: House) -> None:
    answer = await house.get(PATH, ANN)
    assert (answer.status, answer.fields["error"]["code"]) == (503, "archive_unavailable")
    assert "sqlite" not in answer.body.decode()
    assert (
        await house.ask({"model": "med", "messages": [{"role": "user", "content": "x"}]})
    ).status == 200


async def test_an_archive_that_comes_later_is_found(house: House, archive_url: str) -> None:
    assert (await house.get(PATH, ANN)).status == 503
    await Filling().export(archive_url)
    assert (await house.get(PATH, ANN)).status == 200


async def test_a_ledger_that_is_away_answers_503(house: House, filled: Filling) -> None:
    house.ledger.away = True
    answer = await house.get(PATH, ANN)
    assert (answer.status, answer.fields["error"]["code"]) == (503, "ledger_unavailable")
