"""`byline ledger check`, `rebuild` and `trim` begin where they are told to and tell the end."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from byline.archive.database import Archive
from byline.archive.exporter import Exporter
from byline.command.__main__ import app
from byline.command.reaching import with_ledger
from byline.errors import LedgerRefused, NotFound
from byline.ledger.ledger import Ledger
from byline.ledger.snapshots import Snapshots
from byline.redis_server import RedisServer, running_redis
from tests.byline.cases import NOW_MS, captured, event_id
from tests.byline.test_snapshots import a_snapshot


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    server = RedisServer(tmp_path / "redis", unix_socket=tmp_path / "redis.sock")
    with running_redis(server):
        yield server.url


@pytest.fixture
def archive_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/archive.sqlite"


def run(address: str, *words: str) -> tuple[int, dict[str, object]]:
    """The exit code of `byline ledger WORDS --json`, and what it prints."""
    outcome = CliRunner().invoke(app, ["ledger", *words, "--redis-url", address, "--json"])
    if isinstance(outcome.exception, LedgerRefused):
        raise outcome.exception
    return outcome.exit_code, json.loads(outcome.output.splitlines()[-1])


async def ready_to_trim(ledger: Ledger, archive_url: str) -> None:
    """Six entries, all of them exported, with a snapshot at the end."""
    await captured(ledger)
    await captured(ledger)
    archive = Archive.open(archive_url)
    await Exporter(ledger, archive).once()
    archive.close()
    await Snapshots(*ledger.inside).write(await a_snapshot(ledger), ledger.epoch)


def test_trim_keeps_what_it_is_told_to_keep(address: str, archive_url: str) -> None:
    with_ledger(address, lambda ledger: ready_to_trim(ledger, archive_url), create=True)
    assert run(address, "trim") == (0, {"trimmed": 0})
    words = ("trim", "--keep-entries", "4", "--keep-days", "0")
    assert run(address, *words) == (0, {"trimmed": 2})
    code, books = run(address, "check")
    assert (code, books["journal_entries"], books["unbalanced_inferences"]) == (0, 6, {})


def test_a_trimmed_ledger_is_rebuilt_from_its_snapshot_or_from_the_archive(
    address: str, archive_url: str
) -> None:
    with_ledger(address, lambda ledger: ready_to_trim(ledger, archive_url), create=True)
    before = with_ledger(address, lambda ledger: ledger.balances())
    run(address, "trim", "--keep-entries", "1", "--keep-days", "0")
    with pytest.raises(LedgerRefused, match="begin at the snapshot"):
        run(address, "rebuild", "--yes", "--full")

    async def spoil(ledger: Ledger) -> None:
        await ledger.deposit(event_id(), "demo", 7, time_ms=NOW_MS)
        redis, keys = ledger.inside
        await redis.delete(keys.balances, keys.snapshot)

    with_ledger(address, spoil)
    with pytest.raises(LedgerRefused, match="digest is wrong"):
        run(address, "rebuild", "--yes")
    code, _ = run(address, "rebuild", "--yes", "--from-archive", archive_url)
    assert code == 0
    after = with_ledger(address, lambda ledger: ledger.balances())
    assert {name: after[name] - before[name] for name in before if after[name] != before[name]} == {
        "app:demo": 7, "funding": -7,
    }  # fmt: skip


def test_any_ledger_is_rebuilt_from_the_archive_with_its_lost_jobs(
    address: str, archive_url: str
) -> None:
    async def spoiled(ledger: Ledger) -> None:
        await captured(ledger)
        archive = Archive.open(archive_url)
        await Exporter(ledger, archive, name="eur").once()
        archive.close()
        redis, keys = ledger.inside
        await redis.delete(keys.balances, keys.pools, keys.jobs)

    with_ledger(address, spoiled, name="eur", create=True)
    words = ("rebuild", "--yes", "--from-archive", archive_url, "--ledger", "eur")
    assert run(address, *words) == (0, {"accounts": 4, "jobs": 1})
    assert run(address, "check", "--ledger", "eur")[0] == 0
    assert with_ledger(address, lambda ledger: ledger.unfinished(), name="eur").pools == 1


def test_a_full_rebuild_does_not_look_at_the_snapshot(address: str, archive_url: str) -> None:
    with_ledger(address, lambda ledger: ready_to_trim(ledger, archive_url), create=True)

    async def spoil(ledger: Ledger) -> None:
        redis, keys = ledger.inside
        await redis.hincrby(keys.snapshot, "platform", 1)

    with_ledger(address, spoil)
    assert run(address, "rebuild", "--yes", "--full")[0] == 0
    assert run(address, "check")[0] == 0


def test_entries_that_are_lost_are_put_back_before_the_rebuild(
    address: str, archive_url: str
) -> None:
    with_ledger(address, lambda ledger: ready_to_trim(ledger, archive_url), create=True)
    before = with_ledger(address, lambda ledger: ledger.balances())

    async def lose(ledger: Ledger) -> None:
        redis, keys = ledger.inside
        await redis.xdel(keys.journal, "2-1", "6-1")

    with_ledger(address, lose)
    assert run(address, "check")[0] == 1
    words = ("rebuild", "--yes", "--full", "--restore", archive_url)
    assert run(address, *words) == (0, {"restored": 2, "accounts": len(before), "jobs": 0})
    assert run(address, "check")[0] == 0
    assert with_ledger(address, lambda ledger: ledger.balances()) == before


def test_a_server_that_has_lost_all_gets_its_ledger_back(address: str, archive_url: str) -> None:
    with_ledger(address, lambda ledger: ready_to_trim(ledger, archive_url), create=True)
    before = with_ledger(address, lambda ledger: ledger.balances())

    async def lose(ledger: Ledger) -> None:
        await ledger.inside[0].flushall()

    with_ledger(address, lose)
    words = ("rebuild", "--yes", "--restore", archive_url)
    slip = ["ledger", *words, "--ledger", "slip", "--redis-url", address]
    assert isinstance(CliRunner().invoke(app, slip).exception, NotFound)  # it is in no archive
    code, done = run(address, *words)
    assert (code, done["accounts"]) == (0, len(before))
    assert with_ledger(address, lambda ledger: ledger.balances()) == before
    assert run(address, "check")[0] == 0
