"""The command refuses what can't work, says what to do instead, and keeps secrets private."""

import io
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from byline.api_keys import ApiKeys
from byline.command.__main__ import app
from byline.command.account import ensure_accounts, write_private
from byline.command.amounts import nano_of
from byline.command.asking import earnings_table
from byline.command.preparing import require_space
from byline.command.programs import Ports
from byline.command.up import _only_one, require_ports
from byline.errors import InvalidInput, StartFailed
from byline.home import Home
from byline.ledger.ledger import Ledger
from byline.money import usd
from byline.records import KeyRole
from byline.redis_server import RedisServer, running_redis
from tests.ports import free_ports

SUBCOMMANDS = ("up", "down", "status", "ask", "attribution", "earnings", "datasets", "adapters",
               "train", "index", "keys", "ledger")  # fmt: skip


def test_the_manual_names_every_subcommand() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    assert not [name for name in SUBCOMMANDS if name not in text]


@pytest.mark.parametrize("arguments", [["status"], ["ask", "healthcare", "?"], ["down"]])
def test_without_a_running_byline_the_message_says_to_start_it(
    tmp_path: Path, arguments: list[str]
) -> None:
    outcome = CliRunner().invoke(app, [*arguments, "--home", str(tmp_path)])
    assert isinstance(outcome.exception, StartFailed)
    assert "byline up" in str(outcome.exception)


def test_a_second_up_in_the_same_home_is_refused(tmp_path: Path) -> None:
    with _only_one(Home(tmp_path)):
        with pytest.raises(StartFailed, match="byline down"), _only_one(Home(tmp_path)):
            pass


def test_each_of_the_ports_must_be_free() -> None:
    ports = Ports(free_ports(8))
    require_ports(ports)
    with (
        socket.create_server(("127.0.0.1", ports.redis)),
        pytest.raises(StartFailed, match=f"port {ports.redis}, wanted for the redis"),
    ):
        require_ports(ports)


def test_too_little_disk_is_said_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="Free some space"):
        require_space(tmp_path, 2**62)


def test_demo_keys_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    os.umask(0o000)
    try:
        write_private(Home(tmp_path), {"application": "byl_secret"})
    finally:
        os.umask(0o022)
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis", unix_socket=tmp_path / "redis.sock")
    with running_redis(server):
        yield server


@pytest.mark.anyio
async def test_a_second_start_keeps_the_keys_and_the_money(
    tmp_path: Path, own_redis: RedisServer
) -> None:
    async def ensure() -> dict[str, object]:
        return await ensure_accounts(
            Home(tmp_path),
            redis_url=own_redis.url,
            gateway_url="http://127.0.0.1:8080",
            contributors=["plover"],
            now_ms=time.time_ns() // 1_000_000,
        )

    assert await ensure() == await ensure()
    keys = json.loads((tmp_path / "keys.json").read_text())
    api_keys = await ApiKeys.open(own_redis.url)
    found = await api_keys.find(keys["contributors"]["plover"])
    await api_keys.close()
    assert (found.role, found.subject) == (KeyRole.CONTRIBUTOR, "plover")
    ledger = await Ledger.open(own_redis.url)
    balances = await ledger.balances()
    await ledger.close()
    assert balances["app:demo"] == -balances["funding"] == 100_000_000_000


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_earnings_are_shown_uncut(columns: int) -> None:
    name, nano = "a-contributor-with-a-long-name-of-64-characters-" + "x" * 16, 10**18 - 1
    console = Console(width=columns, file=io.StringIO())
    console.print(earnings_table({f"contrib:{name}": nano}, {name: "Ann " * 20}))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [line.split("│")[1:-1] for line in shown.splitlines() if "│" in line]
    cells = ["".join(part.strip() for part in column) for column in zip(*lines, strict=True)]
    assert [cell.replace(" ", "") for cell in cells] == [name, "Ann" * 20, str(nano), usd(nano)]


@given(st.integers(1, 10**18))
def test_dollars_as_written_are_exact_nano(nano: int) -> None:
    assert nano_of(usd(nano)) == nano


@pytest.mark.parametrize("text", ["", "a", "-1", "0", "0.0000000001", "NaN", "Infinity"])
def test_amounts_that_are_no_amounts_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        nano_of(text)
