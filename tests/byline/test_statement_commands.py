"""`byline statements` and `byline payouts`: what an operator types, and what it says back."""

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader
from typer.testing import CliRunner, Result

from byline.archive.database import Archive
from byline.command.__main__ import app
from byline.errors import (
    ArchiveUnavailable,
    InvalidInput,
    LedgerMisconfigured,
    MonthOpen,
    NotFound,
)
from byline.ledger.ledger import Ledger
from byline.statements.months import Month
from byline.statements.statement import sha256_of
from tests.byline.exporting import export
from tests.byline.months import CENT, DOLLAR
from tests.byline.paydays import earned

MAY = Month(2026, 5)  # long over: the commands read the real clock
ALICE = "contrib:alice"


@pytest.fixture
def lived(redis_url: str, ledger_name: str, tmp_path: Path) -> Iterator[list[str]]:
    """A ledger in which alice has earned, archived; answers the options that name them."""
    archive = Archive.open(f"sqlite:///{tmp_path}/archive.sqlite")

    async def live() -> None:
        ledger = await Ledger.open(redis_url, name=ledger_name)
        await earned(ledger, 2 * DOLLAR + 7, MAY)
        await export(ledger, archive, ledger_name)
        await ledger.close()

    asyncio.run(live())
    yield ["--archive-url", f"sqlite:///{tmp_path}/archive.sqlite", "--ledger", ledger_name]
    archive.close()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def facts(*arguments: str) -> Any:
    outcome = run(*arguments, "--json")
    assert outcome.exit_code == 0, outcome.exception
    return json.loads(outcome.output)


def test_a_month_is_frozen_shown_and_paid(
    lived: list[str], redis_url: str, ledger_name: str, tmp_path: Path
) -> None:
    month = ["--month", "2026-05", *lived]
    (frozen,) = facts("statements", "freeze", *month)["statements"]
    assert (frozen["account"], frozen["closing_nano"]) == (ALICE, 2 * DOLLAR + 7)
    assert facts("statements", "freeze", "--account", ALICE, *month)["statements"] == [frozen]
    shown = run("statements", "show", ALICE, "2026-05", *lived).output
    assert sha256_of(shown) == frozen["sha256"]
    table = run("statements", "show", ALICE, "2026-05", "--format", "csv", *lived).output
    *_, closing = csv.DictReader(io.StringIO(table))
    assert closing["nano"] == str(2 * DOLLAR + 7)
    pdf = tmp_path / "alice.pdf"
    more = ["--format", "pdf", "--output", str(pdf), *lived]
    assert facts("statements", "show", ALICE, "2026-05", *more)["bytes"] == pdf.stat().st_size
    assert "2.000000007 USD" in PdfReader(pdf).pages[0].extract_text()

    pay = ["payouts", "run", *month, "--redis-url", redis_url]
    (planned,) = facts(*pay, "--dry-run")["payouts"]
    assert (planned["payable_usd"], planned["paid_nano"]) == ("2.000000000", 0)
    assert facts(*pay, "--minimum", "2.01")["payouts"][0]["why_not"].startswith("below the minimum")
    (paid,) = facts(*pay)["payouts"]
    assert paid == {
        "account": ALICE, "payable_nano": 2 * DOLLAR, "payable_usd": "2.000000000",
        "paid_nano": 2 * DOLLAR, "paid_usd": "2.000000000", "left_nano": 7,
        "left_usd": "0.000000007", "why_not": "",
    }  # fmt: skip
    assert facts("payouts", "list", *lived) == {"payouts": []}  # not exported yet
    asyncio.run(exported(redis_url, ledger_name, lived[1]))
    for account in ([], [ALICE]):
        (listed,) = facts("payouts", "list", *account, *lived)["payouts"]
        assert (listed["statement"], listed["paid_nano"]) == (f"{ALICE}/2026-05", 200 * CENT)
        assert (listed["first_seq"], listed["last_seq"], listed["left_nano"]) == (1, 4, 7)
    assert facts(*pay)["payouts"][0]["why_not"] == "paid before, in entry 5"


async def exported(redis_url: str, name: str, archive_url: str) -> None:
    archive, ledger = Archive.open(archive_url), await Ledger.open(redis_url, name=name)
    await export(ledger, archive, name)
    await ledger.close()
    archive.close()


def test_tables_are_for_people(lived: list[str], redis_url: str) -> None:
    month = ["--month", "2026-05", *lived]
    assert "2.000000007" in run("statements", "freeze", *month).output
    text = run("payouts", "run", *month, "--redis-url", redis_url).output
    assert "why_not" in text
    assert "2.000000000" in text
    assert "nano" not in text
    assert run("payouts", "list", *lived).output == "no payouts yet\n"


@pytest.mark.parametrize("columns", [20, 60, 80, 100, 300])
def test_no_amount_and_no_name_is_ever_cut(
    lived: list[str], redis_url: str, ledger_name: str, columns: int
) -> None:
    month = ["--month", "2026-05", *lived]
    narrow = {"COLUMNS": str(columns)}
    frozen = CliRunner().invoke(app, ["statements", "freeze", *month], env=narrow).output
    assert {ALICE, "2026-05", "2.000000007"} <= set(frozen.replace("│", " ").split())
    CliRunner().invoke(app, ["payouts", "run", *month, "--redis-url", redis_url], env=narrow)
    asyncio.run(exported(redis_url, ledger_name, lived[1]))
    (paid,) = facts("payouts", "list", *lived)["payouts"]
    listed = CliRunner().invoke(app, ["payouts", "list", *lived], env=narrow).output
    shown = [str(value) for name, value in paid.items() if not name.endswith("_nano")]
    assert set(shown) <= set(listed.replace("│", " ").split())
    assert "…" not in listed


def test_one_form_of_a_statement_is_asked_for_at_a_time(lived: list[str], tmp_path: Path) -> None:
    run("statements", "freeze", "--month", "2026-05", *lived)
    show = ["statements", "show", ALICE, "2026-05", *lived]
    refused = run(*show, "--format", "csv", "--json").exception
    assert isinstance(refused, InvalidInput)
    assert "--output" in str(refused)
    assert facts(*show, "--format", "json")["account"] == ALICE
    file = tmp_path / "alice.csv"
    assert facts(*show, "--format", "csv", "--output", str(file))["file"] == str(file)
    nowhere = ["--output", str(tmp_path / "none" / "alice.csv")]
    assert "No such file" in str(run(*show, "--format", "csv", *nowhere).exception)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (["statements", "freeze", "--month", "2026-5"], InvalidInput, "write 2026-11"),
        (["statements", "freeze", "--month", "2999-01"], MonthOpen, "from 2999-02-01"),
        (["statements", "show", ALICE, "2026-04"], NotFound, "not frozen yet"),
        (["statements", "show", ALICE, "2026-05", "--format", "pdf"], InvalidInput, "--output"),
        (["payouts", "run", "--month", "2026-05", "--redis-url", "x"], LedgerMisconfigured, "redis://"),
        (["payouts", "run", "--month", "2026-05", "--minimum", "0"], InvalidInput, "positive"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(
    lived: list[str], arguments: list[str], error: type[Exception], says: str
) -> None:
    problem = run(*arguments, *lived).exception
    assert isinstance(problem, error)
    assert says in str(problem)


def test_paying_what_was_not_frozen_says_to_freeze(lived: list[str], redis_url: str) -> None:
    outcome = run("payouts", "run", "--month", "2026-05", "--redis-url", redis_url, *lived)
    assert "byline statements freeze --month 2026-05" in str(outcome.exception)


def test_a_missing_archive_says_what_to_start(tmp_path: Path) -> None:
    outcome = run("payouts", "list", "--home", str(tmp_path))
    assert isinstance(outcome.exception, ArchiveUnavailable)
    assert "python -m byline.archive" in str(outcome.exception)


def test_the_manual_names_the_commands() -> None:
    assert "statements" in run("--help").output
    for group, commands in (("statements", ("freeze", "show")), ("payouts", ("run", "list"))):
        text = run(group, "--help").output
        assert not [name for name in commands if name not in text]
        assert "2026-11" in text
