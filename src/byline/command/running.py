"""What every subcommand needs: the home option, the facts of a running `byline up`, printing."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from byline.errors import StartFailed
from byline.home import Home

HomeOption = Annotated[
    Path,
    typer.Option("--home", envvar="BYLINE_HOME", help="Folder of artifacts, ledger, keys, logs."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as last line.")]
DEFAULT_HOME = Path(".byline")


def run_facts(home: Path) -> dict[str, Any]:
    """What the running `byline up` says of itself. Raises StartFailed if none runs."""
    try:
        facts: dict[str, Any] = json.loads(Home(home).run.read_text())
    except FileNotFoundError as problem:
        raise StartFailed(f"nothing runs in {home}: start it with `byline up`") from problem
    return facts


def demo_keys(home: Path) -> dict[str, Any]:
    """The demo's API keys. Raises StartFailed if there are none."""
    try:
        keys: dict[str, Any] = json.loads(Home(home).keys.read_text())
    except FileNotFoundError as problem:
        raise StartFailed(f"no keys in {home}: start with `byline up`") from problem
    return keys


def show(as_json: bool, facts: dict[str, Any], text: str) -> None:
    """Print the facts as one JSON object, or the text."""
    print(json.dumps(facts) if as_json else text)


def show_rows(as_json: bool, noun: str, rows: list[dict[str, Any]]) -> None:
    """Print rows as JSON under their noun, or as a table."""
    if as_json:
        print(json.dumps({noun: rows}))
    elif not rows:
        print(f"no {noun} yet: run `byline up`")
    else:
        table = Table(*rows[0])
        for row in rows:
            table.add_row(*(str(value) for value in row.values()))
        Console().print(table)
