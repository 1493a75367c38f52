"""`byline keys …`: who may call."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from byline.api_keys import ApiKey, ApiKeys, id_of
from byline.command.options import DEFAULT_HOME, HomeOption, JsonOption, RedisOption
from byline.command.reaching import address_of, now_ms
from byline.command.running import show, show_rows
from byline.records import KeyRole
from byline.statements.months import time_text

Result = TypeVar("Result")

keys_app = typer.Typer(
    no_args_is_help=True, help="API keys: 256 random bits, shown once. Create, list, revoke."
)


@keys_app.command("create")
def keys_create(
    role: Annotated[KeyRole, typer.Option(help="What the key may do.")],
    subject: Annotated[str, typer.Argument(help="The application, contributor or owner.")],
    organisation: Annotated[
        str | None, typer.Option(help="What an application belongs to: shares its limits.")
    ] = None,
    redis_url: RedisOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Create an API key and print it; it can't be shown again."""
    secret = _with_keys(
        redis_url,
        home,
        lambda keys: keys.create(role, subject, now_ms=now_ms(), organisation=organisation),
    )
    facts = {"key": secret, "id": id_of(secret), "role": role.value, "subject": subject}
    show(as_json, facts | {"organisation": organisation}, secret)


@keys_app.command("list")
def keys_list(
    redis_url: RedisOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """List the API keys by their ids: never the keys, of which only hashes are stored."""
    keys = _with_keys(redis_url, home, lambda keys: keys.known())
    show_rows(as_json, "keys", [_facts(key) for key in keys])


@keys_app.command("revoke")
def keys_revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `byline keys list` shows it.")],
    redis_url: RedisOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Refuse an API key for ever; running gateways do a second later at most."""
    key = _with_keys(redis_url, home, lambda keys: keys.revoke(key_id, now_ms=now_ms()))
    show(as_json, _facts(key), f"the {key.role} key {key.id} of {key.subject} is revoked")


def _with_keys(
    redis_url: str | None, home: Path, do: Callable[[ApiKeys], Awaitable[Result]]
) -> Result:
    address = address_of(redis_url, home)

    async def run() -> Result:
        api_keys = await ApiKeys.open(address)
        try:
            return await do(api_keys)
        finally:
            await api_keys.close()

    return asyncio.run(run())


def _facts(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "role": key.role.value,
        "subject": key.subject,
        "organisation": key.organisation,
        "created": time_text(key.created_ms),
        "revoked": None if key.revoked_ms is None else time_text(key.revoked_ms),
    }
