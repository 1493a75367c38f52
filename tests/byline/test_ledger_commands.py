"""The commands that move money say what they posted, and refuse slips before they cost anything."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from byline.command.__main__ import app, main
from byline.command.amounts import legs_of
from byline.command.reaching import with_ledger
from byline.errors import (
    BylineError,
    InsufficientFunds,
    InvalidInput,
    KeyConflict,
    LedgerRefused,
    NotFound,
)
from byline.ledger.ledger import Ledger
from byline.limits import CENT_NANO
from byline.records import Leg
from byline.redis_server import RedisServer, running_redis
from tests.byline.cases import (
    ADAPTER,
    HOLD_MS,
    NOW_MS,
    a_capture,
    a_failure,
    event_id,
)
from tests.byline.decisions import a_payout


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    server = RedisServer(tmp_path / "redis", unix_socket=tmp_path / "redis.sock")
    with running_redis(server):
        yield server.url


def run(address: str, *words: str) -> dict[str, object]:
    """What `byline ledger WORDS --json` prints; raises what it raised."""
    outcome = CliRunner().invoke(app, ["ledger", *words, "--redis-url", address, "--json"])
    if isinstance(outcome.exception, BylineError):
        raise outcome.exception
    assert outcome.exit_code == 0, outcome.output
    printed: dict[str, object] = json.loads(outcome.output.splitlines()[-1])
    return printed


def balance(address: str, account: str, *, name: str = "usd") -> int:
    return with_ledger(address, lambda ledger: ledger.balance(account), name=name, create=True)


def test_a_deposit_asks_whether_a_new_name_is_meant(address: str) -> None:
    with pytest.raises(NotFound, match="--new"):
        run(address, "deposit", "shop", "12.50")
    made = run(address, "deposit", "shop", "12.50", "--new")
    assert (made["seq"], made["duplicate"]) == (1, False)
    assert balance(address, "app:shop") == 12_500_000_000
    with pytest.raises(InvalidInput, match="'shpo' ever had money"):
        run(address, "deposit", "shpo", "12.50")
    run(address, "adjust", "--leg", "app:shop=-12.50", "--leg", "refund=12.5",
        "--reason", "all of it", "--by", "ann")  # fmt: skip
    run(address, "deposit", "shop", "1")


def test_an_operation_sent_again_is_posted_once(address: str) -> None:
    first = run(address, "deposit", "shop", "2", "--new")
    again = run(address, "deposit", "shop", "2", "--operation", str(first["operation"]))
    assert again == {**first, "duplicate": True}
    assert balance(address, "app:shop") == 2_000_000_000
    with pytest.raises(KeyConflict):
        run(address, "deposit", "shop", "3", "--operation", str(first["operation"]))


def test_money_is_adjusted_released_and_refunded(address: str) -> None:
    inference = event_id()

    async def served(ledger: Ledger) -> None:
        await ledger.deposit(event_id(), "demo", 10_000, time_ms=NOW_MS)
        await ledger.hold(inference, "demo", 1_000, expires_ms=NOW_MS + HOLD_MS, time_ms=NOW_MS)
        await ledger.capture(a_capture(inference), time_ms=NOW_MS)
        await ledger.settle(a_failure(inference), time_ms=NOW_MS)

    with_ledger(address, served, create=True)
    adjusted = run(address, "adjust", "--leg", "platform=-0.0000001", "--leg", "host=0.0000001",
                   "--reason", "the wrong one", "--by", "ann")  # fmt: skip
    assert adjusted["legs"] == [["platform", -100], ["host", 100]]
    run(address, "release", ADAPTER, "--to", "contrib:bob=0.0000002", "--decision", "https://e.org")
    assert balance(address, "contrib:bob") == 200
    refunded = run(address, "refund", inference, "0.0000009", "--reason", "it was cut")
    assert (refunded["inference"], refunded["nano"]) == (inference, 900)
    assert balance(address, "app:demo") == 10_000
    assert balance(address, "refund") == -300
    with pytest.raises(LedgerRefused, match="only 0"):
        run(address, "refund", inference, "0.0000009", "--reason", "again")
    with pytest.raises(InsufficientFunds):
        run(
            address,
            "adjust",
            "--leg",
            "app:demo=-1",
            "--leg",
            "host=1",
            "--reason",
            "-",
            "--by",
            "a",
        )


def test_payouts_are_blocked_and_allowed(address: str) -> None:
    run(address, "deposit", "shop", "1", "--new")
    run(address, "adjust", "--leg", "contrib:ann=0.01", "--leg", "refund=-0.01",
        "--reason", "a gift", "--by", "ann")  # fmt: skip
    run(address, "block", "contrib:ann", "--reason", "a dispute")
    payout = replace(a_payout("contrib:ann"), last_seq=2)
    with pytest.raises(LedgerRefused, match="a dispute"):
        with_ledger(address, lambda ledger: ledger.payout(payout, time_ms=NOW_MS))
    assert run(address, "allow", "contrib:ann") == {"account": "contrib:ann", "blocked": None}
    with_ledger(address, lambda ledger: ledger.payout(payout, time_ms=NOW_MS))
    assert balance(address, "payout") == CENT_NANO
    with pytest.raises(LedgerRefused, match="none of"):
        run(address, "block", "ann", "--reason", "a dispute")


def test_a_ledger_is_frozen_thawed_promoted_and_checked(address: str) -> None:
    run(address, "deposit", "shop", "1", "--new")
    assert run(address, "freeze", "a drill") == {"frozen": "a drill"}
    with pytest.raises(LedgerRefused, match="a drill"):
        run(address, "deposit", "shop", "1", "--new")
    assert run(address, "thaw") == {"frozen": None}
    assert run(address, "promote") == {"epoch": 2}
    run(address, "deposit", "shop", "1", "--new")
    assert run(address, "check")["balanced"]
    assert run(address, "rebuild", "--yes") == {"accounts": 2, "jobs": 0}


def test_every_command_takes_the_name_of_its_ledger(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    eur = ("--ledger", "eur")
    run(address, "deposit", "shop", "2", "--new", *eur)
    assert (balance(address, "app:shop"), balance(address, "app:shop", name="eur")) == (
        0,
        2 * 10**9,
    )
    run(address, "adjust", "--leg", "app:shop=-1", "--leg", "contrib:ann=1",
        "--reason", "-", "--by", "a", *eur)  # fmt: skip
    run(address, "block", "contrib:ann", "--reason", "a dispute", *eur)
    assert with_ledger(address, lambda ledger: ledger.payout_blocks(), name="eur")
    run(address, "allow", "contrib:ann", *eur)
    run(address, "freeze", "a drill", *eur)
    run(address, "deposit", "shop", "1", "--new")  # the other one goes on
    with pytest.raises(LedgerRefused, match="a drill"):
        run(address, "deposit", "shop", "1", *eur)
    run(address, "thaw", *eur)
    assert run(address, "promote", *eur) == {"epoch": 2}
    assert run(address, "trim", *eur) == {"trimmed": 0}
    assert run(address, "rebuild", "--yes", *eur) == {"accounts": 3, "jobs": 0}
    for words in (("refund", event_id(), "1", "--reason", "-"),
                  ("release", ADAPTER, "--to", "contrib:a=1", "--decision", "-")):  # fmt: skip
        with pytest.raises(LedgerRefused):
            run(address, *words, *eur)
    monkeypatch.setenv("BYLINE_LEDGER", "eur")
    assert run(address, "check")["journal_entries"] == 2
    assert run(address, "check", "--ledger", "usd")["journal_entries"] == 1
    with pytest.raises(InvalidInput, match="no ledger's name"):
        run(address, "check", "--ledger", "usd:jobs")


def test_more_than_one_leg_holds_is_sent_in_parts(address: str) -> None:
    with pytest.raises(LedgerRefused, match=r"1000\.000000000 USD.* 999\.999999999 .*in parts"):
        run(address, "deposit", "shop", "1000", "--new")
    run(address, "deposit", "shop", "999.999999999", "--new")
    words = ("--to", "contrib:a=600", "--to", "contrib:b=600", "--decision", "https://e.org")
    with pytest.raises(LedgerRefused, match=r"1200\.000000000 USD.*in parts"):
        run(address, "release", ADAPTER, *words)


def test_an_unknown_outcome_names_the_operation_to_send_again(tmp_path: Path) -> None:
    with pytest.raises(BylineError, match=r"--operation [0-9a-f-]{36}"):
        run(f"unix://{tmp_path}/nothing.sock", "deposit", "shop", "1")


@pytest.mark.parametrize("as_json", [True, False])
def test_a_failure_is_told_in_the_form_that_was_asked_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    as_json: bool,
) -> None:
    words = ["byline", "status", "--home", str(tmp_path), *(["--json"] if as_json else [])]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr()
    if as_json:
        assert "nothing runs" in json.loads(said.out)["error"]["message"]
    else:
        assert said.err.startswith("byline: nothing runs")


@pytest.mark.parametrize("word", ["contrib:ann", "=", "contrib:ann=", "contrib:ann=1e-10", "a=NaN"])
def test_what_is_no_leg_is_refused(word: str) -> None:
    with pytest.raises(InvalidInput):
        legs_of([word])


def test_a_leg_may_be_negative() -> None:
    assert legs_of(["contrib:ann=-0.000000001"]) == (Leg("contrib:ann", -1),)
