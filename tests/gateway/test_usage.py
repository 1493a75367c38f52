"""GET /v1/usage for applications, GET /v1/accounts/{account}/history for operators."""

import asyncio
import threading

import pytest

from byline.archive.database import Archive
from byline.errors import ArchiveUnavailable, LedgerFull, SpoolFull
from gateway.archive_reads import THREADS, WAITING_MAX, ArchiveReads
from gateway.errors import answered
from tests.gateway.archived import DAY_MS, LONG_AGO_MS, Filling
from tests.gateway.conftest import ANN, MED, OPERATOR, OTHER, OWNER, SHOP, House

pytestmark = pytest.mark.anyio

USAGE = "/v1/usage"


@pytest.fixture
async def filled(archive_url: str) -> Filling:
    """The shop asked three times on two days, had 90 refunded, and holds 5,000."""
    filling = Filling()
    filling.deposit("shop", 1_000_000)
    filling.deposit("other", 7)
    filling.inference({"ann": 100}, time_ms=LONG_AGO_MS)
    inference = filling.inference({"ann": 200}, time_ms=LONG_AGO_MS + 1, partial=True)
    filling.inference({"bob": 300}, time_ms=LONG_AGO_MS + DAY_MS)
    filling.journal.append(
        f"{inference}/refund/0", "refund", {"platform": -90, "app:shop": 90},
        time_ms=LONG_AGO_MS + 2 * DAY_MS, version=MED.version,
    )  # fmt: skip
    filling.hold("shop", 5_000, time_ms=LONG_AGO_MS + 3 * DAY_MS)
    await filling.export(archive_url)
    return filling


async def test_an_application_sees_what_it_used_and_what_is_left(
    house: House, filled: Filling
) -> None:
    fields = (await house.get(USAGE)).fields
    charges = 3 * 400 + 600
    assert fields["total"] == {
        "inferences": 3, "partial": 1, "prompt_tokens": 36, "completion_tokens": 21,
        "charge_nano": charges, "charge_usd": "0.000001800",
        "refunded_nano": 90, "refunded_usd": "0.000000090",
    }  # fmt: skip
    assert fields["balance_nano"] == 1_000_000 - charges + 90 - 5_000
    assert (fields["held_nano"], fields["holds"]) == (5_000, 1)
    assert (fields["application"], fields["object"]) == ("shop", "usage")


async def test_usage_is_summed_by_day_and_by_model(house: House, filled: Filling) -> None:
    fields = (await house.get(USAGE)).fields
    days = [(d["day"], d["inferences"], d["charge_nano"], d["refunded_nano"])
            for d in fields["by_day"]]  # fmt: skip
    assert days == [
        ("2024-10-06", 0, 0, 90), ("2024-10-05", 1, 700, 0), ("2024-10-04", 2, 1_100, 0),
    ]  # fmt: skip
    (model,) = fields["by_model"]
    assert (model["model"], model["served_by"], model["inferences"]) == ("med", MED.version, 3)


async def test_a_period_bounds_sums_and_lines(house: House, filled: Filling) -> None:
    fields = (await house.get(f"{USAGE}?from=2024-10-05&to=2024-10-05")).fields
    assert (fields["total"]["inferences"], len(fields["lines"])) == (1, 1)
    assert (fields["from"], fields["to"]) == ("2024-10-05", "2024-10-05")


async def test_a_usage_line_is_one_inference(house: House, filled: Filling) -> None:
    lines = (await house.get(USAGE)).fields["lines"]
    assert [line["charge_nano"] for line in lines] == [700, 600, 500]
    assert lines[1] == {
        "ledger": "usd", "seq": 7, "time_ms": LONG_AGO_MS + 1, "inference": lines[1]["inference"],
        "model": "med", "served_by": MED.version, "prompt_tokens": 12, "completion_tokens": 7,
        "usage_source": "engine", "partial": True, "charge_nano": 600, "charge_usd": "0.000000600",
        "refunded_nano": 90, "refunded_usd": "0.000000090",
    }  # fmt: skip


async def test_a_cursor_walks_every_inference_once(house: House, filled: Filling) -> None:
    first = (await house.get(f"{USAGE}?limit=2")).fields
    second = (await house.get(f"{USAGE}?limit=2&cursor={first['next_cursor']}")).fields
    assert [len(first["lines"]), len(second["lines"]), second["next_cursor"]] == [2, 1, None]


async def test_an_application_sees_only_its_own(house: House, filled: Filling) -> None:
    fields = (await house.get(USAGE, OTHER)).fields
    assert (fields["total"]["inferences"], fields["balance_nano"], fields["lines"]) == (0, 7, [])
    assert (await house.get(f"{USAGE}?application=shop", OTHER)).status == 403
    assert (await house.get(f"{USAGE}?application=shop", SHOP)).status == 200


@pytest.mark.parametrize("key", [ANN, OWNER])
async def test_other_roles_see_no_usage(house: House, key: str) -> None:
    assert (await house.get(USAGE, key)).status == 403


async def test_an_operator_names_the_application(house: House, filled: Filling) -> None:
    answer = await house.get(f"{USAGE}?application=shop", OPERATOR)
    assert answer.fields["total"]["inferences"] == 3
    assert (await house.get(USAGE, OPERATOR)).status == 400
    assert (await house.get(f"{USAGE}?application=a b", OPERATOR)).status == 400


async def test_an_operator_reads_any_accounts_history(house: House, filled: Filling) -> None:
    path = "/v1/accounts/app:shop/history"
    first = (await house.get(f"{path}?limit=3", OPERATOR)).fields
    rest = (await house.get(f"{path}?limit=99&cursor={first['next_cursor']}", OPERATOR)).fields
    assert first["closing_nano"] == 1_000_000 - 1_800 + 90 - 5_000
    assert first["opening_nano"] == rest["closing_nano"]
    assert rest["opening_nano"] == 0
    for page in (first, rest):
        balance = page["closing_nano"]
        for line in page["lines"]:
            assert line["balance_nano"] == balance
            balance -= line["nano"]
        assert balance == page["opening_nano"]
    assert rest["next_cursor"] is None


async def test_an_account_with_a_slash_in_its_name_has_a_history(
    house: House, filled: Filling
) -> None:
    fields = (await house.get("/v1/accounts/open:x/1/history", OPERATOR)).fields
    assert (fields["account"], fields["lines"]) == ("open:x/1", [])


@pytest.mark.parametrize("account", ["a%20b", "%00", "a" * 129, "caf%C3%A9"])
async def test_what_is_no_account_answers_400(house: House, account: str) -> None:
    answer = await house.get(f"/v1/accounts/{account}/history", OPERATOR)
    assert (answer.status, answer.fields["error"]["param"]) == (400, "account")


@pytest.mark.parametrize("key", [SHOP, ANN, OWNER])
async def test_only_operators_read_histories(house: House, key: str) -> None:
    assert (await house.get("/v1/accounts/app:shop/history", key)).status == 403


async def test_too_many_questions_at_once_are_turned_away(archive_url: str) -> None:
    await Filling().export(archive_url)
    reads, going = ArchiveReads(archive_url), threading.Event()

    def slow(_: Archive) -> bool:
        return going.wait(10)

    asked = [asyncio.create_task(reads.ask(slow)) for _ in range(THREADS + WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(ArchiveUnavailable, match="too many"):
        await reads.ask(slow)
    going.set()
    assert all(await asyncio.gather(*asked))
    assert await reads.ask(slow)
    await reads.close()


@pytest.mark.parametrize(
    ("problem", "code"),
    [(SpoolFull("x"), "spool_full"), (LedgerFull("x"), "ledger_full"),
     (ArchiveUnavailable("x"), "archive_unavailable")],
)  # fmt: skip
async def test_what_is_full_or_away_answers_503(problem: SpoolFull, code: str) -> None:
    row = answered(problem)
    assert (row.status, row.code) == (503, code)
