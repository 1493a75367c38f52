"""The `byline` command: one short function a subcommand; `byline --help` is the manual."""

import asyncio
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from byline.auditing.groups import GROUPS_MAX
from byline.auditing.lottery import parse_rate
from byline.auditing.plan import read_plan
from byline.command.asking import ask as ask_gateway
from byline.command.asking import get_json, show_answer, summary
from byline.command.attacks_command import attacks
from byline.command.attribution_commands import attribution_app, released_rows
from byline.command.ending import run_command
from byline.command.fidelity_command import fidelity
from byline.command.keys_commands import keys_app
from byline.command.ledger_commands import ledger_app
from byline.command.limits_commands import limits_app
from byline.command.options import (
    DEFAULT_HOME,
    DEFAULT_MODEL,
    EverythingOption,
    HomeOption,
    JsonOption,
    ModelOption,
    NameArgument,
)
from byline.command.payment_commands import payment_app
from byline.command.proof_commands import proof_app
from byline.command.running import demo_keys, run_facts, show, show_rows
from byline.command.statement_commands import payouts_app, statements_app
from byline.command.verification_commands import export, verify
from byline.errors import InvalidInput, StartFailed
from byline.home import Home

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help=(
        "Byline serves LoRA adapters behind an OpenAI-compatible gateway and pays the people whose "
        "data taught each answer.\n\nStart with `byline up`. In another terminal: `byline ask "
        'healthcare "..."`, `byline earnings`, `byline ledger check`.'
    ),
)
app.add_typer(attribution_app, name="attribution")
app.add_typer(keys_app, name="keys")
app.add_typer(limits_app, name="limits")
app.add_typer(ledger_app, name="ledger")
app.add_typer(proof_app, name="proof")
app.add_typer(statements_app, name="statements")
app.add_typer(payouts_app, name="payouts")
app.add_typer(payment_app, name="payment")
proof_app.command("export")(export)


@app.command()
def up(
    home: HomeOption = DEFAULT_HOME,
    port: Annotated[
        int, typer.Option(help="Gateway's port; the next six are used too.", min=1024, max=65529)
    ] = 8080,
    model: ModelOption = DEFAULT_MODEL,
    everything: EverythingOption = False,
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
    run = run_facts(home)
    pid = int(run["pid"])
    try:
        os.kill(pid, signal.SIGTERM)
        while Home(home).run.is_file():
            os.kill(pid, 0)
            time.sleep(0.2)
    except ProcessLookupError:
        Home(home).run.unlink(missing_ok=True)
    show(as_json, {"stopped": pid}, f"stopped (process {pid})")


@app.command()
def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show which programs run and whether each is ready."""
    from byline.command.tree import answers

    run = run_facts(home)
    ready = {name: answers(url) for name, url in run["ready"].items()}
    facts = {**run, "ready": ready}
    lines = [
        f"{name:<8} {'ready' if is_ready else 'NOT READY'}" for name, is_ready in ready.items()
    ]
    show(as_json, facts, "\n".join([f"gateway at {run['gateway_url']}/v1", *lines]))
    raise typer.Exit(0 if all(ready.values()) else 1)


@app.command()
def ask(
    model: Annotated[str, typer.Argument(help="An adapter, the base model, or auto.")],
    question: Annotated[str, typer.Argument(help="What to ask.")],
    max_tokens: Annotated[int, typer.Option(help="Of the answer, at most.", min=1)] = 64,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Ask one question and show the answer with its byline."""
    url, keys = run_facts(home)["gateway_url"], demo_keys(home)
    answer = ask_gateway(url, keys["application"], model, question, max_tokens=max_tokens)
    if as_json:
        print(json.dumps(summary(answer)))
    else:
        show_answer(Console(soft_wrap=True), answer, released_rows(home))


@app.command()
def earnings(
    contributor: Annotated[
        str | None, typer.Argument(help="One contributor; without it, all.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Show what contributors earned; for one contributor, its newest lines too."""
    from byline.command.up import books_and_balances, contributors_of
    from byline.registry import read_release

    run, keys = run_facts(home), demo_keys(home)
    if contributor is not None:
        address = f"{run['gateway_url']}/v1/contributors/me/earnings"
        if contributor not in keys["contributors"]:
            raise StartFailed(f"no contributor '{contributor}'; `byline earnings` lists them")
        found = get_json(address, keys["contributors"][contributor])
        lines = [f"{line['inference']}  {line['nano']:>12}" for line in found["lines"]]
        text = f"{contributor}: {found['available_nano']} nano-USD\n" + "\n".join(lines)
        show(as_json, found, text)
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
                     "contributors": len(dataset.contributors),
                     "copies": [asdict(copy) for copy in dataset.copies] if as_json
                     else len(dataset.copies)})  # fmt: skip
    show_rows(as_json, "datasets", rows)


@app.command()
def adapters(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """List the trained adapters, with what each was trained on."""
    from byline.command.preparing import stored

    show_rows(as_json, "adapters", [
        {"adapter": artifact.reference, "dataset": artifact.recipe.get("dataset"),
         "base": artifact.recipe.get("base")}
        for artifact in stored(Home(home), "adapters")
    ])  # fmt: skip


@app.command()
def card(
    name: Annotated[str, typer.Argument(help="A served adapter, or its exact version.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Print an adapter version's model card: who taught it, and how true its shares are."""
    from byline.cards import markdown, read_card
    from byline.registry import find_adapter, read_release

    adapter = find_adapter(read_release(Home(home).release), name)
    if adapter is None:
        raise InvalidInput(f"{name} is the base model: adapters have cards", param="name")
    found = read_card(Home(home), adapter)
    show(as_json, found.fields(), markdown(found).rstrip())


@app.command()
def train(
    name: NameArgument,
    model: ModelOption = DEFAULT_MODEL,
    everything: EverythingOption = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Train one adapter, or find it if the same inputs were trained before."""
    preparation, display = _preparation(home, model, everything)
    dataset = preparation.dataset(name)
    made = preparation.adapter(name, preparation.base(), dataset)
    show(as_json, {"adapter": made.reference, "seconds": display.seconds}, made.reference)


@app.command()
def index(
    name: NameArgument,
    model: ModelOption = DEFAULT_MODEL,
    everything: EverythingOption = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Build one adapter's attribution index, training the adapter first if need be."""
    preparation, display = _preparation(home, model, everything)
    dataset, base = preparation.dataset(name), preparation.base()
    adapter = preparation.adapter(name, base, dataset)
    made = preparation.index(name, base, dataset, adapter)
    show(as_json, {"index": made.reference, "seconds": display.seconds}, made.reference)


@app.command()
def counterfactuals(  # noqa: PLR0913, PLR0917 - each is an option
    name: NameArgument,
    orders: Annotated[
        int, typer.Option(help="Training orders; from two on, reliability is measured.", min=1)
    ] = 2,
    rate: Annotated[str, typer.Option(help="The fraction of answers that is audited.")] = "1/20",
    groups: Annotated[
        int, typer.Option(help="Where contributors are more, so many groups are left out.", min=2)
    ] = GROUPS_MAX,
    model: ModelOption = DEFAULT_MODEL,
    everything: EverythingOption = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Retrain an adapter without each contributor: pay follows that, and audits check it.

    Trains one adapter a contributor and order (a minute each on one core), or finds them; builds
    the adapter's index anew and puts it into the release. Stop and start again as you like.
    """
    parse_rate(rate)  # this and the plan: refused before anything is trained
    read_plan(Home(home).audit_plan)
    preparation, display = _preparation(home, model, everything)
    dataset, base = preparation.dataset(name), preparation.base()
    adapter = preparation.adapter(name, base, dataset)
    found = preparation.counterfactuals(
        base, dataset, adapter, orders=orders, rate=rate, groups=groups
    )
    made = preparation.index(name, base, dataset, adapter)
    is_released = preparation.take_into_release(adapter, made)
    found = {**found, "index": made.reference, "released": is_released, "seconds": display.seconds}
    text = f"{made.reference}: {found['runs']} runs, {_replicated(found)}"
    if is_released:
        text += ". Start the worker and the auditor again (`byline up`): they read the plan then"
    show(as_json, found, text)


# Here, not above: the manual lists commands in this order, and begins with `up`.
app.command()(fidelity)
app.command()(attacks)
app.command(
    add_help_option=False,  # the verifier reads its own options
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)(verify)


def _replicated(found: dict[str, Any]) -> str:
    reliability, distance = found["reliability_ppb"], found["orders_distance"]
    if reliability is None:
        return "reliability not measured: one order"
    return f"reliability {reliability / 10_000_000:.0f} %, orders' shares differ by {distance:.2f}"


def _preparation(home: Path, model: str, everything: bool) -> tuple[Any, Any]:
    from byline.command.preparing import Preparation
    from byline.command.progress import Display

    display = Display()
    home.mkdir(parents=True, exist_ok=True)
    return Preparation(Home(home), display, model=model, everything=everything), display


def main() -> None:
    """Run the command; an expected error becomes one clear message and exit status 1."""
    run_command(app, sys.argv[1:])


if __name__ == "__main__":
    main()
