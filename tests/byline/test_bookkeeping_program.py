"""The program: settings from the environment, metrics on its port, SIGTERM ends it."""

import asyncio
import os
import re
import signal
import sys
import urllib.request
from pathlib import Path

import pytest
from pydantic import ValidationError

from byline.bookkeeping.findings import Figures, Finding, Findings, Kind
from byline.bookkeeping.gauges import FOUND, SHOWN, BooksMetrics
from byline.bookkeeping.settings import BookkeeperSettings
from byline.ledger.ledger import Ledger
from byline.redis_server import RedisServer, running_redis
from tests.byline.cases import captured
from tests.ports import free_port

pytestmark = pytest.mark.anyio


def metrics_at(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
    return text


async def shown(port: int, pattern: str) -> str:
    """The page, as soon as it has such a line."""
    async with asyncio.timeout(20):
        while True:
            try:
                page = await asyncio.to_thread(metrics_at, port)
            except OSError:
                page = ""
            if re.search(pattern, page, re.MULTILINE):
                return page
            await asyncio.sleep(0.05)


async def test_the_program_keeps_the_books_of_a_ledger_that_comes_later(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", unix_socket=tmp_path / "s.sock")
    port = free_port()
    env = {
        **os.environ,
        "BYLINE_BOOKKEEPER_REDIS_URL": server.url,
        "BYLINE_BOOKKEEPER_ARCHIVE_URL": f"sqlite:///{tmp_path}/archive.sqlite",
        "BYLINE_BOOKKEEPER_LEDGERS": "usd, usd-1",
        "BYLINE_BOOKKEEPER_METRICS_PORT": str(port),
        "BYLINE_BOOKKEEPER_INTERVAL_SECONDS": "0.05",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "byline.bookkeeping", env=env
    )
    try:
        await shown(port, "byline_books_rounds")
        with running_redis(server):
            ledger = await Ledger.open(server.url)
            await captured(ledger)
            page = await shown(port, r'byline_books_folded_seq{ledger="usd"} 3\.0')
            await shown(port, r'byline_books_folded_seq{ledger="usd-1"} 0\.0')
            await ledger.close()
        assert 'byline_books_balance_nano{account="platform",ledger="usd"} 400.0' in page
        assert 'byline_books_frozen{ledger="usd"} 0.0' in page
        program.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await program.wait() == 0
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()


def test_ledgers_are_named_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BookkeeperSettings().ledgers == ("usd",)
    monkeypatch.setenv("BYLINE_BOOKKEEPER_LEDGERS", "usd-0, usd-1")
    assert BookkeeperSettings().ledgers == ("usd-0", "usd-1")
    monkeypatch.setenv("BYLINE_BOOKKEEPER_LEDGERS", " ")
    with pytest.raises(ValidationError, match="ledgers"):
        BookkeeperSettings()


def test_every_finding_is_in_a_gauge() -> None:
    assert {kind for _, kinds in FOUND.values() for kind in kinds} == set(Kind)
    metrics = BooksMetrics()
    found = tuple(Finding(kind, "it", "is wrong") for kind in Kind)
    metrics.observe("usd", Findings(found, Figures(frozen="a drill", balances={"host": 5})))
    value = metrics.registry.get_sample_value
    assert sum(value(name, {"ledger": "usd"}) or 0 for name in FOUND) == len(Kind)
    assert all(value(name, {"ledger": "usd"}) == 0 for name in SHOWN)
    assert value("byline_books_frozen", {"ledger": "usd"}) == 1
    assert value("byline_books_balance_nano", {"ledger": "usd", "account": "host"}) == 5
