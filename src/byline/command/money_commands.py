"""`byline keys …` and `byline ledger …`: what an operator does to a ledger, here or elsewhere."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from uuid_utils import uuid7

from byline.api_keys import ApiKeys
from byline.command.running import DEFAULT_HOME, HomeOption, JsonOption, run_facts, show
from byline.errors import InvalidInput
from byline.ledger import Ledger
from byline.records import Books, KeyRole

Result = TypeVar("Result")

keys_app = typer.Typer(no_args_is_help=True, help="API keys: 256 random bits, shown once.")
ledger_app = typer.Typer(no_args_is_help=True, help="The ledger: check, rebuild, deposit, freeze.")

RedisOption = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        envvar="BYLINE_REDIS_URL",
        help="A ledger elsewhere; without it, the one of the `byline up` in --home.",
    ),
]
NANO = Decimal(10**9)


@keys_app.command("create")
def keys_create(
    role: Annotated[KeyRole, typer.Option(help="What the key may do.")],
    subject: Annotated[str, typer.Argument(help="The application, contributor or owner.")],
    redis_url: RedisOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Create an API key and print it; it can't be shown again."""

    async def create() -> str:
        api_keys = await ApiKeys.open(_address(redis_url, home))
        try:
            return await api_keys.create(role, subject, now_ms=_now_ms())
        finally:
            await api_keys.close()

    secret = asyncio.run(create())
    show(as_json, {"key": secret, "role": role.value, "subject": subject}, secret)


@ledger_app.command("check")
def ledger_check(
    redis_url: RedisOption = None, home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False
) -> None:
    """Fold the journal and hold it against the balances; exit 1 if they differ."""
    _check(_address(redis_url, home), as_json)


@ledger_app.command("rebuild")
def ledger_rebuild(
    check: Annotated[bool, typer.Option("--check", help="Only compare; change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
    redis_url: RedisOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Make the balances anew from the journal, under a new epoch; running programs must restart."""
    address = _address(redis_url, home)
    if check:
        _check(address, as_json)
        return
    if not yes:
        typer.confirm("Running gateways stop serving until they restart. Rebuild?", abort=True)
    accounts = _with_ledger(address, lambda ledger: ledger.rebuild())
    text = f"rebuilt {len(accounts)} accounts under a new epoch: restart gateway and worker"
    show(as_json, {"accounts": len(accounts)}, text)


@ledger_app.command("deposit")
def ledger_deposit(
    application: Annotated[str, typer.Argument(help="Who gets the money.")],
    usd: Annotated[str, typer.Argument(help="US dollars, at most nine decimals: 12.50")],
    redis_url: RedisOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Put money on an application's account, from the funding account."""
    nano = nano_of(usd)
    posted = _with_ledger(
        _address(redis_url, home),
        lambda ledger: ledger.deposit(str(uuid7()), application, nano, time_ms=_now_ms()),
    )
    text = f"deposited {nano} nano-USD for {application} (journal entry {posted.seq})"
    show(as_json, {"application": application, "nano": nano, "seq": posted.seq}, text)


@ledger_app.command("freeze")
def ledger_freeze(
    reason: Annotated[str, typer.Argument(help="Why; kept with the ledger.")],
    redis_url: RedisOption = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Refuse every posting until `byline ledger thaw`."""
    _with_ledger(_address(redis_url, home), lambda ledger: ledger.freeze(reason))
    show(False, {}, "frozen: nothing is posted and nothing is served until `byline ledger thaw`")


@ledger_app.command("thaw")
def ledger_thaw(redis_url: RedisOption = None, home: HomeOption = DEFAULT_HOME) -> None:
    """Post again."""
    _with_ledger(_address(redis_url, home), lambda ledger: ledger.thaw())
    show(False, {}, "thawed")


def nano_of(usd: str) -> int:
    """Dollars, as a person writes them, in nano-USD; InvalidInput unless exact and positive."""
    try:
        nano = Decimal(usd) * NANO
    except InvalidOperation as problem:
        raise InvalidInput(
            f"'{usd}' is no amount of dollars: write 12.50", param="usd"
        ) from problem
    if not nano.is_finite() or nano != int(nano) or nano <= 0:
        raise InvalidInput(f"'{usd}' must be positive with at most nine decimals", param="usd")
    return int(nano)


def books_facts(books: Books) -> dict[str, Any]:
    """The check of the books as JSON."""
    return {
        "balanced": books.balanced,
        "journal_entries": books.journal_entries,
        "accounts_sum_nano": books.accounts_sum_nano,
        "gaps": list(books.gaps),
        "unbalanced_entries": list(books.unbalanced_entries),
        "drifting_accounts": {name: list(pair) for name, pair in books.drifting_accounts.items()},
    }


def _check(address: str, as_json: bool) -> None:
    books = _with_ledger(address, lambda ledger: ledger.check())
    facts = books_facts(books)
    show(as_json, facts, f"{'balanced' if books.balanced else 'NOT BALANCED'}: {json.dumps(facts)}")
    raise typer.Exit(0 if books.balanced else 1)


def _with_ledger(address: str, do: Callable[[Ledger], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        ledger = await Ledger.open(address)
        try:
            return await do(ledger)
        finally:
            await ledger.close()

    return asyncio.run(run())


def _address(redis_url: str | None, home: Path) -> str:
    return redis_url or str(run_facts(home)["redis_url"])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
