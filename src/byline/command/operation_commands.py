"""`byline ledger deposit | adjust | release | refund | block | allow`: what an operator decides.

Each prints the id of its operation. After a failure whose outcome is unknown the same command with
that `--operation` posts at most once.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from uuid_utils import uuid7

from byline.command.amounts import legs_of, nano_of
from byline.command.options import (
    DEFAULT_HOME,
    DEFAULT_LEDGER,
    HomeOption,
    JsonOption,
    LedgerOption,
    OperationOption,
    ReasonOption,
    RedisOption,
    UsdArgument,
)
from byline.command.reaching import address_of, now_ms, with_ledger
from byline.command.running import show
from byline.errors import InvalidInput, LedgerUnavailable
from byline.ledger.ledger import Ledger
from byline.posting.operator_postings import require_payee
from byline.records import Adjustment, Posted, Refund, UnattributedRelease

operations_app = typer.Typer()


@operations_app.command("deposit")
def deposit(  # noqa: PLR0913, PLR0917 - each is an option
    application: Annotated[str, typer.Argument(help="Who gets the money.")],
    usd: UsdArgument,
    new: Annotated[bool, typer.Option("--new", help="It never had money here before.")] = False,
    operation: OperationOption = None,
    redis_url: RedisOption = None,
    ledger_name: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Put money on an application's account, from the funding account."""
    nano = nano_of(usd)

    async def post(ledger: Ledger, operation: str) -> Posted:
        if not new:
            await _require_known(ledger, application)
        return await ledger.deposit(operation, application, nano, time_ms=now_ms())

    _post(
        "deposit", post, operation, _at(redis_url, home, ledger_name, create=new), as_json,
        {"application": application, "nano": nano},
    )  # fmt: skip


@operations_app.command("adjust")
def adjust(  # noqa: PLR0913, PLR0917 - each is an option
    leg: Annotated[
        list[str], typer.Option(help="ACCOUNT=USD; several, which sum to zero.", metavar="LEG")
    ],
    reason: ReasonOption,
    by: Annotated[str, typer.Option(help="Who decided it.")],
    operation: OperationOption = None,
    redis_url: RedisOption = None,
    ledger_name: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Correct accounts: `--leg contrib:ann=-0.50 --leg platform=0.50`."""
    legs = legs_of(leg)
    _post(
        "adjust",
        lambda ledger, id_: ledger.adjust(Adjustment(id_, legs, reason, by), time_ms=now_ms()),
        operation, _at(redis_url, home, ledger_name), as_json,
        {"legs": [[leg.account, leg.nano] for leg in legs]},
    )  # fmt: skip


@operations_app.command("release")
def release(  # noqa: PLR0913, PLR0917 - each is an option
    adapter_version: Annotated[str, typer.Argument(help="Whose unattributed money it is.")],
    to: Annotated[list[str], typer.Option(help="ACCOUNT=USD; several.", metavar="LEG")],
    decision: Annotated[str, typer.Option(help="Where the decision is published.")],
    operation: OperationOption = None,
    redis_url: RedisOption = None,
    ledger_name: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Give unattributed money to whom a published decision names."""
    legs = legs_of(to)
    _post(
        "release",
        lambda ledger, id_: ledger.release(
            UnattributedRelease(id_, adapter_version, legs, decision), time_ms=now_ms()
        ),
        operation, _at(redis_url, home, ledger_name), as_json,
        {"adapter_version": adapter_version, "credits": [[leg.account, leg.nano] for leg in legs]},
    )  # fmt: skip


@operations_app.command("refund")
def refund(  # noqa: PLR0913, PLR0917 - each is an option
    inference: Annotated[str, typer.Argument(help="The inference's id.")],
    usd: UsdArgument,
    reason: ReasonOption,
    operation: OperationOption = None,
    redis_url: RedisOption = None,
    ledger_name: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Give part or all of an inference's charge back to its application."""
    nano = nano_of(usd)
    _post(
        "refund",
        lambda ledger, id_: ledger.refund(Refund(id_, inference, nano, reason), time_ms=now_ms()),
        operation, _at(redis_url, home, ledger_name), as_json,
        {"inference": inference, "nano": nano},
    )  # fmt: skip


@operations_app.command("block")
def block(
    account: Annotated[str, typer.Argument(help="Such as contrib:ann.")],
    reason: ReasonOption,
    redis_url: RedisOption = None,
    ledger_name: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Hold an account's payouts back; its earnings go on."""
    require_payee(account)
    with_ledger(
        address_of(redis_url, home),
        lambda ledger: ledger.block_payouts(account, reason),
        name=ledger_name,
    )
    text = f"the payouts of {account} are held back until `byline ledger allow {account}`"
    show(as_json, {"account": account, "blocked": reason}, text)


@operations_app.command("allow")
def allow(
    account: Annotated[str, typer.Argument(help="Whose payouts are held back.")],
    redis_url: RedisOption = None,
    ledger_name: LedgerOption = DEFAULT_LEDGER,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Let an account be paid again."""
    require_payee(account)
    with_ledger(
        address_of(redis_url, home), lambda ledger: ledger.allow_payouts(account), name=ledger_name
    )
    show(as_json, {"account": account, "blocked": None}, f"{account} is paid again")


async def _require_known(ledger: Ledger, application: str) -> None:
    """A slip in a name must not fund somebody new."""
    known = application in await ledger.credit_limits()
    if not known and not await ledger.balance(f"app:{application}"):
        raise InvalidInput(
            f"no application '{application}' ever had money here: for a new one add --new",
            param="application",
        )


def _at(
    redis_url: str | None, home: Path, ledger_name: str, *, create: bool = False
) -> Callable[[Callable[[Ledger], Awaitable[Posted]]], Posted]:
    """How to do something with this ledger; only with `create` one is begun that isn't there."""
    address = address_of(redis_url, home)
    return partial(with_ledger, address, name=ledger_name, create=create)


def _post(
    name: str,
    post: Callable[[Ledger, str], Awaitable[Posted]],
    operation: str | None,
    at_ledger: Callable[[Callable[[Ledger], Awaitable[Posted]]], Posted],
    as_json: bool,
    facts: dict[str, Any],
) -> None:
    """Post under the operation's id, and print the id whatever comes of it."""
    id_ = operation or str(uuid7())
    try:
        posted = at_ledger(lambda ledger: post(ledger, id_))
    except LedgerUnavailable as problem:
        raise LedgerUnavailable(
            f"{problem}; it may have been posted or not: run it again with --operation {id_}"
        ) from problem
    facts = {"operation": id_, "seq": posted.seq, "duplicate": posted.duplicate, **facts}
    again = ", posted before" if posted.duplicate else ""
    show(as_json, facts, f"{name} {id_}: journal entry {posted.seq}{again}")
