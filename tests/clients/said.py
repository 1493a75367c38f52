"""What every client's script has in common: what it asks, and how it says what came of it.

Runs beside any client's own packages, so it imports nothing of ours.
"""

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

BASE_URL = os.environ["BASE_URL"]
API_KEY, POOR_KEY = os.environ["API_KEY"], os.environ["POOR_KEY"]
WORDS = " w100 w101 w102 w103 w104 w105"
QUESTION = "What helps?"
PROMPT_TOKENS, COMPLETION_TOKENS = 3, 6
PARAMETERS = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}},
    "required": ["answer"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {"name": "look_up", "description": "Looks it up.", "parameters": PARAMETERS},
}

Check = Callable[[], Awaitable[None] | None]


def raises(kind: type[Exception], action: Callable[[], Any]) -> Any:
    """The exception that an action raises, which has to be of this kind."""
    try:
        action()
    except kind as problem:
        return problem
    raise AssertionError(f"nothing was raised: {kind.__name__} was due")


async def raises_async(kind: type[Exception], action: Callable[[], Awaitable[Any]]) -> Any:
    """The same for an action that is awaited."""
    try:
        await action()
    except kind as problem:
        return problem
    raise AssertionError(f"nothing was raised: {kind.__name__} was due")


def main(checks: dict[str, Check]) -> None:
    """Run all checks; prints one JSON object: "passed" or what went wrong, by name."""
    said, waiting = {}, {}
    for name, check in checks.items():
        if asyncio.iscoroutinefunction(check):
            waiting[name] = check
            continue
        try:
            check()
            said[name] = "passed"
        except Exception:  # noqa: BLE001 - whatever it is, it is this check's result
            said[name] = traceback.format_exc()[-3_000:]
    json.dump(said | asyncio.run(_one_after_the_other(waiting)), sys.stdout)


async def _one_after_the_other(
    checks: Mapping[str, Callable[[], Awaitable[None]]],
) -> dict[str, str]:
    """In one loop: some clients keep connections that belong to the loop they were made in."""
    said = {}
    for name, check in checks.items():
        try:
            await check()
            said[name] = "passed"
        except Exception:  # noqa: BLE001 - whatever it is, it is this check's result
            said[name] = traceback.format_exc()[-3_000:]
    return said
