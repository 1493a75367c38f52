"""`byline proof …`: proof files out of the log in --home; and the log's own keys.

What they show is checked without Byline: docs/proofs.md.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from byline.archive.database import Archive
from byline.command.options import (
    DEFAULT_HOME,
    DEFAULT_LEDGER,
    ArchiveOption,
    HomeOption,
    JsonOption,
    LedgerOption,
    RedisOption,
)
from byline.command.reaching import address_of, with_ledger
from byline.command.running import show
from byline.errors import InvalidInput
from byline.home import Home
from byline.notary.folder import KEYS, RECEIPT_KEYS
from byline.notary.log_keys import LOG, RECEIPTS, rotate
from byline.notary.reader import LogReader
from byline.statements import frozen as store
from byline.statements.months import Month
from byline.transparency.proofs import shown_to_application

proof_app = typer.Typer(
    no_args_is_help=True,
    help=(
        "Proof files that anyone can check: line, entry, statement, history; the log's keys.\n\n"
        "`byline proof statement contrib:alice 2026-11 --output alice.tlog-proofs`"
    ),
)

OutputOption = Annotated[
    Path | None, typer.Option("--output", help="A file; without it, the standard output.")
]
EntryArgument = Annotated[
    str, typer.Argument(metavar="ENTRY", help="The journal entry: its number or its event key.")
]


@proof_app.command("line")
def proof_line(
    entry: EntryArgument,
    account: Annotated[str, typer.Argument(help="Whose line: contrib:alice.")],
    output: OutputOption = None,
    archive_url: ArchiveOption = None,
    ledger_name: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Prove one account's line of an entry; no other account is shown."""
    with _reader(home, archive_url, ledger_name) as (log, _):
        _write(output, [log.line_proof(_seq_of(log, entry), account)])


@proof_app.command("entry")
def proof_entry(
    entry: EntryArgument,
    account: Annotated[
        list[str] | None,
        typer.Option(help="An account to show; several. Without it, all but contributors'."),
    ] = None,
    output: OutputOption = None,
    archive_url: ArchiveOption = None,
    ledger_name: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Prove a whole entry, as an application may see it."""
    with _reader(home, archive_url, ledger_name) as (log, _):
        seq = _seq_of(log, entry)
        shown = account or sorted(shown_to_application(log.entry(seq).entry))
        _write(output, [log.entry_proof(seq, shown)])


@proof_app.command("statement")
def proof_statement(
    account: Annotated[str, typer.Argument(help="Whose statement: contrib:alice.")],
    month: Annotated[str, typer.Argument(help="The month: 2026-11")],
    output: OutputOption = None,
    archive_url: ArchiveOption = None,
    ledger_name: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Prove a frozen statement with every line of it."""
    with _reader(home, archive_url, ledger_name) as (log, archive):
        frozen = store.find(archive, ledger_name, account, Month.parse(month))
        seqs = (frozen.from_seq, frozen.to_seq)
        _write(output, log.statement_proof(account, str(frozen.month), seqs))


@proof_app.command("history")
def proof_history(
    size: Annotated[int, typer.Argument(help="The size of an older tree head.", min=0)],
    output: OutputOption = None,
    archive_url: ArchiveOption = None,
    ledger_name: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Prove that the log as it is published continues an older tree head."""
    with _reader(home, archive_url, ledger_name) as (log, _):
        _write(output, [log.consistency_from(size)])


@proof_app.command("rotate-key")
def proof_rotate_key(
    ledger_name: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
    receipts: Annotated[
        bool, typer.Option("--receipts", help="The key that signs receipts, not the log's.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the log's next key; the notary announces it when it is started again."""
    place = Home(home)
    if receipts:
        path, name = rotate(place.openings_of(ledger_name), RECEIPTS), RECEIPT_KEYS
    else:
        path, name = rotate(place.notary_of(ledger_name), LOG), KEYS
    public = place.log_of(ledger_name) / name
    text = f"{path}: start the notary again, and hand out {public}"
    show(as_json, {"key": str(path)}, text)


@proof_app.command("retire")
def proof_retire(
    redis_url: RedisOption = None,
    ledger_name: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Say that the ledger has no notary any more: trimming then waits for none."""
    address = address_of(redis_url, home)
    with_ledger(address, lambda ledger: ledger.note_notarised(None), name=ledger_name)
    show(as_json, {"notarised": None}, f"the trimming of {ledger_name} waits for no notary")


@contextmanager
def _reader(
    home: Path, archive_url: str | None, ledger_name: str
) -> Iterator[tuple[LogReader, Archive]]:
    archive = Archive.open(archive_url or Home(home).archive_url, create=False)
    try:
        log = LogReader.open(home, archive, name=ledger_name)
        try:
            yield log, archive
        finally:
            log.close()
    finally:
        archive.close()


def _seq_of(log: LogReader, entry: str) -> int:
    if entry.isdecimal() and entry.isascii():
        return int(entry)
    if entry.count("/") != 2:
        raise InvalidInput(
            f"'{entry}' is no journal entry: its number, or <inference>/<operation>/<ordinal>",
            param="entry",
        )
    return log.seq_of(entry)


def _write(output: Path | None, texts: Iterable[str]) -> None:
    if output is None:
        sys.stdout.writelines(texts)
        return
    with output.open("w") as file:
        file.writelines(texts)
