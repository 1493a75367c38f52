"""Posts at a steady rate beside a running notary, and how long each waits for its tree head."""

import asyncio
import bisect
import sqlite3
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from byline.ledger.ledger import Ledger
from byline.limits import PPB
from byline.notary.folder import LogFolder
from byline.notary.state import STATE
from byline.records import Attribution, AttributionState, Share
from byline.transparency.heads import parse_head
from loadtests.ledger_bench.operations import (
    APPLICATION,
    CHARGE_NANO,
    FUNDS_NANO,
    HOLD_MS,
    INDEX,
    POOL_NANO,
    VERSION,
    captures,
    events,
    now_ms,
)

TICK_SECONDS = 0.02
LOOK_SECONDS = 0.01
DRAIN_SECONDS = 120.0
POSTS_A_LIFE = 3  # hold, capture, settle
PAYEES, CONTRIBUTORS = 5, 10_000


@dataclass
class Posts:
    """When each journal entry was sent, and when each tree head was first seen."""

    sent: dict[int, float] = field(default_factory=dict)  # by the entry's number
    heads: list[tuple[int, float]] = field(default_factory=list)  # size, time
    seconds: float = 0.0

    def waits(self, leaves: dict[int, int]) -> list[float]:
        """From each post to the first head that covers it; `leaves` are places by number."""
        sizes = [size for size, _ in self.heads]
        waits = []
        for seq, sent in self.sent.items():
            at = bisect.bisect_right(sizes, leaves[seq])  # the first size above its index
            waits.append(self.heads[at][1] - sent)
        return sorted(waits)


def an_attribution(inference: str, number: int) -> Attribution:
    """Five contributors of ten thousand are paid."""
    names = [f"c{(number * PAYEES + k) % CONTRIBUTORS}" for k in range(PAYEES)]
    shares = tuple(Share(name, 0.2, PPB // PAYEES, POOL_NANO // PAYEES) for name in names)
    return Attribution(
        inference=inference, ordinal=0, state=AttributionState.DONE, adapter_version=VERSION,
        index=INDEX, lift_nats=1.25, pool_nano=POOL_NANO, shares=shares,
    )  # fmt: skip


async def post_steadily(ledger: Ledger, folder: LogFolder, *, rate: int, seconds: float) -> Posts:
    """Holds, captures and settlements, `rate` a second together, until all are covered."""
    posts = Posts()
    await ledger.deposit(events(1)[0], APPLICATION, FUNDS_NANO, time_ms=now_ms())
    watching = asyncio.create_task(_watch(folder, posts))
    lives, tasks = _lives(), set()
    began = time.monotonic()
    begun = 0
    for tick in range(int(seconds / TICK_SECONDS)):
        due = int((tick + 1) * TICK_SECONDS * rate / POSTS_A_LIFE) - begun
        begun += due
        for _ in range(due):
            task = asyncio.create_task(_live(ledger, *next(lives), posts))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.sleep(max(began + (tick + 1) * TICK_SECONDS - time.monotonic(), 0))
    await asyncio.gather(*tasks)
    posts.seconds = time.monotonic() - began
    deadline = time.monotonic() + DRAIN_SECONDS
    newest = (await ledger.unfinished()).journal_entries
    while max(places(folder.root), default=0) < newest or not _is_covered(folder, posts):
        if time.monotonic() > deadline:
            raise TimeoutError("the notary did not catch up in two minutes")
        await asyncio.sleep(0.2)
    watching.cancel()
    return posts


def _lives() -> Iterator[tuple[str, int]]:
    number = 0
    while True:
        for inference in events(1_000):
            yield inference, number
            number += 1


async def _live(ledger: Ledger, inference: str, number: int, posts: Posts) -> None:
    """One inference's three posts, one after the other."""
    now = now_ms()
    began = time.monotonic()
    held = await ledger.hold(
        inference, APPLICATION, CHARGE_NANO, expires_ms=now + HOLD_MS, time_ms=now
    )
    posts.sent[held.seq], began = began, time.monotonic()
    captured = await ledger.capture(captures([inference])[0], time_ms=now_ms())
    posts.sent[captured.seq], began = began, time.monotonic()
    settled = await ledger.settle(an_attribution(inference, number), time_ms=now_ms())
    posts.sent[settled.seq] = began


async def _watch(folder: LogFolder, posts: Posts) -> None:
    known = 0
    while True:
        checkpoint = folder.checkpoint()
        if checkpoint is not None:
            size = parse_head(checkpoint)[0].size
            if size > known:
                posts.heads.append((size, time.monotonic()))
                known = size
        await asyncio.sleep(LOOK_SECONDS)


def _is_covered(folder: LogFolder, posts: Posts) -> bool:
    """Does the newest head that was seen cover all that was posted?"""
    leaves = places(folder.root)
    return bool(posts.heads) and posts.heads[-1][0] > leaves[max(posts.sent)]


def places(root: Path) -> dict[int, int]:
    """Where each entry's leaf stands, from the notary's state beside the published folder."""
    state = root.parents[1] / "openings" / root.name / STATE
    if not state.exists():
        return {}
    with sqlite3.connect(f"file:{state}?mode=ro", uri=True, timeout=30) as connection:
        rows = connection.execute("SELECT seq, leaf FROM entries")
        return dict(rows.fetchall())


def percentile(ordered: list[float], percent: int) -> float:
    """Of an ascending list."""
    return statistics.quantiles(ordered, n=100, method="inclusive")[percent - 1]
