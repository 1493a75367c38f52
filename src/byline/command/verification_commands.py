"""`byline verify`: the same program that an outsider runs, in `byline.verification`."""

from pathlib import Path
from typing import Annotated

import typer

from byline.command.options import JsonOption


def verify(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE...", help="Proofs, statements, receipts.")
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option(help="A public key of a log or of its receipts (vkey).")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="A file that says which logs and witnesses are trusted.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="A file with an older tree head: is it one history?")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(help="The folder of an export: compute every balance anew.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check proofs offline, trusting nobody but the keys that you name."""
    from byline.verification.program import report, report_replay, trusted
    from byline.verification.reading import Refused

    if (policy is None) == (not key):
        raise typer.BadParameter("say whom you trust: --key or --policy")
    if bool(files) == (replay is not None):
        raise typer.BadParameter("name files, or --replay and an export")
    try:
        trust = trusted(key or [], policy)
    except Refused as problem:
        raise typer.BadParameter(str(problem)) from problem
    if replay is not None:
        raise typer.Exit(report_replay(replay, trust, as_json=as_json))
    raise typer.Exit(report(files or [], trust, against, as_json=as_json))
