"""The exporter as a process on a real ledger: killed anywhere, waiting, stopped, measured."""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import func, select

from byline.archive import __main__ as program
from byline.archive.__main__ import export_all
from byline.archive.database import Archive
from byline.archive.earnings import balance_of
from byline.archive.exporter import Exporter
from byline.archive.lines import account_lines
from byline.archive.metrics import ArchiveMetrics
from byline.archive.settings import ArchiveSettings
from byline.archive.tables import account_days, accounts, adapters, entries, legs
from byline.archive.usage import usage_lines
from byline.ledger.ledger import Ledger
from byline.records import (
    AdapterVersion,
    Adjustment,
    Leg,
    Payout,
    Refund,
    Release,
    UnattributedRelease,
)
from byline.redis_server import RedisServer, running_redis
from byline.registry import write_release
from tests.byline.cases import (
    ADAPTER,
    HOLD_MS,
    NOW_MS,
    a_capture,
    a_failure,
    an_attribution,
    event_id,
)
from tests.ports import free_port

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
START_SECONDS = 30.0


async def post_history(ledger: Ledger, rng: random.Random, *, inferences: int) -> None:
    """Deposits, and inferences that end in every way there is."""
    await ledger.deposit(event_id(rng=rng), "demo", 10**9, time_ms=NOW_MS)
    for number in range(inferences):
        inference, end = event_id(rng=rng), number % 4
        await ledger.hold(inference, "demo", 1_000, expires_ms=NOW_MS + HOLD_MS, time_ms=NOW_MS)
        if end == 1:
            await ledger.void(inference, "demo", time_ms=NOW_MS)
        if end == 2:
            await ledger.expire(inference, time_ms=NOW_MS + HOLD_MS)
        if end in (0, 2):
            await ledger.capture(a_capture(inference, pools=(300, 200)), time_ms=NOW_MS)
            await ledger.settle(an_attribution(inference, pool=300), time_ms=NOW_MS)
            await ledger.settle(a_failure(inference, 1, pool=200), time_ms=NOW_MS)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", **more}


async def require_equal(ledger: Ledger, archive: Archive, name: str) -> None:
    """The archive has the journal, each entry once, and its balances are the ledger's."""
    with archive.reading() as connection:
        texts = list(connection.execute(select(entries.c.text).order_by(entries.c.seq)).scalars())
        stored = connection.execute(select(accounts).where(accounts.c.ledger == name)).all()
        by_leg = connection.scalar(select(func.count()).select_from(legs)) or 0
        by_day = connection.scalar(select(func.sum(account_days.c.nano)))
    assert texts == [text for _, text in await ledger.page(after_seq=0, limit=10**6)]
    assert {row.account: row.nano for row in stored if row.nano} == await ledger.balances()
    assert by_leg == sum(len(json.loads(text)["legs"]) for text in texts)
    assert int(by_day or 0) == -sum(
        row.nano for row in stored if row.account.startswith(("hold:", "open:"))
    )


@pytest.mark.slow
async def test_killed_after_any_step_and_started_again_it_exports_each_entry_once(
    ledger: Ledger, ledger_name: str, redis_url: str, archive_url: str
) -> None:
    await post_history(ledger, random.Random(7), inferences=24)
    command = [sys.executable, "-m", "tests.byline.killed_exporter"]
    ended = await asyncio.to_thread(
        subprocess.run, [*command, redis_url, archive_url, ledger_name], cwd=ROOT,
        env=environment(), timeout=120, check=False, capture_output=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr.decode()
    assert int(ended.stdout) >= 8 * 3  # after each step of a page, three times and more
    archive = Archive.open(archive_url)
    await require_equal(ledger, archive, ledger_name)
    archive.close()


async def test_an_operators_postings_are_archived_with_their_reasons(
    ledger: Ledger, ledger_name: str, archive: Archive
) -> None:
    inference = event_id()
    await ledger.deposit(event_id(), "demo", 10**9, time_ms=NOW_MS)
    await ledger.hold(inference, "demo", 10**8, expires_ms=NOW_MS + HOLD_MS, time_ms=NOW_MS)
    capture = a_capture(inference, held=10**8, credit=10**7, pools=(5 * 10**7,))
    await ledger.capture(capture, time_ms=NOW_MS)
    attribution = an_attribution(inference, pool=5 * 10**7, unattributed=10**7)
    await ledger.settle(attribution, time_ms=NOW_MS)
    payout = Payout(
        event_id(), "contrib:alice", 2 * 10**7, "contrib:alice/2026-11", 1, 2, 0, 5 * 10**7, ""
    )
    await ledger.payout(payout, time_ms=NOW_MS)
    await ledger.refund(Refund(event_id(), inference, 600, "a bad answer"), time_ms=NOW_MS)
    double = (Leg("contrib:alice", -7), Leg("platform", 7))
    await ledger.adjust(Adjustment(event_id(), double, "a double", "ops"), time_ms=NOW_MS)
    to_alice = UnattributedRelease(event_id(), ADAPTER, (Leg("contrib:alice", 9),), "D-12")
    await ledger.release(to_alice, time_ms=NOW_MS)
    while await Exporter(ledger, archive, name=ledger_name).once():
        pass
    await require_equal(ledger, archive, ledger_name)
    with archive.reading() as connection:
        found, _ = account_lines(connection, "contrib:alice", limit=9)
        (used,), _ = usage_lines(connection, "demo", limit=9)
        paid = balance_of(connection, "contrib:alice", now_ms=0, blocked=False).paid_nano
    assert [(line.kind, line.reason) for line in found] == [
        ("release", "D-12"), ("adjust", "a double"), ("refund", "a bad answer"), ("payout", None),
        ("settle", None),
    ]  # fmt: skip
    assert (used.inference, used.refunded_nano, paid) == (inference, 600, 2 * 10**7)


async def test_the_program_exports_what_is_posted_while_it_runs(
    ledger: Ledger, ledger_name: str, redis_url: str, archive_url: str, tmp_path: Path
) -> None:
    version = AdapterVersion("healthcare", ADAPTER, "x", "clinic", "tiny", "data@aa", "index@bb")
    write_release(tmp_path / "release.json", Release("tiny", "x", 2048, (version,), "router@cc"))
    await post_history(ledger, random.Random(1), inferences=4)
    async with running(tmp_path, redis_url, archive_url, ledger_name) as port:
        await until(lambda: metric(port, "byline_archive_exported_seq", ledger_name) > 0)
        await post_history(ledger, random.Random(2), inferences=4)
        newest = (await ledger.unfinished()).journal_entries
        await until(partial(has_exported, port, ledger_name, newest))
        await until(lambda: metric(port, "byline_archive_lag_entries", ledger_name) == 0.0)
        assert metric(port, "byline_archive_lag_seconds", ledger_name) == 0.0
        assert metric(port, "byline_archive_stopped", ledger_name) == 0.0
        assert "byline_archive_manifests_missing 0.0" in fetch(port, "/metrics")[1]
        assert metric(port, "byline_archive_rows_total", ledger_name, 'table="legs"') > newest
        assert fetch(port, "/healthz") == (200, "ok\n")
        assert fetch(port, "/nothing")[0] == 404
    archive = Archive.open(archive_url)
    await require_equal(ledger, archive, ledger_name)
    with archive.reading() as connection:
        assert connection.execute(select(adapters)).one() == (ADAPTER, "healthcare", "data@aa")
    archive.close()


async def test_the_program_waits_for_a_ledger_that_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path / "redis", unix_socket=tmp_path / "s.sock")
    url = f"sqlite:///{tmp_path}/archive.sqlite"
    async with running(tmp_path, server.url, url, "usd") as port:
        await until(lambda: "waiting" in caplog.text)
        assert fetch(port, "/healthz")[0] == 200
        for seed in range(2):  # it comes, goes and comes again
            with running_redis(server):
                ledger = await Ledger.open(server.url)
                await post_history(ledger, random.Random(seed), inferences=2)
                newest = (await ledger.unfinished()).journal_entries
                await ledger.close()
                await until(partial(has_exported, port, "usd", newest))


async def test_a_contradiction_is_shown_and_the_program_stays(
    ledger: Ledger, ledger_name: str, redis_url: str, archive: Archive, archive_url: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    await post_history(ledger, random.Random(1), inferences=2)
    other = await Ledger.open(redis_url, name=event_id())
    await post_history(other, random.Random(2), inferences=3)
    while await Exporter(other, archive, name=ledger_name).once():
        pass
    await other.close()
    async with running(tmp_path, redis_url, archive_url, ledger_name) as port:
        await until(lambda: metric(port, "byline_archive_stopped", ledger_name) == 1.0)
        status, text = fetch(port, "/healthz")
        assert (status, "another one in the archive" in text or "older copy" in text) == (503, True)


@asynccontextmanager
async def running(home: Path, redis_url: str, archive_url: str, ledgers: str) -> AsyncIterator[int]:
    """The program, until the block ends and a SIGTERM stops it. Gives its port."""
    port = free_port()
    settings = ArchiveSettings(
        home=home, redis_url=redis_url, url=archive_url, ledgers=(ledgers,), metrics_port=port
    )
    running_program = asyncio.create_task(export_all(settings, ArchiveMetrics()))
    await asyncio.sleep(0)
    try:
        yield port
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running_program, 15)
    finally:
        running_program.cancel()


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as problem:
        with problem:
            return problem.code, problem.read().decode()


def metric(port: int, name: str, ledger: str, label: str = "") -> float:
    """One sample of the program's metrics; -1 where there is none yet."""
    wanted = f'ledger="{ledger}"'
    for line in fetch(port, "/metrics")[1].splitlines():
        if line.startswith(f"{name}{{") and wanted in line and label in line:
            return float(line.rpartition(" ")[2])
    return -1.0


def has_exported(port: int, ledger: str, seq: int) -> bool:
    return metric(port, "byline_archive_exported_seq", ledger) == seq


async def until(claim: Callable[[], bool]) -> None:
    for _ in range(600):
        if await asyncio.to_thread(claim):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not become true in time")


def test_the_program_starts_from_its_environment_and_stops_at_sigterm(tmp_path: Path) -> None:
    port = free_port()
    settings = {
        "BYLINE_ARCHIVE_HOME": str(tmp_path),
        "BYLINE_ARCHIVE_REDIS_URL": f"unix://{tmp_path}/none.sock",
        "BYLINE_ARCHIVE_METRICS_PORT": str(port),
    }
    command = [sys.executable, "-m", "byline.archive"]
    with subprocess.Popen(command, cwd=ROOT, env=environment(**settings)) as process:
        answered = wait_for_answer(port)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    assert answered == (200, "ok\n")
    assert (tmp_path / "archive.sqlite").exists()


def wait_for_answer(port: int) -> tuple[int, str]:
    for _ in range(600):
        with suppress(urllib.error.URLError):
            return fetch(port, "/healthz")
        time.sleep(0.05)
    raise AssertionError("the program did not start")


def test_a_ledger_that_could_lose_money_ends_the_program(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = RedisServer(tmp_path / "redis", unix_socket=tmp_path / "s.sock")
    monkeypatch.setenv("BYLINE_ARCHIVE_HOME", str(tmp_path))
    monkeypatch.setenv("BYLINE_ARCHIVE_REDIS_URL", server.url)
    monkeypatch.setenv("BYLINE_ARCHIVE_METRICS_PORT", str(free_port()))
    with running_redis(server):
        set_unsafe(server)
        with pytest.raises(SystemExit, match="could lose money"):
            program.main()


def set_unsafe(server: RedisServer) -> None:
    assert server.unix_socket is not None
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(server.unix_socket))
        connection.sendall(b"CONFIG SET appendfsync everysec\r\n")
        assert connection.recv(64) == b"+OK\r\n"


def test_a_bad_setting_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYLINE_ARCHIVE_METRICS_PORT", "0")
    with pytest.raises(SystemExit, match="metrics_port"):
        program.main()


def test_settings_name_ledgers_with_commas_and_default_to_the_homes_archive(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BYLINE_ARCHIVE_HOME", str(tmp_path))
    monkeypatch.setenv("BYLINE_ARCHIVE_LEDGERS", "usd, usd2,")
    settings = ArchiveSettings()
    assert settings.ledgers == ("usd", "usd2")
    assert settings.archive_url == f"sqlite:///{tmp_path}/archive.sqlite"
    assert ArchiveSettings(url="postgresql://h/d").archive_url == "postgresql://h/d"
    assert ArchiveSettings(ledgers=("a",)).ledgers == ("a",)


def test_a_bad_setting_names_itself_and_never_shows_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BYLINE_ARCHIVE_REDIS_URL", "http://u:hunter2@h")
    with pytest.raises(ValidationError, match="redis_url") as raised:
        ArchiveSettings()
    assert "hunter2" not in str(raised.value)
