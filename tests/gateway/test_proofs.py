"""Proofs over HTTP: who gets which, what is opened in them, and that nothing else is served."""

import json
from pathlib import Path

import pytest

from byline.archive.database import Archive
from byline.home import Home
from byline.statements.freezing import Freezer
from byline.statements.payouts import PayoutRun
from byline.transparency.proofs import parse_proof
from byline.transparency.receipts import receipt_fields
from byline.transparency.tiles import tile_path
from byline.verification.policies import Policy
from byline.verification.program import check
from gateway.logs import NO_LOG, published_name
from tests.byline.journals import DAY_MS
from tests.byline.logs import Log
from tests.byline.months import ANN, DOLLAR, HOST, NOVEMBER, OCTOBER, PAYDAY, FakeBank, export
from tests.gateway.conftest import ANN as ANNS_KEY
from tests.gateway.conftest import BOB, CHAT, OPERATOR, OTHER, OWNER, SHOP, House, eventually

pytestmark = pytest.mark.anyio

PROOFS, STATEMENTS = "/v1/contributors/me/proofs", "/v1/contributors/me/statements"
LINES = 60
HELD = "01970000-0000-7000-8000-000000000000"


@pytest.fixture
async def log(tmp_path: Path, archive_url: str) -> Log:
    """Ann and the host earned in two months; November was paid. Nothing is logged yet."""
    bank, archive = FakeBank(), Archive.open(archive_url)
    bank.earn(ANN, 3, OCTOBER.start_ms)
    for day in range(LINES):
        bank.earn(ANN, DOLLAR, NOVEMBER.start_ms + day)
        bank.earn(HOST, 1, NOVEMBER.start_ms + day)
    export(archive, bank)
    for month in (OCTOBER, NOVEMBER):
        Freezer(archive).freeze_all(month, now_ms=PAYDAY)
    await PayoutRun(bank, archive).run(NOVEMBER, now_ms=PAYDAY)
    export(archive, bank)
    return Log(tmp_path, bank, archive)


@pytest.fixture
async def logged(log: Log) -> Log:
    await log.notarise(entries_max=100)
    return log


def verified(folder: Path, log: Log, files: dict[str, bytes]) -> bool:
    for name, body in files.items():
        (folder / name).write_bytes(body)
    policy = Policy(log.keys.newest.verifier.text())
    return not check([folder / name for name in files], policy).failed


async def test_each_line_of_the_earnings_names_its_proof_and_it_holds(
    logged: Log, house: House, tmp_path: Path
) -> None:
    earnings = (await house.get("/v1/contributors/me/earnings?limit=5", ANNS_KEY)).fields
    files = {}
    for line in earnings["lines"]:
        answer = await house.get(line["proof"], ANNS_KEY)
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["content-disposition"].endswith(f'usd-{line["seq"]}.tlog-proof"')
        files[f"{line['seq']}.tlog-proof"] = answer.body
        opening, _, _ = parse_proof(answer.body.decode())
        leg = json.loads(opening["leg"]["text"])
        assert (leg["account"], leg["nano"]) == (ANN, str(line["nano"]))
        for other in ("funding", '"host"', HOST + '"'):
            assert other not in json.dumps(opening)
    assert len(files) == 5
    assert verified(tmp_path, logged, files)


async def test_an_operators_urls_name_the_account(logged: Log, house: House) -> None:
    earnings = await house.get("/v1/contributors/me/earnings?contributor=ann&limit=1", OPERATOR)
    url = earnings.fields["lines"][0]["proof"]
    assert url.endswith(f".tlog-proof?account={ANN}")
    assert (await house.get(url, OPERATOR)).status == 200


async def test_a_payouts_proof_shows_its_decision_and_nobody_elses(
    logged: Log, house: House, tmp_path: Path
) -> None:
    (paid,) = (await house.get("/v1/contributors/me/payouts", ANNS_KEY)).fields["data"]
    answer = await house.get(paid["proof"], ANNS_KEY)
    opening, _, _ = parse_proof(answer.body.decode())
    assert json.loads(opening["manifest"]["text"])["account"] == ANN
    assert verified(tmp_path, logged, {"payout.tlog-proof": answer.body})


async def test_a_statements_proof_is_all_its_lines_under_one_head(
    logged: Log, house: House, tmp_path: Path
) -> None:
    newest, oldest = (await house.get(STATEMENTS, ANNS_KEY)).fields["data"]
    files = {}
    for each in (oldest, newest):
        answer = await house.get(each["proof"], ANNS_KEY)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/jsonl")
        files[f"{each['month']}.tlog-proofs"] = answer.body
        files[f"{each['month']}.json"] = (
            await house.get(f"{STATEMENTS}/{each['month']}", ANNS_KEY)
        ).body
    assert len(files["2026-11.tlog-proofs"].splitlines()) == LINES + 2
    assert verified(tmp_path, logged, files)
    cut = files["2026-11.tlog-proofs"].rsplit(b"\n", 2)[0] + b"\n"
    assert not verified(tmp_path, logged, {"2026-11.tlog-proofs": cut})


async def test_what_no_head_covers_yet_is_409_and_then_200(logged: Log, house: House) -> None:
    assert isinstance(logged.journal, FakeBank)
    logged.journal.earn(ANN, 7, PAYDAY + DAY_MS)
    export(logged.archive, logged.journal)
    newest = (await house.get("/v1/contributors/me/earnings?limit=1", ANNS_KEY)).fields["lines"][0]
    assert (await house.get(newest["proof"], ANNS_KEY)).status == 409
    await logged.notarise()
    assert (await house.get(newest["proof"], ANNS_KEY)).status == 200


async def test_before_the_first_head_everything_is_409(log: Log, house: House) -> None:
    log.notary()  # it has begun, and done nothing
    for path in (f"{PROOFS}/1.tlog-proof", f"{STATEMENTS}/2026-11.tlog-proofs"):
        answer = await house.get(path, ANNS_KEY)
        assert (answer.status, answer.headers["retry-after"]) == (409, "1")
        error = answer.fields["error"]
        assert (error["code"], error["type"]) == ("proof_pending", "invalid_request_error")


async def test_without_a_log_nothing_is_found(log: Log, house: House) -> None:
    answer = await house.get(f"{PROOFS}/1.tlog-proof", ANNS_KEY)
    assert (answer.status, answer.fields["error"]["code"]) == (404, "not_found")
    assert answer.fields["error"]["message"] == NO_LOG  # and no path
    assert str(log.root) not in answer.body.decode()


@pytest.mark.parametrize("path", [f"{PROOFS}/1.tlog-proof", f"{STATEMENTS}/2026-11.tlog-proofs"])
async def test_nobody_gets_anothers_proof(logged: Log, house: House, path: str) -> None:
    assert (await house.get(path, SHOP)).status == 403
    assert (await house.get(path, None)).status == 401
    assert (await house.get(path, BOB)).status == 404  # as if it were not there
    assert (await house.get(f"{path}?account={ANN}", BOB)).status == 403
    assert (await house.get(path, OWNER)).status == 404
    assert (await house.get(f"{path}?account={ANN}", OPERATOR)).status == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{PROOFS}/0.tlog-proof", 404),
        (f"{PROOFS}/01.tlog-proof", 404),
        (f"{PROOFS}/-1.tlog-proof", 404),
        (f"{PROOFS}/9999999.tlog-proof", 404),
        (f"{PROOFS}/..%2f1.tlog-proof", 404),
        (f"{PROOFS}/1.tlog-proof?ledger=eur", 404),
        (f"{PROOFS}/1.tlog-proof?ledger=%22", 400),
        (f"{STATEMENTS}/2026-13.tlog-proofs", 400),
        (f"{STATEMENTS}/2026-12.tlog-proofs", 404),
    ],
)
async def test_what_is_wrong_is_said(logged: Log, house: House, path: str, status: int) -> None:
    assert (await house.get(path, ANNS_KEY)).status == status


async def test_the_published_folder_is_served_to_everybody(logged: Log, house: House) -> None:
    folder, served = Home(logged.root).log_of("usd"), 0
    for file in sorted(folder.rglob("*")):
        if not file.is_file():
            continue
        path = str(file.relative_to(folder))
        answer = await house.get(f"/log/usd/{path}", None)
        assert (answer.status, answer.body) == (200, file.read_bytes())
        is_tile = path.startswith("tile/")
        assert ("immutable" in answer.headers["cache-control"]) is is_tile
        assert answer.headers["content-type"].startswith(
            "application/octet-stream" if is_tile else "text/plain"
        )
        head = await house.ask(path=f"/log/usd/{path}", key=None, method="HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(file.stat().st_size)
        served += 1
    assert served >= 5


@pytest.mark.parametrize(
    "path",
    [
        "usd", "usd/", "usd/tile", "usd/tile/0", "usd/../../notary/usd/salts.secret",
        "usd/%2e%2e/%2e%2e/notary/usd/salts.secret", "..%2fopenings%2fusd/receipts-001.key",
        "usd/.checkpoint.aside", "usd/checkpoint/", "usd/tile/0/000.p/0", "usd/tile/0/000.p/256",
        "usd/tile/0/000.p/01", "usd/tile/00/000", "usd/tile/0/x000/000", "usd/tile/0/0",
        "usd/tile/0/%30%30%30%00", "eur/checkpoint", "usd/tile/0/000%0a", "usd/tile/%D9%A0/000",
    ],
)  # fmt: skip
async def test_no_name_from_a_client_becomes_a_path(logged: Log, house: House, path: str) -> None:
    answer = await house.get(f"/log/{path}", None)
    assert (answer.status, answer.fields["error"]["type"]) == (404, "invalid_request_error")


def test_every_tiles_path_is_read_as_it_is_written() -> None:
    for level in (0, 1, 9, 63, "entries"):
        for index in (0, 1, 999, 1_000, 1_234_067, 10**12):
            for width in (1, 255, 256):
                path = tile_path(level, index, width)
                assert published_name(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "tile/00/000", "tile/0/x000/000", "tile/0/000.p/0", "tile/0/000.p/01", "tile/0/000.p/256",
        "tile/0/000.p/999", "tile/-1/000", "tile/0/1000", "tile/entries/x00/000", "tile/0/000/",
        "tile/0/../../checkpoint", "/checkpoint", "checkpoint\n", "tile/0/000\n", "", "..",
    ],
)  # fmt: skip
def test_what_is_not_written_as_the_log_writes_it_is_no_name(path: str) -> None:
    assert published_name(path) is None


async def test_a_receipt_is_signed_and_not_proven_before_its_entry_is_covered(
    logged: Log, house: House
) -> None:
    asked = await house.ask({**CHAT, "model": "tiny"})
    path = asked.headers["x-byline-receipt"]
    await eventually(lambda: house.ledger.captures)
    receipt = await house.get(f"{path}.receipt")
    (key,) = logged.keys.receipts
    fields = receipt_fields(receipt.body.decode(), key.verifier)
    assert (fields["state"], fields["base_model"]) == ("settled", "tiny@eeeeeeeeeeee")
    assert fields["charge"] == str((await house.get(path)).fields["charge_nano"])
    pending = await house.get(f"{path}.tlog-proof")
    assert (pending.status, pending.fields["error"]["code"]) == (409, "proof_pending")
    no_pool = await house.get(f"{path}.tlog-proof?entry=settle/0")
    assert no_pool.status == 404


async def test_before_its_charge_a_receipt_is_409_and_without_one_404(
    logged: Log, house: House
) -> None:
    house.ledger.holds[HELD] = ("shop", 1, 2**60)
    assert (await house.get(f"/v1/receipts/{HELD}.receipt")).status == 409
    assert (await house.get(f"/v1/receipts/{HELD}.receipt", OTHER)).status == 404
    unknown = HELD.replace("0197", "0198")
    assert (await house.get(f"/v1/receipts/{unknown}.receipt")).status == 404
