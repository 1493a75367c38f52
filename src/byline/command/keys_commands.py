"""`byline keys …`: who may call."""

import asyncio
from typing import Annotated

import typer

from byline.api_keys import ApiKeys
from byline.command.reaching import RedisOption, address_of, now_ms
from byline.command.running import DEFAULT_HOME, HomeOption, JsonOption, show
from byline.records import KeyRole

keys_app = typer.Typer(no_args_is_help=True, help="API keys: 256 random bits, shown once.")


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
        api_keys = await ApiKeys.open(address_of(redis_url, home))
        try:
            return await api_keys.create(role, subject, now_ms=now_ms())
        finally:
            await api_keys.close()

    secret = asyncio.run(create())
    show(as_json, {"key": secret, "role": role.value, "subject": subject}, secret)
