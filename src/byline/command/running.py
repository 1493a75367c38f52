"""What every subcommand needs: the facts of a running `byline up`, asking a person, printing."""

import json
import sys
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from byline.errors import InvalidInput, StartFailed
from byline.home import Home

TABLE_WIDTH_MAX = 10_000  # wider than any table


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


def ask_first(question: str, *, as_json: bool) -> None:
    """Go on only if a person says yes. InvalidInput where nobody is there to be asked."""
    if as_json or not sys.stdin.isatty():
        raise InvalidInput(f"nobody is asked here, so add --yes to go on. {question}", param="yes")
    typer.confirm(question, abort=True)


def show_rows(as_json: bool, noun: str, rows: list[dict[str, Any]]) -> None:
    """Print rows as JSON under their noun, or for a person."""
    if as_json:
        print(json.dumps({noun: rows}))
    elif not rows:
        print(f"no {noun} yet: run `byline up`")
    else:
        print_rows(Console(), rows)


def print_rows(console: Console, rows: list[dict[str, Any]]) -> None:
    """A table; where it is wider than the console, a block a row: nothing is ever cut."""
    texts = [{name: "" if row[name] is None else str(row[name]) for name in row} for row in rows]
    table = Table(*texts[0])
    for text in texts:
        table.add_row(*map(escape, text.values()))
    widest = console.options.update(max_width=TABLE_WIDTH_MAX)
    if console.measure(table, options=widest).maximum <= console.width:
        console.print(table, highlight=False)
        return
    width = max(map(len, texts[0]))
    for text in texts:
        lines = [f"{name:<{width}}  {value}" for name, value in text.items()]
        print("\n".join(lines), end="\n\n", file=console.file)
