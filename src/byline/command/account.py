"""The demo's accounts: an application with money, and an API key for everyone in the release.

The secrets go into `keys.json`, mode 0600, and nowhere else; Redis has their hashes.
"""

import json
import os
from collections.abc import Iterable
from typing import Any

from uuid_utils import uuid7

from byline.api_keys import ApiKeys
from byline.errors import Unauthenticated
from byline.home import Home
from byline.ledger.ledger import Ledger
from byline.records import KeyRole

APPLICATION = "demo"
DEPOSIT_NANO = 100_000_000_000  # 100 USD
TOP_UP_BELOW_NANO = 10_000_000_000


async def ensure_accounts(
    home: Home, *, redis_url: str, gateway_url: str, contributors: Iterable[str], now_ms: int
) -> dict[str, Any]:
    """Keys for the demo application, an operator and each contributor, and money to spend.

    Keys of an earlier run are kept where the ledger still knows them. Answers what is in keys.json.
    """
    api_keys = await ApiKeys.open(redis_url)
    ledger = await Ledger.open(redis_url)
    try:
        old = json.loads(home.keys.read_text()) if home.keys.is_file() else {}

        async def key(role: KeyRole, subject: str, known: str | None) -> str:
            if known is not None:
                try:
                    await api_keys.find(known)
                except Unauthenticated:
                    pass  # the ledger was started afresh
                else:
                    return known
            return await api_keys.create(role, subject, now_ms=now_ms)

        known = old.get("contributors", {})
        keys = {
            "url": gateway_url,
            "application": await key(KeyRole.APPLICATION, APPLICATION, old.get("application")),
            "operator": await key(KeyRole.OPERATOR, "operator", old.get("operator")),
            "contributors": {
                contributor: await key(KeyRole.CONTRIBUTOR, contributor, known.get(contributor))
                for contributor in sorted(contributors)
            },
        }
        write_private(home, keys)
        if await ledger.balance(f"app:{APPLICATION}") < TOP_UP_BELOW_NANO:
            await ledger.deposit(str(uuid7()), APPLICATION, DEPOSIT_NANO, time_ms=now_ms)
    finally:
        await ledger.close()
        await api_keys.close()
    return keys


def write_private(home: Home, keys: dict[str, Any]) -> None:
    """Replace keys.json; only its owner can read it, from its first byte on."""
    aside = home.keys.with_suffix(".partial")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(keys, file, indent=2)
    os.replace(aside, home.keys)
