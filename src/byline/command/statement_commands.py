"""`byline statements …` and `byline payouts …`: freeze a month, read it, pay it."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from byline.archive.database import Archive
from byline.command.amounts import nano_of
from byline.command.options import (
    DEFAULT_HOME,
    DEFAULT_LEDGER,
    ArchiveOption,
    HomeOption,
    JsonOption,
    LedgerOption,
    MonthOption,
    RedisOption,
)
from byline.command.reaching import address_of, now_ms
from byline.command.running import show, show_rows
from byline.errors import InvalidInput
from byline.home import Home
from byline.ledger.ledger import Ledger
from byline.statements import frozen as store
from byline.statements.forms import Form, rendered
from byline.statements.freezing import Freezer
from byline.statements.frozen import Frozen
from byline.statements.months import Month, time_text
from byline.statements.paid import Paid, payouts_of
from byline.statements.payouts import Outcome, PayoutRun
from byline.statements.statement import money

statements_app = typer.Typer(
    no_args_is_help=True,
    help=(
        "Monthly statements, frozen for ever: freeze, show.\n\nWhen a month is over: `byline "
        "statements freeze --month 2026-11`, then `byline statements show contrib:alice 2026-11 "
        "--format pdf --output alice.pdf`."
    ),
)
payouts_app = typer.Typer(
    no_args_is_help=True,
    help=(
        "Payouts from frozen statements: run, list.\n\n`byline payouts run --month 2026-11 "
        "--dry-run` says what would be paid, and why not; without --dry-run it is paid, once "
        "however often it runs."
    ),
)


@statements_app.command("freeze")
def statements_freeze(
    month: MonthOption,
    account: Annotated[
        str | None, typer.Option(help="One account, as contrib:alice; without it, all payees.")
    ] = None,
    archive_url: ArchiveOption = None,
    ledger: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Freeze a month that is over, and every one before it. Once frozen, nothing changes."""
    wanted = Month.parse(month)
    with _archive(archive_url, home) as archive:
        freezer = Freezer(archive, ledger=ledger)
        if account is None:
            frozen = freezer.freeze_all(wanted, now_ms=now_ms())
        else:
            frozen = [freezer.freeze(account, wanted, now_ms=now_ms())]
    _show(as_json, "statements", [_statement_facts(each) for each in frozen])


@statements_app.command("show")
def statements_show(  # noqa: PLR0913, PLR0917 - each is an option
    account: Annotated[
        str, typer.Argument(help="contrib:<id>, owner:<adapter>, base:<model>, host or platform.")
    ],
    month: Annotated[str, typer.Argument(help="The month: 2026-11")],
    form: Annotated[
        Form, typer.Option("--format", help="JSON is the record; the others are made from it.")
    ] = Form.JSON,
    output: Annotated[Path | None, typer.Option(help="A file to write instead.")] = None,
    archive_url: ArchiveOption = None,
    ledger: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Print a frozen statement, or write it to a file."""
    if form is Form.PDF and output is None:
        raise InvalidInput("a PDF goes to a file: add --output statement.pdf", param="output")
    if as_json and form is not Form.JSON and output is None:
        raise InvalidInput(
            f"--json and --format {form.value} contradict each other: leave one of them out, or "
            "add --output, and what was written is told as JSON",
            param="format",
        )
    with _archive(archive_url, home) as archive:
        frozen = store.find(archive, ledger, account, Month.parse(month))
        document = rendered(store.text_of(archive, frozen), form)
    if output is None:
        sys.stdout.write(document.decode())
        return
    try:
        output.write_bytes(document)
    except OSError as problem:
        raise InvalidInput(f"can't write {output}: {problem.strerror}", param="output") from problem
    facts = {"file": str(output), "bytes": len(document), **_statement_facts(frozen)}
    show(as_json, facts, f"{output}: {len(document)} bytes; SHA-256 of the JSON {frozen.sha256}")


@payouts_app.command("run")
def payouts_run(  # noqa: PLR0913, PLR0917 - each is an option
    month: MonthOption,
    minimum: Annotated[str, typer.Option(help="US dollars; less stays for next time.")] = "1.00",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be paid.")
    ] = False,
    archive_url: ArchiveOption = None,
    redis_url: RedisOption = None,
    ledger: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Pay every frozen statement of a month in whole cents; running it again pays nothing twice."""
    wanted, minimum_nano = Month.parse(month), nano_of(minimum)
    address = address_of(redis_url, home)

    async def run(archive: Archive) -> list[Outcome]:
        opened = await Ledger.open(address, name=ledger, create=False)
        try:
            payouts = PayoutRun(opened, archive, name=ledger, minimum_nano=minimum_nano)
            return await payouts.run(wanted, now_ms=now_ms(), dry_run=dry_run)
        finally:
            await opened.close()

    with _archive(archive_url, home) as archive:
        outcomes = asyncio.run(run(archive))
    _show(as_json, "payouts", [_outcome_facts(each) for each in outcomes])


@payouts_app.command("list")
def payouts_list(
    account: Annotated[str | None, typer.Argument(help="One account; without it, all.")] = None,
    archive_url: ArchiveOption = None,
    ledger: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """List the payouts that were made, each with the lines it paid."""
    with _archive(archive_url, home) as archive, archive.reading() as connection:
        paid = (
            payouts_of(connection, ledger, account) if account else payouts_of(connection, ledger)
        )
    _show(as_json, "payouts", [_paid_facts(each) for each in paid])


@contextmanager
def _archive(archive_url: str | None, home: Path) -> Iterator[Archive]:
    archive = Archive.open(archive_url or Home(home).archive_url, create=False)
    try:
        yield archive
    finally:
        archive.close()


def _show(as_json: bool, noun: str, rows: list[dict[str, Any]]) -> None:
    """Rows as JSON, or as a table without what people read twice: integers and long hashes."""
    if not as_json and not rows:
        print(f"no {noun} yet")
        return
    if not as_json:
        rows = [
            {name: value for name, value in row.items() if not name.endswith(("_nano", "sha256"))}
            for row in rows
        ]
    show_rows(as_json, noun, rows)


def _statement_facts(frozen: Frozen) -> dict[str, Any]:
    return {
        "account": frozen.account,
        "month": str(frozen.month),
        "from_seq": frozen.from_seq,
        "to_seq": frozen.to_seq,
        **money("opening", frozen.opening_nano),
        **money("closing", frozen.closing_nano),
        "sha256": frozen.sha256,
    }


def _outcome_facts(outcome: Outcome) -> dict[str, Any]:
    return {
        "account": outcome.account,
        **money("payable", outcome.payable_nano),
        **money("paid", outcome.paid_nano),
        **money("left", outcome.left_nano),
        "why_not": outcome.reason,
    }


def _paid_facts(paid: Paid) -> dict[str, Any]:
    payout = paid.payout
    return {
        "entry": paid.seq,
        "time": time_text(paid.time_ms),
        "statement": payout.statement,
        "first_seq": payout.first_seq,
        "last_seq": payout.last_seq,
        **money("opening", payout.opening_nano),
        **money("lines", payout.lines_nano),
        **money("paid", payout.nano),
        **money("left", paid.remainder_nano),
    }
