"""Statements and payouts over HTTP: who sees which, in which form, and that they never change."""

import csv
import io
from dataclasses import replace

import pytest
from pypdf import PdfReader
from starlette.requests import Request

from byline.archive.database import Archive
from byline.errors import InvalidInput, NotFound
from byline.records import Caller, KeyRole
from byline.statements.freezing import Freezer
from byline.statements.payouts import PayoutRun
from byline.statements.planning import payout_operation
from byline.statements.statement import sha256_of
from gateway.payees import accounts_of, only
from tests.byline.months import ANN, CENT, DOLLAR, HOST, NOVEMBER, OCTOBER, PAYDAY, FakeBank, export
from tests.gateway.conftest import ANN as ANNS_KEY
from tests.gateway.conftest import BOB, CYBER, MED, OPERATOR, OWNER, RELEASE, SHOP, House

STATEMENTS, PAYOUTS = "/v1/contributors/me/statements", "/v1/contributors/me/payouts"
NOVEMBERS = f"{STATEMENTS}/2026-11"


@pytest.fixture
async def frozen(archive_url: str) -> None:
    """Ann, the host and the owner of `med` earned in two months; November was paid."""
    bank, archive = FakeBank(), Archive.open(archive_url)
    bank.earn(ANN, 3, OCTOBER.start_ms)
    bank.earn(ANN, 2 * DOLLAR, NOVEMBER.start_ms)
    bank.earn("owner:med", 5, NOVEMBER.start_ms)
    bank.earn(HOST, 1, NOVEMBER.end_ms)
    export(archive, bank)
    Freezer(archive).freeze_all(NOVEMBER, now_ms=PAYDAY)
    await PayoutRun(bank, archive).run(NOVEMBER, now_ms=PAYDAY)
    export(archive, bank)
    archive.close()


pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("frozen")]


async def test_a_contributor_lists_its_statements_newest_first(house: House) -> None:
    fields = (await house.get(STATEMENTS, ANNS_KEY)).fields
    assert [each["month"] for each in fields["data"]] == ["2026-11", "2026-10"]
    newest = fields["data"][0]
    assert (newest["account"], newest["ledger"], newest["currency"]) == (ANN, "usd", "USD")
    assert (newest["opening_nano"], newest["opening_usd"]) == (3, "0.000000003")
    assert newest["closing_usd"] == "2.000000003"
    assert (await house.get(STATEMENTS, BOB)).fields == {"object": "list", "data": []}


async def test_a_statement_is_its_canonical_json(house: House) -> None:
    answer = await house.get(NOVEMBERS, ANNS_KEY)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-disposition"] == (
        'attachment; filename="byline-statement-2026-11.json"'
    )
    assert answer.headers["etag"] == f'"{sha256_of(answer.body.decode())}"'
    assert answer.fields["totals"]["earnings_nano"] == 2 * DOLLAR
    assert [line["nano"] for line in answer.fields["lines"]] == [2 * DOLLAR]


async def test_the_other_forms_have_their_types_and_the_same_totals(house: House) -> None:
    table = await house.get(f"{NOVEMBERS}?format=csv", ANNS_KEY)
    assert table.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert table.headers["content-disposition"].endswith('2026-11.csv"')
    *_, closing = csv.DictReader(io.StringIO(table.body.decode()))
    pdf = await house.get(f"{NOVEMBERS}?format=pdf", ANNS_KEY)
    assert pdf.headers["content-type"] == "application/pdf"
    assert pdf.headers["content-disposition"].endswith('2026-11.pdf"')
    assert closing["usd"] == "2.000000003"
    assert "2.000000003" in PdfReader(io.BytesIO(pdf.body)).pages[0].extract_text()
    assert table.headers["etag"] == pdf.headers["etag"]


async def test_who_has_it_gets_304(house: House) -> None:
    etag = (await house.get(NOVEMBERS, ANNS_KEY)).headers["etag"]
    for tags in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        answer = await house.ask(
            path=NOVEMBERS, key=ANNS_KEY, method="GET", headers={"if-none-match": tags}
        )
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
    other = await house.ask(
        path=NOVEMBERS, key=ANNS_KEY, method="GET", headers={"if-none-match": '"x"'}
    )
    assert other.status == 200


async def test_payouts_cite_the_lines_they_paid(house: House) -> None:
    (paid,) = (await house.get(PAYOUTS, ANNS_KEY)).fields["data"]
    assert paid == {
        "object": "payout", "id": payout_operation("usd", ANN, NOVEMBER), "account": ANN,
        "statement": f"{ANN}/2026-11", "currency": "USD", "seq": 5, "time_ms": PAYDAY,
        "first_seq": 1, "last_seq": 3, "opening_nano": 0, "opening_usd": "0.000000000",
        "lines_nano": 200 * CENT + 3, "lines_usd": "2.000000003",
        "paid_nano": 200 * CENT, "paid_usd": "2.000000000",
        "remainder_nano": 3, "remainder_usd": "0.000000003", "reference": "",
        "proof": f"/v1/contributors/me/proofs/5.tlog-proof?account={ANN}",
    }  # fmt: skip


async def test_an_owner_sees_what_its_adapters_earned(house: House) -> None:
    answer = await house.get(NOVEMBERS, OWNER)
    assert (answer.fields["account"], answer.fields["closing_nano"]) == ("owner:med", 5)
    assert [s["account"] for s in (await house.get(STATEMENTS, OWNER)).fields["data"]] == [
        "owner:med"
    ]
    assert (await house.get(PAYOUTS, OWNER)).fields["data"] == []
    assert (await house.get(f"{NOVEMBERS}?account=owner:med", OWNER)).status == 200


async def test_an_operator_names_the_account(house: House) -> None:
    for account in (ANN, "owner:med"):
        answer = await house.get(f"{NOVEMBERS}?account={account}", OPERATOR)
        assert answer.fields["account"] == account
    for query in ("", "?account=app:shop", "?account="):
        answer = await house.get(f"{NOVEMBERS}{query}", OPERATOR)
        assert (answer.status, answer.fields["error"]["param"]) == (400, "account")


@pytest.mark.parametrize("path", [STATEMENTS, NOVEMBERS, PAYOUTS])
async def test_nobody_sees_what_is_not_its_own(house: House, path: str) -> None:
    assert (await house.get(path, SHOP)).status == 403
    assert (await house.get(path, None)).status == 401
    for key in (BOB, OWNER):
        answer = await house.get(f"{path}?account={ANN}", key)
        assert (answer.status, answer.fields["error"]["type"]) == (403, "permission_error")


@pytest.mark.parametrize(
    ("path", "status", "param"),
    [
        (f"{STATEMENTS}/2026-13", 400, "month"),
        (f"{STATEMENTS}/2026-11%0a", 400, "month"),
        (f"{STATEMENTS}/%2e%2e", 404, None),
        (f"{NOVEMBERS}?format=xml", 400, "format"),
        (f"{NOVEMBERS}?ledger=%22", 400, "ledger"),
        (f"{NOVEMBERS}?ledger=eur", 404, None),
        (f"{STATEMENTS}/2026-12", 404, None),
    ],
)
async def test_what_is_wrong_is_said_in_openais_shape(
    house: House, path: str, status: int, param: str | None
) -> None:
    answer = await house.get(path, ANNS_KEY)
    assert (answer.status, answer.fields["error"]["param"]) == (status, param)


async def test_an_owner_of_several_adapters_says_which() -> None:
    both = replace(RELEASE, adapters=(MED, replace(CYBER, owner="clinic")))
    request = Request({"type": "http", "query_string": b"", "headers": []})
    accounts = accounts_of(request, Caller(KeyRole.OWNER, "clinic"), both)
    assert accounts == ["owner:med", "owner:cyber"]
    with pytest.raises(InvalidInput, match="owner:med, owner:cyber"):
        only(accounts)
    with pytest.raises(NotFound, match="No adapter"):
        only(accounts_of(request, Caller(KeyRole.OWNER, "nobody"), both))
