"""`byline limits …`: what API keys, applications and organisations may use."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from byline.command.amounts import nano_of
from byline.command.options import DEFAULT_HOME, HomeOption, JsonOption, RedisOption
from byline.command.reaching import address_of
from byline.command.running import show, show_rows
from byline.errors import InvalidInput, NotFound
from byline.quotas.quotas import Quotas
from byline.quotas.scopes import Quota, Scope, ScopeKind

Result = TypeVar("Result")

limits_app = typer.Typer(
    no_args_is_help=True,
    help="Limits of API keys, applications and organisations: requests and tokens in any minute, "
    "money of a UTC day and month.",
)

KindArgument = Annotated[ScopeKind, typer.Argument(help="Whose limits.")]
NameArgument = Annotated[
    str,
    typer.Argument(help="The application, the organisation, or a key's id (`byline keys list`)."),
]
CountOption = Annotated[int | None, typer.Option(min=0, help="In any 60 seconds.")]
UsdOption = Annotated[str | None, typer.Option(help="Dollars, as 12.50; 0 lets nothing pass.")]


@limits_app.command("set")
def limits_set(  # noqa: PLR0913, PLR0917 - each is an option
    kind: KindArgument,
    name: NameArgument,
    requests_per_minute: CountOption = None,
    tokens_per_minute: CountOption = None,
    usd_per_day: UsdOption = None,
    usd_per_month: UsdOption = None,
    redis_url: RedisOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Set the limits that are named; the others stay. A first one is in force within 5 s."""
    scope = Scope(kind, name)
    quota = Quota(requests_per_minute, tokens_per_minute, _nano(usd_per_day), _nano(usd_per_month))
    if not quota.given():
        raise InvalidInput("name a limit, as --requests-per-minute 60", param="limit")

    async def put(quotas: Quotas) -> Quota:
        await quotas.set(scope, quota)
        return (await quotas.quotas())[scope]

    now = _with_quotas(redis_url, home, put)
    show(as_json, _facts(scope, now), f"{kind} {name}: {_text(now)}")


@limits_app.command("show")
def limits_show(
    kind: KindArgument,
    name: NameArgument,
    redis_url: RedisOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Show one scope's limits, and what counts of its use now (reservations included)."""
    scope = Scope(kind, name)

    async def read(quotas: Quotas) -> dict[str, Any]:
        quota = (await quotas.quotas()).get(scope)
        if quota is None:
            raise NotFound(f"{kind} {name} has no limits")
        return {**_facts(scope, quota), "used": asdict(await quotas.used(scope))}

    facts = _with_quotas(redis_url, home, read)
    lines = [f"{field}: {value}" for field, value in facts.items() if field != "used"]
    used = ", ".join(f"{field} {value}" for field, value in facts["used"].items())
    show(as_json, facts, "\n".join([*lines, f"used: {used}"]))


@limits_app.command("list")
def limits_list(
    redis_url: RedisOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """List everyone who has limits."""
    found = _with_quotas(redis_url, home, lambda quotas: quotas.quotas())
    if not found and not as_json:
        print("nobody has limits")
        return
    show_rows(as_json, "limits", [_facts(scope, quota) for scope, quota in found.items()])


@limits_app.command("remove")
def limits_remove(
    kind: KindArgument,
    name: NameArgument,
    redis_url: RedisOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Remove every limit of one scope."""
    scope = Scope(kind, name)
    if not _with_quotas(redis_url, home, lambda quotas: quotas.remove(scope)):
        raise NotFound(f"{kind} {name} has no limits")
    show(as_json, {"removed": str(scope)}, f"{kind} {name} is not limited any more")


def _nano(usd: str | None) -> int | None:
    if usd is None:
        return None
    return 0 if usd == "0" else nano_of(usd)


def _facts(scope: Scope, quota: Quota) -> dict[str, Any]:
    return {"kind": scope.kind.value, "name": scope.name, **asdict(quota)}


def _text(quota: Quota) -> str:
    return ", ".join(f"{name} {value}" for name, value in quota.given().items())


def _with_quotas(
    redis_url: str | None, home: Path, do: Callable[[Quotas], Awaitable[Result]]
) -> Result:
    address = address_of(redis_url, home)

    async def run() -> Result:
        quotas = Quotas.of(address)
        try:
            return await do(quotas)
        finally:
            await quotas.close()

    return asyncio.run(run())
