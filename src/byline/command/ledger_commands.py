"""`byline ledger …`: the care of a ledger, here or elsewhere; what moves money is beside it."""

import json
from typing import Annotated, Any

import typer

from byline.bookkeeping.trimming import Trimming
from byline.bookkeeping.upkeep import USUAL
from byline.command.operation_commands import operations_app
from byline.command.options import (
    DEFAULT_HOME,
    DEFAULT_LEDGER,
    HomeOption,
    JsonOption,
    LedgerOption,
    RedisOption,
    YesOption,
)
from byline.command.reaching import address_of, now_ms, with_ledger
from byline.command.running import ask_first, show
from byline.ledger.books import Snapshot
from byline.ledger.journal import Journal
from byline.ledger.ledger import Ledger
from byline.ledger.waiting import Waiting
from byline.records import Books

ledger_app = typer.Typer(no_args_is_help=True, help="The ledger: check it, mend it, move money.")
ledger_app.add_typer(operations_app)


@ledger_app.command("check")
def ledger_check(
    redis_url: RedisOption = None,
    ledger_name: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Fold the journal and hold it against the balances; exit 1 if they differ."""
    _check(address_of(redis_url, home), ledger_name, as_json)


@ledger_app.command("rebuild")
def ledger_rebuild(  # noqa: PLR0913, PLR0917 - each is an option
    check: Annotated[bool, typer.Option("--check", help="Only compare; change nothing.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Begin at the first entry, not at the snapshot.")
    ] = False,
    from_archive: Annotated[
        str, typer.Option(metavar="URL", help="Begin at the balances of this SQL archive.")
    ] = "",
    restore: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="First put back what the journal has lost and this SQL archive has. Stop gateways "
            "and workers before.",
        ),
    ] = "",
    yes: YesOption = False,
    redis_url: RedisOption = None,
    ledger_name: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Make balances, lists and lost jobs anew from the journal; running programs must rejoin."""
    address = address_of(redis_url, home)
    if check:
        _check(address, ledger_name, as_json)
        return
    if not yes:
        ask_first("Nothing is posted or served meanwhile. Rebuild?", as_json=as_json)
    base = _archived(from_archive, ledger_name) if from_archive else None
    # A server that has lost all gets its ledger back; a slip in the name must not make a new one.
    create = bool(restore) and _is_archived(restore, ledger_name)

    async def rebuild(ledger: Ledger) -> dict[str, int]:
        put_back = {"restored": await _restored(ledger, restore, ledger_name)} if restore else {}
        accounts = await ledger.rebuild(full=full, base=base)
        jobs = await Waiting(*ledger.inside).enqueue_lost_jobs()
        return {**put_back, "accounts": len(accounts), "jobs": jobs}

    done = with_ledger(address, rebuild, name=ledger_name, create=create)
    first = f"put {done['restored']} entries back, " if restore else ""
    text = f"rebuilt {done['accounts']} accounts and {done['jobs']} lost jobs under a new epoch"
    show(as_json, done, first + text)


@ledger_app.command("trim")
def ledger_trim(
    keep_entries: Annotated[
        int, typer.Option(min=1, help="The newest entries that stay.")
    ] = USUAL.keep_entries,
    keep_days: Annotated[
        float, typer.Option(min=0, help="Entries younger than this stay.")
    ] = USUAL.keep_days,
    redis_url: RedisOption = None,
    ledger_name: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Take old entries off the journal: only what is exported and lies before a snapshot."""

    async def trim(ledger: Ledger) -> int:
        redis, keys = ledger.inside
        trimming = Trimming(redis, keys, Journal(redis, keys))
        return await trimming.trim(keep_entries=keep_entries, keep_days=keep_days, now_ms=now_ms())

    trimmed = with_ledger(address_of(redis_url, home), trim, name=ledger_name)
    show(as_json, {"trimmed": trimmed}, f"the journal is trimmed up to entry {trimmed}")


@ledger_app.command("promote")
def ledger_promote(
    redis_url: RedisOption = None,
    ledger_name: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Raise the epoch after a replica has become the primary: older writers are fenced off."""
    address = address_of(redis_url, home)
    epoch = with_ledger(address, lambda ledger: ledger.promote(), name=ledger_name)
    show(as_json, {"epoch": epoch}, f"the epoch is {epoch}: writers of older ones are fenced off")


@ledger_app.command("freeze")
def ledger_freeze(
    reason: Annotated[str, typer.Argument(help="Why; kept with the ledger.")],
    redis_url: RedisOption = None,
    ledger_name: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Refuse every posting until `byline ledger thaw`."""
    address = address_of(redis_url, home)
    with_ledger(address, lambda ledger: ledger.freeze(reason), name=ledger_name)
    text = f"frozen ({reason}): nothing is posted or served until `byline ledger thaw`"
    show(as_json, {"frozen": reason}, text)


@ledger_app.command("thaw")
def ledger_thaw(
    redis_url: RedisOption = None,
    ledger_name: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Post again."""
    address = address_of(redis_url, home)
    with_ledger(address, lambda ledger: ledger.thaw(), name=ledger_name)
    show(as_json, {"frozen": None}, "thawed")


def books_facts(books: Books) -> dict[str, Any]:
    """The check of the books as JSON."""
    return {
        "balanced": books.balanced,
        "journal_entries": books.journal_entries,
        "accounts_sum_nano": books.accounts_sum_nano,
        "gaps": list(books.gaps),
        "unbalanced_entries": list(books.unbalanced_entries),
        "unbalanced_inferences": dict(books.unbalanced_inferences),
        "drifting_accounts": {name: list(pair) for name, pair in books.drifting_accounts.items()},
        "unreadable_accounts": dict(books.unreadable_accounts),
    }


def _archived(url: str, ledger_name: str) -> Snapshot:
    from byline.archive.database import Archive
    from byline.bookkeeping.archive_books import archived_snapshot

    archive = Archive.open(url, create=False)
    try:
        return archived_snapshot(archive, ledger_name)
    finally:
        archive.close()


def _is_archived(url: str, ledger_name: str) -> bool:
    from byline.archive.database import Archive
    from byline.archive.writing import exported_seq

    archive = Archive.open(url, create=False)
    try:
        with archive.reading() as connection:
            return exported_seq(connection, ledger_name) > 0
    finally:
        archive.close()


async def _restored(ledger: Ledger, url: str, ledger_name: str) -> int:
    from byline.archive.database import Archive
    from byline.archive.restoring import Restoring

    archive = Archive.open(url, create=False)
    try:
        return await Restoring(ledger, archive, name=ledger_name).restore()
    finally:
        archive.close()


def _check(address: str, ledger_name: str, as_json: bool) -> None:
    books = with_ledger(address, lambda ledger: ledger.check(), name=ledger_name)
    facts = books_facts(books)
    verdict = "balanced" if books.balanced else "NOT BALANCED"
    if not books.journal_entries:  # a wrong name or folder must not pass for a sound ledger
        verdict = f"EMPTY: nothing was ever posted to the ledger '{ledger_name}'"
    show(as_json, facts, f"{verdict}: {json.dumps(facts)}")
    raise typer.Exit(0 if books.balanced and books.journal_entries else 1)
