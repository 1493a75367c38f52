"""`byline verify`, the program that an outsider runs, and `byline proof export` for auditors."""

from pathlib import Path
from typing import Annotated

import typer

from byline.command.options import (
    DEFAULT_HOME,
    DEFAULT_LEDGER,
    ArchiveOption,
    HomeOption,
    JsonOption,
    LedgerOption,
)
from byline.command.running import show
from byline.errors import InvalidInput


def verify(arguments: typer.Context) -> None:
    """Check proofs offline, trusting nobody but the keys that you name."""
    from byline.verification.program import main

    raise typer.Exit(main(arguments.args))


def export(
    folder: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
    archive_url: ArchiveOption = None,
    ledger_name: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Export the whole log with every leg and manifest: for `byline verify --replay`."""
    from byline.archive.database import Archive
    from byline.home import Home
    from byline.notary.exporting import LogExport
    from byline.notary.folder import LogFolder
    from byline.notary.state import State

    if folder.exists():
        raise InvalidInput(f"{folder} is there already: name a new folder", param="folder")
    archive = Archive.open(archive_url or Home(home).archive_url, create=False)
    state = State.read(Home(home).openings_of(ledger_name))
    try:
        log = LogFolder(Home(home).log_of(ledger_name))
        size = LogExport(log, state, archive, ledger_name).write(folder)
    finally:
        state.close()
        archive.close()
    text = f"{folder}: {size} leaves. It shows everything: hand it to auditors only"
    show(as_json, {"folder": str(folder), "leaves": size}, text)
