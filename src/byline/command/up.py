"""`byline up`: prepare, start, ask, show, check the books, stay, stop."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from byline.artifacts import ArtifactStore
from byline.command.account import ensure_accounts
from byline.command.asking import QUESTIONS, ask, earnings_table, show_answer, summary
from byline.command.preparing import Preparation, require_space
from byline.command.programs import Ports, Program, programs, redis_program
from byline.command.progress import Display
from byline.command.tree import Tree, require_free_port
from byline.datasets import Dataset, read_dataset
from byline.errors import BylineError, LedgerUnavailable, StartFailed
from byline.home import Home
from byline.ledger.ledger import Ledger
from byline.records import Books, Example, Release
from byline.registry import read_release

DISK_BYTES_NEEDED = 1_500_000_000  # base model, adapters, indexes and gradients being built
REDIS_READY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Options:
    """What `byline up` was asked to do."""

    home: Path
    port: int
    model: str
    everything: bool
    once: bool
    as_json: bool


def up(options: Options) -> int:
    """Run the whole main job; answers the exit status."""
    home = Home(options.home)
    ports = Ports(options.port)
    display = Display()
    _stop_on_sigterm()
    with _only_one(home):
        require_ports(ports)
        require_space(home.root, DISK_BYTES_NEEDED)
        ArtifactStore(home.artifacts).remove_partials()
        preparation = Preparation(home, display, model=options.model, everything=options.everything)
        release = preparation.release()
        try:
            with Tree(home.logs) as tree:
                keys = start(tree, home, ports, display, release)
                try:
                    report = show_and_check(home, ports, display, keys, options)
                except BylineError:
                    tree.raise_if_one_died()  # then that is what went wrong
                    raise
                if options.once:
                    return _finish(report, options)
                display.say(f"\nByline is up at {ports.gateway_url}/v1 - keys in {home.keys}")
                display.say("Press Ctrl-C to stop.")
                _finish(report, options)
                tree.wait_until_one_dies()
        finally:
            home.run.unlink(missing_ok=True)
            display.say("stopped")
    return 0


def require_ports(ports: Ports) -> None:
    """Raise StartFailed unless all seven ports are free."""
    for name in ("gateway", "engine", "redis", "worker", "archive", "bookkeeper", "notary"):
        require_free_port(getattr(ports, name), name)


def start(
    tree: Tree, home: Home, ports: Ports, display: Display, release: Release
) -> dict[str, Any]:
    """Start every program and wait until all are ready; answers the demo's keys."""
    with display.step("ledger", "ledger (Redis protocol, AOF)"):
        tree.start(redis_program(home, ports))
        keys = asyncio.run(_accounts_when_ready(tree, home, ports, contributors_of(home, release)))
    started = programs(home, ports)
    with display.step("programs", "engine, worker and gateway") as step:
        for program in started:
            tree.start(program)
        write_run(home, ports, tree, started)
        for done, program in enumerate(started):
            step.advance(done, len(started))
            tree.wait_ready(program)
    write_run(home, ports, tree, started)
    return keys


def released_datasets(home: Home, release: Release) -> list[Dataset]:
    """The datasets of the release's adapters."""
    store = ArtifactStore(home.artifacts)
    return [read_dataset(store.open("datasets", a.dataset)) for a in release.adapters]


def contributors_of(home: Home, release: Release) -> dict[str, str]:
    """Every contributor of the release's datasets, with the name to show."""
    names: dict[str, str] = {}
    for dataset in released_datasets(home, release):
        names.update(dataset.contributors)
    return names


def examples_of(home: Home, release: Release) -> dict[str, Example]:
    """Every example of the release's datasets, by id."""
    datasets = released_datasets(home, release)
    return {example.id: example for dataset in datasets for example in dataset.examples}


async def _accounts_when_ready(
    tree: Tree, home: Home, ports: Ports, contributors: Mapping[str, str]
) -> dict[str, Any]:
    deadline = time.monotonic() + REDIS_READY_SECONDS
    while True:
        tree.raise_if_one_died()
        try:
            return await ensure_accounts(
                home,
                redis_url=ports.redis_url,
                gateway_url=ports.gateway_url,
                contributors=contributors,
                now_ms=time.time_ns() // 1_000_000,
            )
        except LedgerUnavailable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


def write_run(home: Home, ports: Ports, tree: Tree, started: list[Program]) -> None:
    """Say in run.json where everything is, for the other subcommands."""
    facts = {
        "pid": os.getpid(),
        "gateway_url": ports.gateway_url,
        "engine_url": ports.engine_url,
        "redis_url": ports.redis_url,
        "worker_url": ports.worker_url,
        "archive_metrics_url": ports.archive_url,
        "bookkeeper_url": ports.bookkeeper_url,
        "notary_url": ports.notary_url,
        "archive_url": home.archive_url,
        "ready": {program.name: program.ready_url for program in started},
        "pids": dict(tree.pids),
    }
    aside = home.run.with_suffix(".partial")
    aside.write_text(json.dumps(facts, indent=2))
    os.replace(aside, home.run)


def show_and_check(
    home: Home, ports: Ports, display: Display, keys: Mapping[str, Any], options: Options
) -> dict[str, Any]:
    """Ask the questions, show answers and earnings, check the books; answers the JSON report."""
    console = Console(stderr=options.as_json, soft_wrap=True)
    answers = []
    with display.step("questions", "questions") as step:
        for done, (model, question) in enumerate(QUESTIONS):
            step.advance(done, len(QUESTIONS))
            answers.append(ask(ports.gateway_url, keys["application"], model, question))
    rows = examples_of(home, read_release(home.release))
    for answer in answers:
        show_answer(console, answer, rows)
    books, balances = asyncio.run(books_and_balances(ports.redis_url))
    names = contributors_of(home, read_release(home.release))
    console.print()
    console.print(earnings_table(balances, names))
    verdict = "balance" if books.balanced else "DO NOT BALANCE: run `byline ledger check`"
    console.print(
        f"The books {verdict}: {books.journal_entries} journal entries, "
        f"accounts sum to {books.accounts_sum_nano} nano-USD."
    )
    return {
        "answers": [summary(answer) for answer in answers],
        "accounts_sum_nano": books.accounts_sum_nano,
        "journal_entries": books.journal_entries,
        "balanced": books.balanced,
        "seconds": display.seconds,
    }


async def books_and_balances(redis_url: str) -> tuple[Books, Mapping[str, int]]:
    """The check of the books, and every balance."""
    ledger = await Ledger.open(redis_url)
    try:
        return await ledger.check(), await ledger.balances()
    finally:
        await ledger.close()


def _finish(report: Mapping[str, Any], options: Options) -> int:
    if options.as_json:
        print(json.dumps(report), flush=True)
    return 0 if report["balanced"] else 1


@contextlib.contextmanager
def _only_one(home: Home) -> Iterator[None]:
    """Hold the home folder's lock: two `byline up` in one home would share a ledger's files."""
    home.root.mkdir(parents=True, exist_ok=True)
    with (home.root / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise StartFailed(
                f"a `byline up` already runs in {home.root}: stop it with `byline down`, "
                "or choose another folder with --home and other ports with --port"
            ) from problem
        yield


def _stop_on_sigterm() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
