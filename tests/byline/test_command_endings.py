"""The command refuses in one clear line or one JSON object; a slip makes and changes nothing.

A script sees the exit status and the last line of standard output: that is what is looked at here.
"""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from byline.command.__main__ import app
from byline.command.ending import run_command
from byline.command.reaching import with_ledger
from byline.errors import InvalidInput, LedgerRefused
from byline.ledger.ledger import Ledger
from byline.redis_server import RedisServer, running_redis
from tests.byline.cases import NOW_MS, event_id


@dataclass(frozen=True)
class Ended:
    """How the command ended."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> Any:
        """The error object in the last line of standard output."""
        return json.loads(self.out.splitlines()[-1])["error"]


def byline(*words: str) -> Ended:
    """Run the command in this process, with nobody to be asked."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        run_command(app, words)
    assert isinstance(ended.value.code, int)
    return Ended(ended.value.code, out.getvalue(), err.getvalue())


def byline_asked(words: Sequence[str], terminal: int) -> Ended:
    """Run the command as a program, with a terminal that somebody may answer at."""
    done = subprocess.run(
        [sys.executable, "-m", "byline.command", *words],
        stdin=terminal, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("redis")
    at = RedisServer(folder, unix_socket=folder / "s.sock")
    with running_redis(at):

        async def fund(ledger: Ledger) -> None:
            await ledger.deposit(event_id(), "demo", 1_000, time_ms=NOW_MS)

        for name in ("usd", "eur"):
            with_ledger(at.url, fund, name=name, create=True)
        yield at.url


@pytest.mark.parametrize(
    ("words", "status", "code", "param", "says"),
    [
        ("ledger check --bogus", 2, "usage", "bogus", "No such option"),
        ("ledger deposit", 2, "usage", "application", "Missing argument"),
        ("ledger trim --keep-entries 0", 2, "usage", "keep_entries", "greater than or equal to 1"),
        ("nosuch", 2, "usage", None, "No such command"),
        ("ledger deposit demo 1e5 --redis-url x", 1, "invalid_input", "usd", "write 12.50"),
        ("ledger check --redis-url x", 1, "ledger_misconfigured", None, "redis://"),
        ("status", 1, "start_failed", None, "byline up"),
    ],
)
def test_every_refusal_is_one_json_object_under_json(
    tmp_path: Path, words: str, status: int, code: str, param: str | None, says: str
) -> None:
    ended = byline(*words.split(), "--home", str(tmp_path), "--json")
    assert ended.status == status
    assert {**ended.error, "message": says} == {"code": code, "param": param, "message": says}
    assert says in ended.error["message"]
    assert ended.err == ""
    told = byline(*words.split(), "--home", str(tmp_path))
    assert (told.status, told.out) == (status, "")
    assert told.err


def test_a_word_after_the_double_dash_is_no_option(tmp_path: Path) -> None:
    ended = byline("ask", "--home", str(tmp_path), "med", "--", "--json")
    assert (ended.status, ended.out) == (1, "")


def test_a_rebuild_without_yes_asks_a_person_and_refuses_a_script(server: str) -> None:
    where = ("ledger", "rebuild", "--redis-url", server)
    before = with_ledger(server, _epoch)
    refused = byline(*where, "--json")
    assert (refused.status, refused.error["param"]) == (1, "yes")
    assert "--yes" in refused.error["message"]
    piped = byline(*where)
    assert piped.status == 1
    assert piped.err.count("\n") == 1
    ours, theirs = os.openpty()
    os.write(ours, b"n\n")
    asked = byline_asked(where, theirs)
    assert asked.status == 1
    assert "Rebuild? [y/N]" in asked.out
    assert with_ledger(server, _epoch) == before
    os.write(ours, b"y\n")
    assert byline_asked(where, theirs).status == 0
    os.close(ours)
    os.close(theirs)
    assert with_ledger(server, _epoch) == before + 1


async def _epoch(ledger: Ledger) -> int:
    return ledger.epoch


@pytest.mark.parametrize(
    "words",
    ["check", "promote", "freeze why", "thaw", "trim", "rebuild --yes", "rebuild --check",
     "deposit demo 1", "adjust --leg a=1 --reason x --by y", "block contrib:a --reason x",
     "allow contrib:a"],
)  # fmt: skip
def test_a_slip_in_a_ledgers_name_makes_none(server: str, words: str) -> None:
    ended = byline("ledger", *words.split(), "--ledger", "typo", "--redis-url", server, "--json")
    assert (ended.status, ended.error["code"]) == (1, "not_found")
    assert "the server has eur, usd" in ended.error["message"]
    assert with_ledger(server, _keys_of_typo) == []


async def _keys_of_typo(ledger: Ledger) -> list[str]:
    redis, _ = ledger.inside
    return [key async for key in redis.scan_iter(match="*typo*")]


def test_a_freeze_says_why_and_a_refusal_how_it_ends(server: str) -> None:
    for reason in ("", "  "):
        ended = byline("ledger", "freeze", reason, "--redis-url", server, "--json")
        assert (ended.status, ended.error["param"]) == (1, "reason")
    more = ("--redis-url", server, "--json")
    assert byline("ledger", "freeze", "a drill", *more).status == 0
    ended = byline("ledger", "deposit", "demo", "1", *more)
    assert (ended.status, ended.error["code"]) == (1, "ledger_frozen")
    for said in ("frozen", "a drill", "`byline ledger thaw`"):
        assert said in ended.error["message"]
    assert byline("ledger", "thaw", *more).status == 0
    assert byline("ledger", "deposit", "demo", "1", *more).status == 0


def test_a_block_says_why(server: str) -> None:
    with pytest.raises(InvalidInput, match="say why"):
        with_ledger(server, lambda ledger: ledger.block_payouts("contrib:ann", ""))


@pytest.mark.parametrize("stored", ["abc", "", "1.5", "0x1", " 7", "1_000", "-0", "٣"])
@pytest.mark.parametrize("account", ["app:demo", "x"])
def test_a_stored_balance_that_is_no_amount_is_a_finding(
    server: str, account: str, stored: str
) -> None:
    async def write(ledger: Ledger) -> str | None:
        redis, keys = ledger.inside
        before: str | None = await redis.hget(keys.balances, account)
        await redis.hset(keys.balances, account, stored)
        return before

    async def put_back(ledger: Ledger) -> None:
        redis, keys = ledger.inside
        if before is None:
            await redis.hdel(keys.balances, account)
        else:
            await redis.hset(keys.balances, account, before)

    before = with_ledger(server, write, name="eur")
    try:
        books = with_ledger(server, lambda ledger: ledger.check(), name="eur")
        assert (books.balanced, books.unreadable_accounts) == (False, {account: stored})
        assert books.drifting_accounts == {}
        for read in (lambda ledger: ledger.balances(), lambda ledger: ledger.balance(account)):
            with pytest.raises(LedgerRefused, match="byline ledger check"):
                with_ledger(server, read, name="eur")
    finally:
        with_ledger(server, put_back, name="eur")
    assert with_ledger(server, lambda ledger: ledger.check(), name="eur").balanced


def test_the_check_of_the_books_tells_what_is_no_amount(server: str) -> None:
    async def write(ledger: Ledger) -> None:
        redis, keys = ledger.inside
        await redis.hset(keys.balances, "x", "abc")

    async def undo(ledger: Ledger) -> None:
        redis, keys = ledger.inside
        await redis.hdel(keys.balances, "x")

    with_ledger(server, write)
    ended = byline("ledger", "check", "--redis-url", server, "--json")
    with_ledger(server, undo)
    assert (ended.status, ended.err) == (1, "")
    assert json.loads(ended.out)["unreadable_accounts"] == {"x": "abc"}
