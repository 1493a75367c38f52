"""What the posting script itself takes: a native load tool sends one and the same post."""

import asyncio
import re
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Any

from byline.ledger.ledger import Ledger
from byline.posting.call import Call
from byline.posting.keys import Keys
from byline.posting.operator_postings import adjust
from byline.posting.redis_client import connect
from byline.posting.scripts import Script
from byline.records import Adjustment, Leg
from loadtests.ledger_bench.clients import NAME
from loadtests.ledger_bench.operations import now_ms

TOOL = "redis-benchmark"
CONNECTIONS, PIPELINED = 50, 16
POSTS = {6: 100_000, 51: 20_000}
ROUNDS = 3
DIGITS = "0" * 12  # the tool puts twelve random digits in their place
RANDOM = "__rand_int__"
FIGURES = re.compile(r'"([0-9.]+)"')
OPERATION = f"01890000-0000-7000-8000-{DIGITS}"


def ceiling(url: str, socket: Path) -> dict[str, Any] | None:
    """Posts a second by the number of legs; None where the tool is not installed."""
    tool = shutil.which(TOOL)
    if tool is None:
        return None
    return {
        f"legs_{legs}": _measured([tool, "-s", str(socket)], asyncio.run(_call(url, legs)), posts)
        for legs, posts in POSTS.items()
    }


async def _call(url: str, legs: int) -> list[str]:
    """An adjustment as the words of one EVALSHA: the only operation that needs nothing before it.

    The random digits differ in each place of one call; the script compares none of them.
    """
    ledger = await Ledger.open(url, name=NAME)
    paid = [Leg(f"contrib:contributor-{number:04}", 1) for number in range(legs - 1)]
    posting = adjust(
        Adjustment(OPERATION, (Leg("payout", 1 - legs), *paid), "load", "bench"), time_ms=now_ms()
    )
    call, keys = Call(Script(posting.script)), Keys(NAME)
    call.add(posting, keys)
    async with connect(url) as redis:
        await redis.script_load(call.script.text)
    words = call.command(keys, ledger.epoch)
    await ledger.close()
    return [str(word).replace(DIGITS, RANDOM) for word in words]


def _measured(tool: list[str], words: list[str], posts: int) -> dict[str, Any]:
    rates = []
    for _ in range(ROUNDS):
        options = [
            "-c",
            str(CONNECTIONS),
            "-P",
            str(PIPELINED),
            "-n",
            str(posts),
            "-r",
            str(10**11),
        ]
        done = subprocess.run(
            [*tool, *options, "--csv", *words], check=True, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip
        rates.append(float(FIGURES.findall(done.stdout)[-7]))  # the rate, then six latencies
    return {
        "posts_per_second": round(statistics.median(rates)),
        "rounds": sorted(round(rate) for rate in rates),
        "connections": CONNECTIONS,
        "pipelined": PIPELINED,
    }
